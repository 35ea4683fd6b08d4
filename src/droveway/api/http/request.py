"""One request and its reply, as thin as ASGI allows: bounded bodies, decoded once, no framework objects."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
)
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from droveway.domain.faults import BadRequest, Fault, Forbidden, TooLarge
from droveway.store.identity.tokens import Caller

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = b"application/json"
DRAIN_MAX_BYTES = 64 * 1024 * 1024
DRAIN_MAX_S = 30.0
QUERY_MAX_PAIRS = 4096
DEPTH_MAX = 32  # of JSON; no request of any service here nests half as deeply
OF_ONE_VALUE = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-range",
        b"content-type",
        b"expect",
        b"host",
        b"last-event-id",
        b"range",
        b"x-auth-token",
        b"x-openstack-nova-api-version",
        b"x-subject-token",
    }
)
WITHOUT_BODY = frozenset({"GET", "HEAD"})  # as a rule: then nothing is waited for before the answer is sent
_MISSING = object()


class Disconnected(Fault):
    """The client went away in the middle of its request: no answer can be sent."""


class Request:
    """What a handler sees. `version` is the minor of the microversion, in the series of the service that is asked, and
    `refuses_unknown` whether its queries hold nothing but what is known there; `caller` is set before the handler."""

    __slots__ = (
        "_query",
        "_receive",
        "address",
        "body_ended",
        "caller",
        "certificate",
        "headers",
        "id",
        "method",
        "params",
        "path",
        "raw_path",
        "raw_query",
        "refuses_unknown",
        "repeated",
        "version",
    )

    caller: Caller
    params: Mapping[str, str]

    def __init__(self, scope: Scope, receive: Receive, request_id: str) -> None:
        self.id = request_id
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        raw: bytes | None = scope.get("raw_path")
        self.raw_path = quote(self.path) if raw is None else raw.decode("latin-1")  # before %XX was decoded
        self.raw_query: bytes = scope.get("query_string", b"")
        self.headers, self.repeated = _combined(scope["headers"])
        self.address: str = (scope.get("client") or ("",))[0]  # from where it came: the client, or a proxy before us
        self.version = 1
        self.refuses_unknown = False
        # What ssl tells of the client's certificate, which is of our CA; None on the public listener.
        self.certificate: Mapping[str, Any] | None = scope.get("state", {}).get("certificate")
        self.body_ended = self.method in WITHOUT_BODY and not has_body(self.headers)
        self._receive = receive
        self._query: list[tuple[str, str]] | None = None

    def refuse_repeated(self) -> None:
        """Two values where one is meant: whichever was taken, a proxy before us might take the other. Raises
        BadRequest."""
        if self.repeated:
            name = self.repeated.decode("latin-1").title()
            raise BadRequest(f"The header {name} stands there more than once, and has one value.")

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    # -- query ------------------------------------------------------------------------------------------------------
    @property
    def query(self) -> list[tuple[str, str]]:
        if self._query is None:
            try:
                self._query = parse_qsl(
                    self.raw_query.decode("ascii"),
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=QUERY_MAX_PAIRS,
                )
            except (UnicodeDecodeError, ValueError):
                raise BadRequest("The query string is not valid: it must be percent-encoded UTF-8.") from None
            if any("\0" in name or "\0" in value for name, value in self._query):
                raise BadRequest("The query string contains a nul character.")
        return self._query

    def known_query(self, known: Collection[str], *, refuses_unknown: bool = False) -> dict[str, str]:
        """The query as a mapping; the last of several values counts. Unknown keys are left out, or refused."""
        found = {}
        refuses_unknown |= self.refuses_unknown
        for name, value in self.query:
            if name in known:
                found[name] = value
            elif refuses_unknown:
                raise BadRequest(f"Additional properties are not allowed ('{name[:64]}' was unexpected).")
        return found

    # -- the caller -------------------------------------------------------------------------------------------------
    @property
    def scope(self) -> str | None:
        """The project whose resources the caller may see or touch by id; None for an administrator, who may all."""
        return None if self.caller.is_admin else self.caller.project_id

    def project_of(self, project_id: str, what: str, *, is_many: bool = True) -> str:
        """A project that the request names. Raises Forbidden when it is not the caller's, who is no administrator."""
        if project_id != self.caller.project_id and not self.caller.is_admin:
            raise Forbidden(f"{what} of another project {'need' if is_many else 'needs'} the role admin.")
        return project_id

    # -- body -------------------------------------------------------------------------------------------------------
    async def stream(self) -> AsyncIterator[bytes]:
        """The body in the pieces in which it arrives. Raises Disconnected when it does not arrive whole."""
        while not self.body_ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected("The client went away before its request had arrived whole.")
            self.body_ended = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            if piece:
                yield piece

    async def drain(self) -> None:
        """Read the rest of the body and forget it: a client that is still sending does not read our answer."""
        if b"expect" in self.headers:
            return  # the client has not begun to send, and will not
        seen = 0
        try:
            async with asyncio.timeout(DRAIN_MAX_S):
                async for piece in self.stream():
                    seen += len(piece)
                    if seen > DRAIN_MAX_BYTES:
                        return
        except (Disconnected, TimeoutError):
            return

    async def gone(self) -> None:
        """Returns when the client has gone away. Only once its body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def declared_bytes(self) -> int | None:
        value = self.header(b"content-length")
        if value is None:
            return None
        if not value.isascii() or not value.isdigit():
            raise BadRequest("The Content-Length header is not a number.")
        return int(value)

    async def json(self, max_bytes: int) -> Any:
        """The body as JSON values. Raises TooLarge, BadRequest."""
        declared = self.declared_bytes()
        too_large = f"The body is larger than {max_bytes} bytes, which is the most that is accepted."
        if declared is not None and declared > max_bytes:
            raise TooLarge(too_large)
        pieces: list[bytes] = []
        size = 0
        async for piece in self.stream():
            size += len(piece)
            if size > max_bytes:
                raise TooLarge(too_large)
            pieces.append(piece)
        return decode(b"".join(pieces))


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    """As HTTP/1.1 has it: without one of these two headers a request has none."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _combined(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bytes]:
    """Each header by its name: several of one name are one list, as HTTP has it. And the name of one that is no list
    and stands there more than once; empty when there is none."""
    found, repeated = dict[bytes, bytes](), b""
    for name, value in headers:
        if name not in found:
            found[name] = value
        else:
            found[name] += b", " + value
            repeated = repeated or (name if name in OF_ONE_VALUE else b"")
    return found, repeated


