"""Answers that were made of the store alone, for the next who asks the same before anything else is written.

Clients look at a server again and again, and lists are refreshed; most of the time nothing was committed in between.
What was read before a commit is never given after it: the store counts its commits before it answers them, and an
answer is kept with the count from before its rows were read. Where others write to the same database nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from droveway.api.http.request import Request
from droveway.store.engine.transaction import Store, Tx

KEPT_BYTES = 8 << 20  # of all answers together, with what they are kept by
ENTRY_BYTES = 512  # of each, at least: a list of nothing is a few bytes, and every filter has one
Key = tuple[Hashable, ...]


class Answers:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[Key, bytes] = {}
        self._at = -1  # commits that there were when these were read
        self._bytes = 0

    async def of(self, request: Request, read: Callable[[Tx], bytes]) -> bytes:
        """The body for this request: `read` makes it of the store, and of what is in the path, the query, the version,
        the caller's project, and whether it is an administrator."""
        commits = self._store.commits
        if commits is None:
            return await self._store.read(read)
        if commits != self._at:
            self._kept.clear()
            self._at, self._bytes = commits, 0
        caller = request.caller
        key = (request.raw_path, request.raw_query, request.version, caller.is_admin, caller.project_id)
        known = self._kept.get(key)
        if known is not None:
            return known
        body = await self._store.read(read)
        size_bytes = ENTRY_BYTES + len(request.raw_path) + len(request.raw_query) + len(body)
        is_of_now = commits == self._at == self._store.commits
        if is_of_now and key not in self._kept and self._bytes + size_bytes <= KEPT_BYTES:
            self._kept[key] = body
            self._bytes += size_bytes
        return body
