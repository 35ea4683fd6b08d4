"""Projects with which a shared image is shared. It is theirs to see by its id at once, and in their lists once they
have accepted it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, delete, func, insert, select, update

from droveway.domain.faults import Conflict, NotFound, TooLarge
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ImageMemberRow
from droveway.store.schema import image_members, images

PENDING, ACCEPTED, REJECTED = "pending", "accepted", "rejected"
STATUSES = (PENDING, ACCEPTED, REJECTED)
MEMBERS_MAX = 128  # of one image
m = image_members.c
_OF = Prepared(select(image_members).where(m.image_id == bindparam("of")).order_by(m.created_at_us, m.member))
_GET = Prepared(select(image_members).where(m.image_id == bindparam("of"), m.member == bindparam("of_member")))
_COUNT = Prepared(select(func.count()).select_from(image_members).where(m.image_id == bindparam("of")))


def shared_with(project: str | BindParameter[str], status: str | None = None) -> ColumnElement[bool]:
    """Whether an image is shared with that project, which has answered so (None: anything)."""
    mine = select(m.image_id).where(m.member == project)
    if status is not None:
        mine = mine.where(m.status == status)
    return and_(images.c.visibility == "shared", images.c.id.in_(mine))


def of(tx: Tx, image_id: str) -> Sequence[ImageMemberRow]:
    return results.every(ImageMemberRow, tx.execute(_OF, {"of": image_id}))


def get(tx: Tx, image_id: str, member: str) -> ImageMemberRow:
    row = results.first(ImageMemberRow, tx.execute(_GET, {"of": image_id, "of_member": member}))
    if row is None:
        raise NotFound(f"{member[:64]} not found in the member list of the image {image_id}.")
    return row


def add(tx: Tx, image_id: str, member: str) -> ImageMemberRow:
    """Raises Conflict, TooLarge."""
    if tx.execute(_GET, {"of": image_id, "of_member": member}).first() is not None:
        raise Conflict(f"The project {member[:64]} is a member of the image {image_id} already.")
    if int(tx.execute(_COUNT, {"of": image_id}).scalar_one()) >= MEMBERS_MAX:
        raise TooLarge(f"The limit has been exceeded on the number of allowed image members: {MEMBERS_MAX}.")
    made = {"created_at_us": tx.now_us, "updated_at_us": tx.now_us}
    tx.execute(insert(image_members).values(image_id=image_id, member=member, status=PENDING, **made))
    return get(tx, image_id, member)


def answer(tx: Tx, image_id: str, member: str, status: str) -> ImageMemberRow:
    get(tx, image_id, member)
    here = (m.image_id == image_id, m.member == member)
    tx.execute(update(image_members).where(*here).values(status=status, updated_at_us=tx.now_us))
    return get(tx, image_id, member)


def remove(tx: Tx, image_id: str, member: str) -> None:
    get(tx, image_id, member)
    tx.execute(delete(image_members).where(m.image_id == image_id, m.member == member))
