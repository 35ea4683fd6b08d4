"""What lists tell of each server, kept by all that it is made of: of a thousand of which one has changed, one is made
anew.

What stands in the database of a server, and beside it in the view, is read every time; only what would come out the
same is not made again. So nothing here can be stale, also where other processes write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

KEPT_BYTES = 8 << 20  # of all bodies together: some 4,000 servers
ENTRY_BYTES = 160  # of each beside its body
DIGEST_BYTES = 16  # nobody chooses rows so that two of 2^64 are alike


class ServerBodies:
    def __init__(self) -> None:
        self._kept: dict[bytes, bytes] = {}
        self._bytes = 0
        self._encode = msgspec.msgpack.Encoder().encode

    def of(self, made_of: Any, make: Callable[[], bytes]) -> bytes:
        """The body that `make` makes of these values. Readers in several threads ask at once: at worst one is made
        twice."""
        digest = hashlib.blake2b(self._encode(made_of), digest_size=DIGEST_BYTES).digest()
        known = self._kept.get(digest)
        if known is not None:
            return known
        body = make()
        if self._bytes > KEPT_BYTES:  # what is asked for still is soon here again
            self._kept, self._bytes = {}, 0
        self._kept[digest] = body
        self._bytes += ENTRY_BYTES + len(body)
        return body
