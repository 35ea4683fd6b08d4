"""What a backup holds: which chunk lies where in the volume, each named by the SHA-256 of its bytes.

A manifest names every chunk of its backup, also of those that another backup has stored before: what is restored hangs
on one manifest and on no other. A chunk that reads as zeros is in no manifest and nowhere else.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Annotated

import msgspec

from droveway.domain.faults import Fault
from droveway.domain.network_plan import Id
from droveway.domain.wire import Count, ShortText

CHUNK_BYTES = 1 << 20
VERSION = 1
_MAGIC = b"droveway backup 1\n"
_NUMBER_BYTES, _DIGEST_BYTES, _ENTRY_BYTES = 4, 32, 36
_PACKED, _PLAIN = b"z", b"p"


class Damaged(Fault):
    """These bytes are not those that were stored."""


class ManifestHead(msgspec.Struct, frozen=True):
    """`snapshot`: of which it was made; the next backup asks what has changed since then."""

    backup_id: Id
    volume_id: Id
    size_bytes: Count
    parent_id: Id | None = None
    snapshot: ShortText = ""
    chunk_bytes: Annotated[int, msgspec.Meta(ge=4096, le=1 << 30)] = CHUNK_BYTES
    version: int = VERSION


class Manifest(msgspec.Struct, frozen=True):
    head: ManifestHead
    chunks: dict[int, bytes]  # the digest of each by its number


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def chunk_name(digest: bytes) -> str:
    return f"chunks/{digest.hex()}"


def manifest_name(backup_id: str) -> str:
    return f"backups/{backup_id}"


def pack(data: bytes) -> bytes:
    """As it is stored: compressed where that helps."""
    packed = zlib.compress(data, 1)
    return _PACKED + packed if len(packed) < len(data) else _PLAIN + data


def unpack(stored: bytes, digest: bytes, most_bytes: int) -> bytes:
    """Raises Damaged."""
    try:
        if stored[:1] == _PACKED:
            inflate = zlib.decompressobj()
            data = inflate.decompress(stored[1:], most_bytes)
        else:
            data = stored[1:]
    except zlib.error:
        raise Damaged("it cannot be unpacked") from None
    if digest_of(data) != digest:
        raise Damaged("its bytes are others than were stored")
    return data


def encode(manifest: Manifest) -> bytes:
    """With its own checksum in front."""
    numbers = sorted(manifest.chunks)
    entries = b"".join(number.to_bytes(_NUMBER_BYTES, "big") + manifest.chunks[number] for number in numbers)
    head = msgspec.json.encode(manifest.head)
    body = zlib.compress(len(head).to_bytes(4, "big") + head + entries, 1)
    return _MAGIC + digest_of(body) + body


def decode(stored: bytes) -> Manifest:
    """Raises Damaged."""
    body = stored[len(_MAGIC) + _DIGEST_BYTES :]
    if not stored.startswith(_MAGIC) or digest_of(body) != stored[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES]:
        raise Damaged("it is no record of a backup, or its bytes are others than were stored")
    plain = zlib.decompress(body)
    length = int.from_bytes(plain[:4], "big")
    head = msgspec.json.decode(plain[4 : 4 + length], type=ManifestHead)
    if head.version != VERSION:
        raise Damaged(f"it is of version {head.version}, and this program knows {VERSION}")
    entries = plain[4 + length :]
    return Manifest(
        head,
        {
            int.from_bytes(entries[at : at + _NUMBER_BYTES], "big"): entries[at + _NUMBER_BYTES : at + _ENTRY_BYTES]
            for at in range(0, len(entries), _ENTRY_BYTES)
        },
    )
