"""HTTP for guests, as far as metadata needs it. Who asks is known by the network that a connection came from and its
address there, and by no word of the request.

A guest is not trusted: how many connections it has, how long a request may take to arrive and an answer to leave, how
long a head may be and how often it may ask are bounded, each guest by itself, so that one is no burden to the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from droveway.agents.metadata import passwords
from droveway.agents.metadata.passwords import Answer, Passwords, Reply
from droveway.domain.metadata_paths import is_password, lookup

CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX = 512, 8
REQUEST_S = 5.0  # from a connection, or the answer before, to the end of a request's head
SEND_S = 10.0  # until an answer has left
HEAD_MAX_BYTES = 8192
REQUESTS_MAX = 100  # on one connection
SIZE_MAX_DIGITS = 9
RATE_A_S, BURST = 50.0, 200.0  # requests of one guest
ASKERS_MAX = 8192  # of which it is remembered how often they asked
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
Asker = tuple[str, str]  # a network, and an address there


class Service:
    """What is served, and to whom."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.addresses: dict[str, dict[str, str]] = {}
        self.documents: dict[str, tuple[str, Mapping[str, bytes]]] = {}  # by instance: the digest, and each by its path
        self.passwords = Passwords()
        self.places: dict[str, str] = {}  # by network
        self._servers: dict[str, list[asyncio.Server]] = {}
        self._open: dict[Asker, set[Connection]] = {}
        self._count = 0
        self._asked: dict[Asker, tuple[float, float]] = {}  # what is left of its burst, and since when

    async def listen(self, network_id: str, place: str, sockets: list[int]) -> None:
        import socket

        self.leave(network_id)
        self.places[network_id] = place
        for descriptor in sockets:
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self, network_id), sock=socket.socket(fileno=descriptor), backlog=128
            )
            self._servers.setdefault(network_id, []).append(server)

    def leave(self, network_id: str) -> None:
        self.places.pop(network_id, None)
        for server in self._servers.pop(network_id, ()):
            server.close()
        for asker in [one for one in self._open if one[0] == network_id]:
            for connection in list(self._open[asker]):
                connection.abort()

    # -- who asks -----------------------------------------------------------------------------------------------------
    def admit(self, asker: Asker, connection: Connection) -> bool:
        its = self._open.get(asker, ())
        if self._count >= CONNECTIONS_MAX or len(its) >= CONNECTIONS_OF_ONE_MAX:
            return False
        self._open.setdefault(asker, set()).add(connection)
        self._count += 1
        return True

    def left(self, asker: Asker, connection: Connection) -> None:
        its = self._open.get(asker, set())
        if connection in its:
            its.discard(connection)
            self._count -= 1
            if not its:
                del self._open[asker]

    def may_ask(self, asker: Asker, now_s: float) -> bool:
        allowance, since_s = self._asked.pop(asker, (BURST, now_s))
        allowance = min(BURST, allowance + (now_s - since_s) * RATE_A_S)
        may = allowance >= 1
        self._asked[asker] = (allowance - 1 if may else allowance), now_s
        if len(self._asked) > ASKERS_MAX:
            del self._asked[next(iter(self._asked))]  # who has been silent longest
        return may

    def set_documents(self, instance_id: str, digest: str, by_path: Mapping[str, bytes] | None) -> None:
        """What that guest is told from now on; None: it is here no longer."""
        if by_path is None:
            self.documents.pop(instance_id, None)
        else:
            self.documents[instance_id] = digest, by_path
        self.passwords.note_documents(instance_id, by_path)

    def _guest(self, asker: Asker) -> tuple[str, Mapping[str, bytes]] | None:
        """Who asks, and its documents; None: no one that is told anything now."""
        instance_id = self.addresses.get(asker[0], {}).get(asker[1], "")
        known = self.documents.get(instance_id)
        return None if known is None else (instance_id, known[1])

    def _nothing(self, asker: Asker) -> Answer:
        """Why there is nothing for it."""
        if asker[1] in self.addresses.get(asker[0], {}):
            return 503, b"what this server is told has not arrived on its host yet"
        return 404, b"no server of this network has your address"

    def answer(self, asker: Asker, path: str) -> Answer:
        guest = self._guest(asker)
        if guest is None:
            return self._nothing(asker)
        found = lookup(guest[1], path)
        return (200, found) if found is not None else (404, b"there is no such document")

    def post(self, asker: Asker, body: bytes, reply: Reply) -> Answer | None:
        """A password; None: `reply` gives the answer later."""
        guest = self._guest(asker)
        if guest is None:
            return self._nothing(asker)
        if not passwords.is_password(body):
            return 400, b"a password is a text of UTF-8 without control characters"
        return self.passwords.post(guest[0], guest[1].get(passwords.PATH, b""), body, reply)


