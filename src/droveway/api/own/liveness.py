"""Why a service is up or down, and the stream of what changes about services.

GET /droveway/v1/services/{host}/why?binary=B   {"services": [{"verdict": {...}, "evidence": [...], "advice": [...]}]}
GET /droveway/v1/services/events                Server-Sent Events; each `id` is good as Last-Event-ID
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from droveway.api.http.request import Request, Response
from droveway.api.http.streams import STREAMS_MAX
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Busy, NotFound
from droveway.store.fleet import services
from droveway.store.work import events

POLL_S = 2.0  # another control may have written: no nudge tells of that
PAUSE_S = 0.1  # between two reads: in a storm one read takes many events
COMMENT_S = 15.0  # keeps the connection alive, and looks whether the token still is
RETRY_MS = 1000
TAKE_MAX_S = 60.0  # a client that takes nothing for so long keeps a place from others


async def why(api: Api, request: Request) -> Response:
    """Of the services of one binary, or of everything on that host; each tells of itself alone."""
    host, wanted = request.params["host"], request.known_query(("binary",)).get("binary")
    there = await api.store.read(services.of_host, host)
    chosen = [one for one in there if wanted in (None, "", one[1])]
    if not chosen:
        binaries = ", ".join(dict.fromkeys(binary for _, binary in there))
        raise NotFound(f"There is no {str(wanted)[:64]} on {host}; there is {binaries}.")
    return Response(200, {"services": [await api.control.why(*one) for one in chosen]})


# -- the stream -------------------------------------------------------------------------------------------------------
async def stream(api: Api, request: Request) -> Response:
    """What changes from now on, or since Last-Event-ID."""
    if api.streams.are_full:
        raise Busy(f"{STREAMS_MAX} event streams are open, which is the bound; close one, or ask for the list instead.")
    given = request.header(b"last-event-id") or ""
    if given and (not given.isascii() or not given.isdigit() or len(given) > 18):
        raise BadRequest("Last-Event-ID must be the id of an event, which is a number.")
    listener = _Listener(api, request, int(given) if given else await api.store.read(events.last_id))
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    return Response(200, headers=headers, stream=listener.pieces(), on_gone=listener.leave, piece_max_s=TAKE_MAX_S)


class _Listener:
    """One client. Nothing is queued for it: it has a cursor, and more is read once it has taken what it was sent."""

    def __init__(self, api: Api, request: Request, cursor: int) -> None:
        self._api, self._request, self._cursor = api, request, cursor
        self._woken = asyncio.Event()
        self._is_gone = False

    def leave(self) -> None:
        self._is_gone = True
        self._woken.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        streams, clock = self._api.streams, self._api.clock
        if streams.are_full:  # others came at the very same moment
            return
        streams.listening.add(self._woken)
        try:
            yield f"retry: {RETRY_MS}\nid: {self._cursor}\n\n".encode()
            checked_s, rights = clock.monotonic_s(), self._api.revocations
            while not self._is_over:
                self._woken.clear()
                if rights != self._api.revocations:  # a right was revoked: what comes now may not be sent any more
                    rights = self._api.revocations
                    if not await self._may_listen():
                        return
                piece = await self._news()
                if clock.monotonic_s() - checked_s >= COMMENT_S:
                    checked_s = clock.monotonic_s()
                    if not await self._may_listen():
                        return
                    piece += b": still here\n\n"
                if piece:
                    yield piece
                await self._rest(PAUSE_S if piece else POLL_S)
        finally:
            streams.listening.discard(self._woken)

    @property
    def _is_over(self) -> bool:
        return self._is_gone or self._api.streams.is_ending

    async def _may_listen(self) -> bool:
        """While its token is good, and still an administrator's."""
        try:
            caller = await self._api.find_caller(self._request.headers[b"x-auth-token"].decode("latin-1"))
            return caller is not None and caller.is_admin
        except Busy:
            return True

    async def _news(self) -> bytes:
        """What was recorded since, and where to go on."""
        try:
            piece, self._cursor = await self._api.streams.piece(self._api.store, self._cursor)
        except Busy:  # the database stalls: the next look will tell
            return b""
        return piece

    async def _rest(self, most_s: float) -> None:
        """A wake-up ends a long rest, not the short one, which gathers what comes in a storm."""
        if self._is_over:
            return
        if most_s <= PAUSE_S:
            await asyncio.sleep(most_s)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    await self._woken.wait()
