"""Is this file what it says it is? Decided from its first bytes, before any other program opens it.

A qcow2 file can name other files of the host that opens it (a backing file, an external data file), and a raw file
that begins like a qcow2 one may be opened as such by something that guesses. Both are refused here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from droveway.domain.faults import BadRequest

HEAD_BYTES = 64 * 1024  # enough for the qcow2 header with its extensions, and for every magic number below
DISK_FORMATS = ("qcow2", "raw")

_QCOW2_MAGIC = b"QFI\xfb"
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_DIRTY, _CORRUPT, _EXTERNAL_DATA = 1, 2, 4
_KNOWN_INCOMPATIBLE = 0x1F  # dirty, corrupt, external data, compression type, extended L2
_EXTENSION_END, _EXTENSION_DATA_FILE = 0, 0x44415441

# (offset, bytes, what it is): formats that a raw disk must not be mistaken for
_MAGICS = (
    (0, _QCOW2_MAGIC, "qcow2"),
    (0, b"QED\x00", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"PK\x03\x04", "zip"),
)


class ImageInspection(NamedTuple):
    virtual_size_bytes: int


def inspect(disk_format: str, head: bytes, size_bytes: int, max_virtual_bytes: int) -> ImageInspection:
    """What the file holds. `head` is its first HEAD_BYTES (or all of it). Raises BadRequest with the reason when it is
    not `disk_format`, or is one that no host may open."""
    if disk_format == "qcow2":
        found = _qcow2(head, size_bytes)
    elif disk_format == "raw":
        found = _raw(head, size_bytes)
    else:
        raise BadRequest(f"The disk format {disk_format} is not accepted; accepted are {', '.join(DISK_FORMATS)}.")
    if found.virtual_size_bytes > max_virtual_bytes:
        raise BadRequest(
            f"The image describes a disk of {found.virtual_size_bytes} bytes; at most {max_virtual_bytes} are accepted."
        )
    return found


def guess(head: bytes) -> str | None:
    """The format that the first bytes speak of, if any."""
    for offset, magic, name in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


def backing_file(head: bytes) -> str:
    """The file that a qcow2 file names for what it does not hold itself; empty when it names none, or is no qcow2.
    Raises ValueError when the name lies beyond `head`."""
    if head[:4] != _QCOW2_MAGIC:
        return ""
    if len(head) < _V2.size:
        raise ValueError("the header is cut short")
    _, _, offset, length, *_ = _V2.unpack_from(head)
    if offset == 0:
        return ""
    if offset + length > len(head):
        raise ValueError("the name of the backing file is not within the head")
    return head[offset : offset + length].decode("utf-8", "surrogateescape")


def _raw(head: bytes, size_bytes: int) -> ImageInspection:
    if size_bytes == 0:
        raise BadRequest("The file is empty.")
    other = guess(head)
    if other is not None:
        raise BadRequest(f"The image is declared raw, but the file is {other}.")
    return ImageInspection(size_bytes)


def _qcow2(head: bytes, size_bytes: int) -> ImageInspection:
    if head[:4] != _QCOW2_MAGIC:
        raise BadRequest(f"The image is declared qcow2, but the file is {guess(head) or 'not one'}.")
    if len(head) < _V2.size:
        raise BadRequest("The qcow2 file is cut short within its header.")
    (
        _,
        version,
        backing_offset,
        _,
        cluster_bits,
        virtual,
        crypt,
        l1_size,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        _,
        _,
    ) = _V2.unpack_from(head)
    if version not in (2, 3):
        raise BadRequest(f"The file is qcow2 version {version}; accepted are versions 2 and 3.")
    if backing_offset != 0:
        raise BadRequest("The qcow2 file carries a backing file; flatten it first (qemu-img convert).")
    if crypt != 0:
        raise BadRequest("The qcow2 file is encrypted; such images cannot be booted here.")
    if not 9 <= cluster_bits <= 21:
        raise BadRequest(f"The qcow2 header is damaged: clusters of 2^{cluster_bits} bytes do not exist.")
    if virtual == 0:
        raise BadRequest("The qcow2 file describes a disk of no bytes.")
    extensions_at = _V2.size
    if version == 3:
        extensions_at = _version_3(head)
    _extensions(head, extensions_at)
    cluster = 1 << cluster_bits
    needed_l1 = -(-virtual // (cluster * (cluster // 8)))
    if l1_size < needed_l1:
        raise BadRequest("The qcow2 header is damaged: its first table is too small for the disk it describes.")
    for name, at, length in (
        ("first", l1_offset, l1_size * 8),
        ("refcount", refcount_offset, refcount_clusters * cluster),
    ):
        if at == 0 or at % cluster or at + length > size_bytes + cluster:
            raise BadRequest(f"The qcow2 file is damaged or cut short: its {name} table is not within the file.")
    return ImageInspection(virtual)


def _version_3(head: bytes) -> int:
    """Checks what version 3 added; where the header extensions begin."""
    if len(head) < _V2.size + _V3.size:
        raise BadRequest("The qcow2 file is cut short within its header.")
    incompatible, _, _, _, header_bytes = _V3.unpack_from(head, _V2.size)
    if incompatible & _EXTERNAL_DATA:
        raise BadRequest("The qcow2 file keeps its data in an external file; convert it first (qemu-img convert).")
    if incompatible & _CORRUPT:
        raise BadRequest("The qcow2 file is marked corrupt; repair it first (qemu-img check -r all).")
    if incompatible & ~_KNOWN_INCOMPATIBLE:
        raise BadRequest("The qcow2 file uses features that are not known here.")
    if header_bytes < _V2.size + _V3.size or header_bytes % 8 or header_bytes > HEAD_BYTES:
        raise BadRequest(f"The qcow2 header is damaged: it says that it is {header_bytes} bytes long.")
    return int(header_bytes)


def _extensions(head: bytes, at: int) -> None:
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == _EXTENSION_END:
            return
        if kind == _EXTENSION_DATA_FILE:
            raise BadRequest("The qcow2 file keeps its data in an external file; convert it first (qemu-img convert).")
        at += 8 + (length + 7) // 8 * 8