class Connection(asyncio.Protocol):
    """One of a guest."""

    def __init__(self, service: Service, network_id: str) -> None:
        self._service, self._network_id = service, network_id
        self._asker: Asker = network_id, ""
        self._received = bytearray()
        self._requests = 0
        self._is_sending = self._is_ended = False
        self._posted = -1  # bytes of a password that follow; -1: no request is being read but its head
        self._is_held = False  # the answer to it is given later
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername") or ("",)
        self._asker = self._network_id, str(peer[0]).partition("%")[0]
        if not self._service.admit(self._asker, self):
            self.abort()
            return
        self._transport.set_write_buffer_limits(high=0)  # it says so when not all of an answer has left
        self._within(REQUEST_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._service.left(self._asker, self)

    def abort(self) -> None:
        self._is_ended = True
        self._transport.abort()

    def _within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    def pause_writing(self) -> None:
        self._is_sending = True
        self._transport.pause_reading()
        self._within(SEND_S)

    def resume_writing(self) -> None:
        self._is_sending = False
        if self._is_ended:
            return
        self._transport.resume_reading()
        self._within(REQUEST_S)
        self._take()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._take()

    def _take(self) -> None:
        """Each request that is whole, one after the other: the next when the answer to the one before has left."""
        while not (self._is_sending or self._is_ended or self._is_held):
            if self._posted >= 0:
                if len(self._received) < self._posted:
                    return
                self._take_password()
                continue
            while self._received.startswith(b"\r\n"):
                del self._received[:2]
            end = self._received.find(b"\r\n\r\n", 0, HEAD_MAX_BYTES)
            if end < 0:
                if len(self._received) >= HEAD_MAX_BYTES:
                    self._send(431, b"the head of the request is too long", is_last=True)
                return
            head = bytes(self._received[:end])
            del self._received[: end + 4]
            self._within(REQUEST_S)
            self._handle(head)

    def _handle(self, head: bytes) -> None:
        self._requests += 1
        request, *lines = head.decode("latin-1").split("\r\n")
        words = request.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
            self._send(400, b"that is no request of HTTP/1.1", is_last=True)
            return
        method, target, version = words
        if method == "POST" and is_password(_path(target)):
            self._handle_password(headers)
            return
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            self._send(405 if method not in ("GET", "HEAD") else 400, b"nothing can be sent here", is_last=True)
            return
        if method not in ("GET", "HEAD"):
            self._send(405, b"this can be read alone", is_last=True)
            return
        keeps = headers.get("connection", "keep-alive" if version == "HTTP/1.1" else "close").lower()
        is_last = "close" in keeps or self._requests >= REQUESTS_MAX
        if not self._service.may_ask(self._asker, asyncio.get_running_loop().time()):
            self._send(429, b"too many requests", is_last=True)
            return
        path = _path(target)
        status, body = self._service.answer(self._asker, path)
        kind = "application/json" if status == 200 and path.endswith(".json") else "text/plain; charset=utf-8"
        self._send(status, body, kind, is_last=is_last, has_body=method == "GET")

    # -- a password ---------------------------------------------------------------------------------------------------
    def _handle_password(self, headers: Mapping[str, str]) -> None:
        size = headers.get("content-length", "")
        if "transfer-encoding" in headers or not (size.isascii() and size.isdigit() and len(size) <= SIZE_MAX_DIGITS):
            self._send(400, b"the length of the password is to be said", is_last=True)
        elif int(size) > passwords.MAX_BYTES:
            self._send(413, f"a password has at most {passwords.MAX_BYTES} bytes".encode(), is_last=True)
        elif not self._service.may_ask(self._asker, asyncio.get_running_loop().time()):
            self._send(429, b"too many requests", is_last=True)
        else:
            self._posted = int(size)
            if "100-continue" in headers.get("expect", "").lower():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_password(self) -> None:
        """One a connection: what a guest sends behind it is read no more."""
        body = bytes(self._received[: self._posted])
        self._posted, self._is_held = -1, True
        self._within(passwords.HOLD_S + SEND_S)
        answer = self._service.post(self._asker, body, self._reply)
        if answer is not None:
            self._reply(*answer)

    def _reply(self, status: int, body: bytes) -> None:
        if not self._is_ended:
            self._send(status, body, is_last=True)

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str = "text/plain; charset=utf-8",
        *,
        is_last: bool = False,
        has_body: bool = True,
    ) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        lines += ["Retry-After: 1"] if status in (429, 503) else []
        lines += ["Allow: GET, HEAD"] if status == 405 else []
        lines += [f"Connection: {'close' if is_last else 'keep-alive'}", "", ""]
        head = "\r\n".join(lines).encode()
        if is_last:
            self._is_ended = True
        self._transport.write(head + body if has_body else head)
        if is_last:
            self._within(SEND_S)
            self._transport.close()


def _path(target: str) -> str:
    return target if target.startswith("/") else "/" + target.partition("://")[2].partition("/")[2]
