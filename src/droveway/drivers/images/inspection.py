"""What a file of an image's data describes, seen before any other program opens it."""

from __future__ import annotations

import os
from pathlib import Path

from droveway.domain import qcow2_tables
from droveway.domain.faults import BadRequest
from droveway.domain.image_format import HEAD_BYTES, inspect
from droveway.domain.model import ImageRef
from droveway.ports.images import ImageRefused

MAX_VIRTUAL_BYTES = 1 << 46  # what no image of a store of this kind reaches; a header that says more is damaged


def virtual_size(image: ImageRef, path: Path, *, is_whole: bool = False) -> int:
    """Blocks. Of the disk that it describes; `is_whole`: its tables are looked at too. Raises ImageRefused, OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        size_bytes = os.fstat(file.fileno()).st_size
        try:
            found = inspect(image.disk_format, head, size_bytes, MAX_VIRTUAL_BYTES)
            if is_whole and image.disk_format == "qcow2":
                qcow2_tables.check(head, size_bytes, lambda at, size: os.pread(file.fileno(), size, at))
        except BadRequest as fault:
            raise ImageRefused(f"Image {image.id} is refused: {fault.reason}") from None
    return found.virtual_size_bytes
