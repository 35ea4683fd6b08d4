"""What a volume may be made of, and what it takes from there: size, type, zone, the metadata of an image."""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.api.http.validate import canonical, is_uuid
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.rows import ImageRow
from droveway.store.volume import snapshots, volumes

GIB = 1 << 30


class Source(msgspec.Struct, frozen=True):
    """`least_gb`: what it needs, with the sentence that refuses less."""

    size_gb: int | None = None
    type_id: str | None = None
    zone: str | None = None
    image_id: str | None = None
    image_metadata: dict[str, str] = {}
    bootable: bool = False
    least_gb: tuple[tuple[int, str], ...] = ()

    def must_fit(self, size_gb: int) -> None:
        for least_gb, sentence in self.least_gb:
            if size_gb < least_gb:
                raise BadRequest(f"Invalid input received: {sentence.format(size=size_gb, least=least_gb)}")


def of_snapshot(tx: Tx, snapshot_id: str, scope: str | None) -> Source:
    row = snapshots.get(tx, snapshot_id, scope)
    volume = volumes.get(tx, row["volume_id"])
    return Source(
        size_gb=row["size_gb"],
        type_id=volume["volume_type_id"],
        zone=volume["zone"],
        image_metadata=volume["image_metadata"],
        bootable=volume["bootable"],
    )


def of_volume(tx: Tx, volume_id: str, scope: str | None) -> Source:
    row = volumes.get(tx, volume_id, scope)
    return Source(
        size_gb=row["size_gb"],
        type_id=row["volume_type_id"],
        zone=row["zone"],
        image_metadata=row["image_metadata"],
        bootable=row["bootable"],
    )


def of_image(tx: Tx, given: str, scope: str | None) -> Source:
    """By its id, the end of a URL, or its name. Raises BadRequest, Conflict."""
    row = _image(tx, given.rpartition("/")[2], scope) or _image_named(tx, given, scope)
    if row["status"] != images.ACTIVE:
        raise BadRequest(f"Invalid input received: Image {row['id']} is not active.")
    return Source(
        type_id=row["properties"].get("cinder_img_volume_type"),
        image_id=row["id"],
        image_metadata=metadata_of(row),
        bootable=True,
        least_gb=(
            (_gib(row["size_bytes"]), "Size of specified image {least}GB is larger than volume size {size}GB."),
            (
                _gib(row["virtual_size_bytes"]),
                "Image virtual size is {least}GB and doesn't fit in a volume of size {size}GB.",
            ),
            (row["min_disk_gb"], "Volume size {size}GB cannot be smaller than the image minDisk size {least}GB."),
        ),
    )


def _gib(size_bytes: int | None) -> int:
    return -(-(size_bytes or 0) // GIB)


def _image(tx: Tx, given: str, scope: str | None) -> ImageRow | None:
    if not is_uuid(given):
        return None
    try:
        return images.get(tx, canonical(given), scope)
    except NotFound:
        return None


def _image_named(tx: Tx, name: str, scope: str | None) -> ImageRow:
    found = images.find(tx, images.Filters(scope, exact={"name": name}, limit=2))
    if len(found) > 1:
        raise Conflict(f"Multiple matches found for '{name[:64]}', use an ID to be more specific.")
    if not found:
        raise BadRequest(f"Invalid image identifier or unable to access requested image: {name[:64]}.")
    return found[0]


def metadata_of(row: ImageRow) -> dict[str, str]:
    """What a volume keeps of its image, as `volume_image_metadata` shows it."""
    kept: dict[str, Any] = {
        **row["properties"],
        "image_id": row["id"],
        "image_name": row["name"] or "",
        "checksum": row["checksum"] or "",
        "container_format": row["container_format"] or "",
        "disk_format": row["disk_format"] or "",
        "min_disk": row["min_disk_gb"],
        "min_ram": row["min_ram_mb"],
        "size": row["size_bytes"] or 0,
    }
    return {name: str(value) for name, value in kept.items()}