def decode(body: bytes) -> Any:
    if not body:
        raise BadRequest("The body is empty; JSON is expected.")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth(body, value)
    if b"\\u0000" in body and _has_nul(value):
        raise BadRequest("The body contains a nul character (\\u0000), which no text here may hold.")
    return value


def _too_deep() -> BadRequest:
    return BadRequest(f"The body is not acceptable JSON: it is nested too deeply, beyond {DEPTH_MAX} levels.")


def _check_depth(body: bytes, value: Any) -> None:
    """So that code that walks through it, here or where it is stored, is safe from it. Raises BadRequest."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise _too_deep()


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in name or _has_nul(item) for name, item in value.items())
    return isinstance(value, list) and any(_has_nul(item) for item in value)


def encode(value: Any) -> bytes:
    """The body of a long listing, made where its rows were read: rendering thousands of rows would stall the loop."""
    return msgspec.json.encode(value)


def encode_each(values: Iterable[Any]) -> list[msgspec.Raw]:
    """The items of a long listing, each by itself, to be put into what is encoded: at once they would hold the
    interpreter for as long as all of them take, and so would a garbage collection among them."""
    return [msgspec.Raw(msgspec.json.encode(value)) for value in values]


class Response:
    """A reply. `value` is its JSON body (or the bytes of one, from `encode`); `stream` yields a body after the headers
    (`on_gone` is called when the client leaves before its end; one that does not take a piece within `piece_max_s` is
    given up); otherwise `body` is all of it."""

    __slots__ = ("body", "headers", "on_gone", "piece_max_s", "status", "stream")

    def __init__(
        self,
        status: int = 200,
        value: Any = _MISSING,
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        body: bytes = b"",
        stream: AsyncIterator[bytes] | None = None,
        on_gone: Callable[[], None] | None = None,
        piece_max_s: float | None = None,
    ) -> None:
        self.status = status
        self.headers = headers if headers is not None else []
        self.stream = stream
        self.on_gone = on_gone
        self.piece_max_s = piece_max_s
        self.body = body
        if value is not _MISSING:
            self.body = value if isinstance(value, bytes) else msgspec.json.encode(value)
            self.headers.append((b"content-type", JSON))

    async def send(self, send: Send, request: Request) -> None:
        with_body = request.method != "HEAD"
        headers = self.headers
        if self.stream is None and self.status != 204:
            headers = [*headers, (b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self.stream is not None and with_body:
            await self._send_stream(self.stream, send, request)
        body = self.body if with_body and self.stream is None else b""
        await send({"type": "http.response.body", "body": body})

    async def _send_stream(self, stream: AsyncIterator[bytes], send: Send, request: Request) -> None:
        """Piece by piece, as long as the client is connected."""
        gone = asyncio.ensure_future(request.gone())
        if self.on_gone is not None:
            gone.add_done_callback(lambda _: self.on_gone and self.on_gone())
        try:
            async for piece in stream:
                if gone.done():
                    return
                await self._send_piece(piece, send)
        finally:
            gone.cancel()
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()  # what it holds is free now, not at the next garbage collection

    async def _send_piece(self, piece: bytes, send: Send) -> None:
        try:
            async with asyncio.timeout(self.piece_max_s):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise Disconnected(f"The client has taken nothing for {self.piece_max_s} s.") from None
