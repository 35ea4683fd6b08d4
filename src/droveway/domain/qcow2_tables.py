"""Do the tables of a qcow2 file point into the file? A file that was cut short keeps a good header: what is missing
shows only in its tables, and would show to a guest as read errors.

`read(at, size)` gives the bytes of the file from `at` on, fewer at its end.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator

from droveway.domain.faults import BadRequest

ENTRIES_MAX = 1 << 24  # 1 TiB of data in clusters of 64 KiB; more is a file that could not be opened quickly either
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_OFFSET = 0x00FF_FFFF_FFFF_FE00  # bits 9 to 55
_REFCOUNT_OFFSET = 0xFFFF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_FEATURES_AT, _EXTENDED_L2 = 72, 1 << 4
_SECTOR = 512
_SNAPSHOT_BYTES = 40  # of each, at least
_CHUNK_BYTES = 1 << 20

Read = Callable[[int, int], bytes]


def check(head: bytes, size_bytes: int, read: Read) -> None:
    """Raises BadRequest where a table, or what one points to, is not within the file. `head` has been inspected
    already (domain/image_format.py)."""
    (
        _,
        version,
        _,
        _,
        cluster_bits,
        _,
        _,
        l1_size,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        snapshots,
        snapshots_offset,
    ) = _HEADER.unpack_from(head)
    cluster = 1 << cluster_bits
    features = struct.unpack_from(">Q", head, _FEATURES_AT)[0] if version == 3 else 0
    step = 2 if features & _EXTENDED_L2 else 1  # an entry and the bitmap of its subclusters
    if snapshots and not 0 < snapshots_offset <= size_bytes - snapshots * _SNAPSHOT_BYTES:
        raise BadRequest("The qcow2 file is cut short: its table of snapshots is not within the file.")
    seen = _Bounded()
    for entry in _entries(read, refcount_offset, refcount_clusters * cluster, "refcount table"):
        _must_lie(entry & _REFCOUNT_OFFSET, cluster, size_bytes, "a refcount block", aligned=cluster)
        seen.count()
    second = set()
    for entry in _entries(read, l1_offset, l1_size * 8, "first table"):
        at = entry & _OFFSET
        _must_lie(at, cluster, size_bytes, "a second table", aligned=cluster)
        seen.count()
        if at:
            second.add(at)
    for at in second:
        seen.count(cluster // 8)
        entries = _entries(read, at, cluster, "second table")
        for index, entry in enumerate(entries):
            if index % step == 0 and entry:
                _check_cluster(entry, cluster_bits, size_bytes)


class _Bounded:
    """Counts entries; a hostile table must not keep anybody busy."""

    def __init__(self) -> None:
        self._left = ENTRIES_MAX

    def count(self, entries: int = 1) -> None:
        self._left -= entries
        if self._left < 0:
            raise BadRequest(
                "The qcow2 file has too many clusters to be checked; give it larger ones (qemu-img convert -O qcow2)."
            )


def _entries(read: Read, at: int, length: int, table: str) -> Iterator[int]:
    """Big-endian numbers of 64 bits. A table may end behind the file only where the file's last cluster is short."""
    for start in range(0, length, _CHUNK_BYTES):
        wanted = min(_CHUNK_BYTES, length - start)
        data = read(at + start, wanted)
        if len(data) < wanted:
            raise BadRequest(f"The qcow2 file is cut short: its {table} is not within the file.")
        numbers = array("Q", data)
        if sys.byteorder == "little":
            numbers.byteswap()
        yield from numbers


def _check_cluster(entry: int, cluster_bits: int, size_bytes: int) -> None:
    cluster = 1 << cluster_bits
    if not entry & _COMPRESSED:
        _must_lie(entry & _OFFSET, cluster, size_bytes, "a cluster of data", aligned=cluster)
        return
    offset_bits = 62 - (cluster_bits - 8)
    at = entry & ((1 << offset_bits) - 1)
    sectors = ((entry & (_COMPRESSED - 1)) >> offset_bits) + 1
    end = (at // _SECTOR + sectors) * _SECTOR
    _must_lie(at, end - at, size_bytes, "a compressed cluster", slack=_SECTOR)


def _must_lie(at: int, length: int, size_bytes: int, what: str, *, aligned: int = 1, slack: int = 0) -> None:
    """0 points nowhere. The last cluster of a file may be half there: nothing was ever written to the rest."""
    if at == 0:
        return
    if at % aligned:
        raise BadRequest(f"The qcow2 file is damaged: {what} is said to be at {at}, where none can begin.")
    if at + length - size_bytes >= (slack or aligned):
        raise BadRequest(
            f"The qcow2 file is cut short: {what} at {at} is not within its {size_bytes} bytes. Fetch it again, and "
            "compare its checksum."
        )
