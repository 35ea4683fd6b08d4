"""Queries of images, and the three moves of an upload: claim, finish, give up.

`generation` rises with every claim, so an upload that was given up, or whose image was deleted and made again, cannot
finish. The bytes are a file named by the image's id; only an `active` or `deactivated` image has one, and a deleted one
with `data_kept`, which servers still use: it has no owner any more, and hosts may fetch it. A deleted image that had
data keeps its row for a while, and as long as a server was made of it, so that its id is not given to another one:
a reader that still holds the id cannot meet other bytes under it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    String,
    and_,
    bindparam,
    delete,
    insert,
    not_,
    or_,
    select,
    true,
    update,
)

from droveway.domain.faults import Conflict, Forbidden, NotFound
from droveway.domain.model import ImageRef
from droveway.store.engine import order, results
from droveway.store.engine.in_list import one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.image import members
from droveway.store.rows import ImageRow
from droveway.store.schema import image_members, images, instances

QUEUED, SAVING, ACTIVE, DEACTIVATED, DELETED = "queued", "saving", "active", "deactivated", "deleted"
WITH_DATA = (ACTIVE, DEACTIVATED)
_ONE = select(images).where(images.c.id == bindparam("of"))
_ANY = Prepared(_ONE)
_USED = select(instances.c.image_id).where(instances.c.image_id.is_not(None), instances.c.deleted.is_(False))


class NewImage(msgspec.Struct, frozen=True):
    id: str
    project_id: str
    name: str | None
    visibility: str
    protected: bool
    container_format: str | None
    disk_format: str | None
    min_ram_mb: int
    min_disk_gb: int
    properties: dict[str, str]
    tags: list[str]


class Filters(msgspec.Struct, frozen=True):
    """Which images, of those that `project_id` may see (None: all)."""

    project_id: str | None
    exact: dict[str, Any] = {}  # column -> value
    any_of: dict[str, list[str]] = {}  # column -> values (`id=in:…`)
    times: list[tuple[str, bool, int | None, int | None]] = []  # (column, negated, from, before), microseconds
    tags: list[str] = []
    member_status: str | None = members.ACCEPTED  # of what is shared with the project; None: whatever it has answered
    properties: dict[str, str] = {}
    size_min: int | None = None
    size_max: int | None = None
    changed_since_us: int | None = None
    sort: list[tuple[str, bool]] = []  # (column, descending), each column once
    marker: str | None = None
    limit: int = 100


def path_of(directory: str | Path, image_id: str) -> Path:
    return Path(directory) / image_id


def ref(tx: Tx, image_id: str, directory: str) -> ImageRef:
    """What a host needs to fetch the bytes and to know that they are the right ones. `directory`: where every host sees
    them; empty, and they come from an API. Raises NotFound."""
    row = results.first(ImageRow, tx.execute(_ANY, {"of": image_id}))
    if row is None or not (row["status"] == ACTIVE or row["data_kept"]):
        why = "is deactivated" if row is not None and row["status"] == DEACTIVATED else "is no longer there"
        raise NotFound(f"image {image_id} {why}; choose another one")
    disk_format, size_bytes, sha512 = row["disk_format"], row["size_bytes"], row["sha512"]
    if sha512 is None and size_bytes == 0:
        raise NotFound(f"image {image_id} has no data of its own, only snapshots of volumes; choose another one")
    assert disk_format is not None and size_bytes is not None and sha512 is not None, f"{image_id} was never uploaded"
    path = str(path_of(directory, row["id"])) if directory else ""
    return ImageRef(row["id"], disk_format, size_bytes, sha512, path)


def for_host(tx: Tx, image_id: str) -> ImageRow | None:
    """The image, if there is data of it for a host with a ticket."""
    row = results.first(ImageRow, tx.execute(_ANY, {"of": image_id}))
    return row if row is not None and (row["status"] in WITH_DATA or row["data_kept"]) else None


def create(tx: Tx, new: NewImage) -> ImageRow:
    if tx.execute(select(images.c.id).where(images.c.id == new.id)).first() is not None:
        raise Conflict(f"There is, or was, an image {new.id} already.")
    tx.execute(
        insert(images).values(
            **msgspec.structs.asdict(new),
            status=QUEUED,
            generation=0,
            created_at_us=tx.now_us,
            updated_at_us=tx.now_us,
        )
    )
    return get(tx, new.id, None)


def _visible(project_id: str | BindParameter[str]) -> ColumnElement[bool]:
    is_open = one_of(images.c.visibility, ("public", "community"))
    return or_(images.c.project_id == project_id, is_open, members.shared_with(project_id))


_STANDING = _ONE.where(images.c.status != DELETED)
_GET = Prepared(_STANDING)
_GET_VISIBLE = Prepared(_STANDING.where(_visible(bindparam("of_project", type_=String()))))


def get(tx: Tx, image_id: str, project_id: str | None) -> ImageRow:
    """An image that the project may see (None: any)."""
    if project_id is None:
        row = results.first(ImageRow, tx.execute(_GET, {"of": image_id}))
    else:
        row = results.first(ImageRow, tx.execute(_GET_VISIBLE, {"of": image_id, "of_project": project_id}))
    if row is None:
        raise NotFound(f"No image found with ID {image_id}.")
    return row


def owned(tx: Tx, image_id: str, project_id: str | None) -> ImageRow:
    """An image that the project may change (None: any)."""
    row = get(tx, image_id, project_id)
    if project_id is not None and row["project_id"] != project_id:
        raise Forbidden(f"Image {image_id} belongs to another project.")
    return row


def find(tx: Tx, filters: Filters) -> Sequence[ImageRow]:
    """Images in order; those of the community only when asked for by visibility."""
    conditions: list[ColumnElement[bool]] = [images.c.status != DELETED]
    conditions += [images.c[name] == value for name, value in filters.exact.items()]
    conditions += [images.c[name].in_(values) for name, values in filters.any_of.items()]
    conditions += [_in_time(*each) for each in filters.times]
    if filters.project_id is not None:
        conditions.append(_visible(filters.project_id))
        if filters.member_status is not None:
            others = images.c.visibility != "shared"
            mine = images.c.project_id == filters.project_id
            conditions.append(or_(others, mine, members.shared_with(filters.project_id, filters.member_status)))
        if "visibility" not in filters.exact:
            conditions.append(or_(images.c.visibility != "community", images.c.project_id == filters.project_id))
    if filters.size_min is not None:
        conditions.append(images.c.size_bytes >= filters.size_min)
    if filters.size_max is not None:
        conditions.append(images.c.size_bytes <= filters.size_max)
    if filters.changed_since_us is not None:
        conditions.append(images.c.updated_at_us >= filters.changed_since_us)
    sort = [*filters.sort, *(s for s in (("created_at_us", True), ("id", True)) if s[0] not in dict(filters.sort))]
    keys: list[tuple[ColumnElement[Any], bool]] = [(images.c[name], down) for name, down in sort]
    if filters.marker is not None:
        last = dict(get(tx, filters.marker, filters.project_id))
        conditions.append(order.behind(keys, [last[name] for name, _ in sort]))
    query = select(images).where(*conditions).order_by(*order.clauses(keys))
    if not filters.tags and not filters.properties:
        return results.every(ImageRow, tx.execute(query.limit(filters.limit)))
    rows = results.one_by_one(ImageRow, tx.execute(query))
    return [row for row in rows if _matches(row, filters)][: filters.limit]


def _in_time(name: str, negated: bool, since_us: int | None, before_us: int | None) -> ColumnElement[bool]:
    column = images.c[name]
    inside = and_(
        true(),
        *(column >= value for value in (since_us,) if value is not None),
        *(column < value for value in (before_us,) if value is not None),
    )
    return not_(inside) if negated else inside


def _matches(row: ImageRow, filters: Filters) -> bool:
    return all(tag in row["tags"] for tag in filters.tags) and all(
        row["properties"].get(name) == value for name, value in filters.properties.items()
    )


def change(tx: Tx, image_id: str, project_id: str | None, values: dict[str, Any]) -> ImageRow:
    """Set columns of an image that the project may change."""
    owned(tx, image_id, project_id)
    tx.execute(update(images).where(images.c.id == image_id).values(**values, updated_at_us=tx.now_us))
    return get(tx, image_id, None)


def check_removable(tx: Tx, image_id: str, project_id: str | None) -> bool:
    """Whether a server uses it, and its data must stay for hosts."""
    if owned(tx, image_id, project_id)["protected"]:
        raise Forbidden(f"Image {image_id} is protected and cannot be deleted.")
    return tx.execute(_USED.where(instances.c.image_id == image_id).limit(1)).first() is not None


def remove(tx: Tx, image_id: str, project_id: str | None, *, keep_data: bool = False) -> bool:
    """It is gone for everyone now. What is kept of the row is that its id was in use, and with `keep_data` what hosts
    need to fetch its data; an id that never had data is free again. Whether the row is kept."""
    row = owned(tx, image_id, project_id)
    tx.execute(delete(image_members).where(image_members.c.image_id == image_id))
    if row["generation"] == 0:
        tx.execute(delete(images).where(images.c.id == image_id))
        return False
    gone: dict[str, Any] = {"status": DELETED, "properties": {}, "tags": [], "name": None}
    gone |= {"data_kept": True} if keep_data and row["status"] in WITH_DATA else {"size_bytes": None}
    tx.execute(update(images).where(images.c.id == image_id).values(**gone, updated_at_us=tx.now_us))
    return True


def forget_deleted(tx: Tx, before_us: int, most: int) -> int:
    """Rows of images that were deleted before that and that no server was made of, `most` at once; how many."""
    used = select(instances.c.image_id).where(instances.c.image_id.is_not(None))
    old = select(images.c.id).where(
        images.c.status == DELETED,
        images.c.updated_at_us < before_us,
        images.c.id.not_in(used),
        images.c.data_kept.is_(False),
    )
    return tx.execute(delete(images).where(images.c.id.in_(old.limit(most)))).rowcount


def unused(tx: Tx, most: int) -> list[str]:
    """Deleted images whose data no server needs any more."""
    kept = select(images.c.id).where(images.c.data_kept, images.c.id.not_in(_USED))
    return list(tx.execute(kept.order_by(images.c.id).limit(most)).scalars())


def forget_data(tx: Tx, image_id: str) -> None:
    """Its file is gone."""
    gone = update(images).where(images.c.id == image_id, images.c.status == DELETED)
    tx.execute(gone.values(data_kept=False, size_bytes=None))


def set_active(tx: Tx, image_id: str, *, active: bool) -> None:
    """active <-> deactivated; nothing to do when it is that already."""
    row = get(tx, image_id, None)
    if row["status"] not in WITH_DATA:
        raise Forbidden(
            f"Image {image_id} is {row['status']}: only one that has its data can be deactivated or reactivated."
        )
    status = ACTIVE if active else DEACTIVATED
    if row["status"] != status:
        tx.execute(update(images).where(images.c.id == image_id).values(status=status, updated_at_us=tx.now_us))


def set_whole(tx: Tx, image_id: str) -> None:
    """queued -> active, of one that has no data: its properties say all that it is. Raises NotFound."""
    if get(tx, image_id, None)["status"] == QUEUED:
        whole = {"status": ACTIVE, "size_bytes": 0, "virtual_size_bytes": 0, "updated_at_us": tx.now_us}
        tx.execute(update(images).where(images.c.id == image_id).values(whole))


# -- upload -----------------------------------------------------------------------------------------------------------
def claim_upload(tx: Tx, image_id: str, project_id: str | None, declared_bytes: int = 0) -> ImageRow:
    """queued -> saving: from here one upload owns the image, known by the row's generation. What it has declared
    counts as used at once."""
    row = owned(tx, image_id, project_id)
    if row["status"] != QUEUED:
        why = "another upload of it is under way" if row["status"] == SAVING else "it has its data already"
        raise Conflict(f"Image {image_id} takes no data: {why}.")
    tx.execute(
        update(images)
        .where(images.c.id == image_id)
        .values(status=SAVING, generation=row["generation"] + 1, size_bytes=declared_bytes, updated_at_us=tx.now_us)
    )
    return get(tx, image_id, None)


def _claimed(image_id: str, generation: int) -> ColumnElement[bool]:
    return and_(images.c.id == image_id, images.c.status == SAVING, images.c.generation == generation)


def count_upload(tx: Tx, image_id: str, generation: int, size_bytes: int) -> bool:
    """So much of it has come. False when this upload does not own the image any more."""
    counted = {"size_bytes": size_bytes, "updated_at_us": tx.now_us}
    return tx.execute(update(images).where(_claimed(image_id, generation)).values(counted)).rowcount == 1


def finish_upload(tx: Tx, image_id: str, generation: int, values: dict[str, Any]) -> bool:
    """saving -> active. False when this upload does not own the image any more: its file must go."""
    done = tx.execute(
        update(images).where(_claimed(image_id, generation)).values(**values, status=ACTIVE, updated_at_us=tx.now_us)
    )
    return done.rowcount == 1


def give_up_upload(tx: Tx, image_id: str, generation: int) -> bool:
    """saving -> queued, if this upload still owns the image. Whether the image has no data now: of one that is active
    the upload was finished after all, though the answer was lost."""
    back = {"status": QUEUED, "size_bytes": None, "updated_at_us": tx.now_us}
    tx.execute(update(images).where(_claimed(image_id, generation)).values(back))
    status = tx.execute(select(images.c.status).where(images.c.id == image_id)).scalar()
    return status not in WITH_DATA


def recover(tx: Tx, before_us: int) -> Collection[str]:
    """Uploads that began before that are not under way any more: saving -> queued. The ids of the images that have a
    file."""
    tx.execute(
        update(images)
        .where(images.c.status == SAVING, images.c.updated_at_us < before_us)
        .values(status=QUEUED, generation=images.c.generation + 1, size_bytes=None, updated_at_us=tx.now_us)
    )
    have = or_(images.c.status.in_(WITH_DATA), images.c.data_kept)
    return set(tx.execute(select(images.c.id).where(have)).scalars())
