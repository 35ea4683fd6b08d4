"""Queries of images, and the three moves of an upload: claim, finish, give up.

`generation` rises with every claim, so an upload that was given up, or whose image was deleted and made again, cannot
finish. The bytes are a file named by the image's id; only an `active` image has one. A deleted image keeps its row, so
that its id is never given to another one: whoever still holds the id cannot meet other bytes under it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping, and_, bindparam, insert, or_, select, update

from droveway.domain.faults import Conflict, Forbidden, NotFound
from droveway.domain.model import ImageRef
from droveway.store import order
from droveway.store.schema import images
from droveway.store.transaction import Tx

QUEUED, SAVING, ACTIVE, DELETED = "queued", "saving", "active", "deleted"
_PROPERTIES = select(images.c.properties).where(images.c.id == bindparam("of"))
_ACTIVE = select(images).where(images.c.id == bindparam("of"), images.c.status == ACTIVE)


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
    tags: list[str] = []
    properties: dict[str, str] = {}
    size_min: int | None = None
    size_max: int | None = None
    changed_since_us: int | None = None
    sort: list[tuple[str, bool]] = []  # (column, descending), each column once
    marker: str | None = None
    limit: int = 100


def path_of(directory: str | Path, image_id: str) -> Path:
    return Path(directory) / image_id


def ref(tx: Tx, image_id: str, directory: str | Path) -> tuple[ImageRef, dict[str, str]]:
    """What a host needs to fetch the bytes and to know that they are the right ones; and the image's properties.
    Raises NotFound."""
    row = tx.execute(_ACTIVE, {"of": image_id}).mappings().first()
    if row is None:
        raise NotFound(f"image {image_id} is no longer there; choose another one")
    found = ImageRef(
        id=row["id"],
        disk_format=row["disk_format"],
        size_bytes=row["size_bytes"],
        sha512=row["sha512"],
        path=str(path_of(directory, row["id"])),
    )
    return found, row["properties"]


def properties(tx: Tx, image_id: str) -> dict[str, str]:
    """What its owner says of it, for whoever places and builds guests of it; a deleted image still tells."""
    row = tx.execute(_PROPERTIES, {"of": image_id}).first()
    return {} if row is None else row.properties


def create(tx: Tx, new: NewImage) -> RowMapping:
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


def _visible(project_id: str) -> ColumnElement[bool]:
    return or_(images.c.project_id == project_id, images.c.visibility.in_(("public", "community")))


def get(tx: Tx, image_id: str, project_id: str | None) -> RowMapping:
    """An image that the project may see (None: any)."""
    conditions: list[ColumnElement[bool]] = [images.c.id == image_id, images.c.status != DELETED]
    if project_id is not None:
        conditions.append(_visible(project_id))
    row = tx.execute(select(images).where(*conditions)).mappings().first()
    if row is None:
        raise NotFound(f"No image found with ID {image_id}.")
    return row


def owned(tx: Tx, image_id: str, project_id: str | None) -> RowMapping:
    """An image that the project may change (None: any)."""
    row = get(tx, image_id, project_id)
    if project_id is not None and row["project_id"] != project_id:
        raise Forbidden(f"Image {image_id} belongs to another project.")
    return row


def find(tx: Tx, filters: Filters) -> Sequence[RowMapping]:
    """Images in order; those of the community only when asked for by visibility."""
    conditions: list[ColumnElement[bool]] = [images.c.status != DELETED]
    conditions += [images.c[name] == value for name, value in filters.exact.items()]
    conditions += [images.c[name].in_(values) for name, values in filters.any_of.items()]
    if filters.project_id is not None:
        conditions.append(_visible(filters.project_id))
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
        last = get(tx, filters.marker, filters.project_id)
        conditions.append(order.behind(keys, [last[name] for name, _ in sort]))
    query = select(images).where(*conditions).order_by(*order.clauses(keys))
    if not filters.tags and not filters.properties:
        return tx.execute(query.limit(filters.limit)).mappings().all()
    rows = tx.execute(query).mappings()
    return [row for row in rows if _matches(row, filters)][: filters.limit]


def _matches(row: RowMapping, filters: Filters) -> bool:
    return all(tag in row["tags"] for tag in filters.tags) and all(
        row["properties"].get(name) == value for name, value in filters.properties.items()
    )


def change(tx: Tx, image_id: str, project_id: str | None, values: dict[str, Any]) -> RowMapping:
    """Set columns of an image that the project may change."""
    owned(tx, image_id, project_id)
    tx.execute(update(images).where(images.c.id == image_id).values(**values, updated_at_us=tx.now_us))
    return get(tx, image_id, None)


def remove(tx: Tx, image_id: str, project_id: str | None) -> None:
    """It is gone for everyone now; its file is the caller's to delete once this is committed."""
    if owned(tx, image_id, project_id)["protected"]:
        raise Forbidden(f"Image {image_id} is protected and cannot be deleted.")
    tx.execute(update(images).where(images.c.id == image_id).values(status=DELETED, updated_at_us=tx.now_us))


# -- upload -----------------------------------------------------------------------------------------------------------
def claim_upload(tx: Tx, image_id: str, project_id: str | None) -> RowMapping:
    """queued -> saving: from here one upload owns the image, known by the row's generation."""
    row = owned(tx, image_id, project_id)
    if row["status"] != QUEUED:
        why = "another upload of it is under way" if row["status"] == SAVING else "it has its data already"
        raise Conflict(f"Image {image_id} takes no data: {why}.")
    tx.execute(
        update(images)
        .where(images.c.id == image_id)
        .values(status=SAVING, generation=row["generation"] + 1, updated_at_us=tx.now_us)
    )
    return get(tx, image_id, None)


def _claimed(image_id: str, generation: int) -> ColumnElement[bool]:
    return and_(images.c.id == image_id, images.c.status == SAVING, images.c.generation == generation)


def finish_upload(tx: Tx, image_id: str, generation: int, values: dict[str, Any]) -> bool:
    """saving -> active. False when this upload does not own the image any more: its file must go."""
    done = tx.execute(
        update(images).where(_claimed(image_id, generation)).values(**values, status=ACTIVE, updated_at_us=tx.now_us)
    )
    return done.rowcount == 1


def give_up_upload(tx: Tx, image_id: str, generation: int) -> None:
    """saving -> queued, if this upload still owns the image."""
    tx.execute(update(images).where(_claimed(image_id, generation)).values(status=QUEUED, updated_at_us=tx.now_us))


def recover(tx: Tx, before_us: int) -> Collection[str]:
    """Nobody is uploading any more what began before that: saving -> queued. The ids of the images that have a file."""
    tx.execute(
        update(images)
        .where(images.c.status == SAVING, images.c.updated_at_us < before_us)
        .values(status=QUEUED, generation=images.c.generation + 1, updated_at_us=tx.now_us)
    )
    return set(tx.execute(select(images.c.id).where(images.c.status == ACTIVE)).scalars())
