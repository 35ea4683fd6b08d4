"""How a heart's beats reach control through RabbitMQ: AMQP 0-9-1's introduction, and publishing; nothing else of it.

Only the small parts of the standard library are used (heart.py tells why). What an introduction says of user, virtual
host and exchange is made by the starter of the heart.
"""

from __future__ import annotations

import _socket
from struct import Struct

from droveway.agents.heart.links import CONNECT_MAX_S, READ_BYTES, BrokerLink, now_s, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

GREETING = b"AMQP\x00\x00\x09\x01"
FRAME, TUNING = Struct(">BHI"), Struct(">HIH")
METHOD, HEADER, BODY = 1, 2, 3
FRAME_MIN, FRAME_MAX = 4096, 128 * 1024  # as the broker says it; what it says to a heart is small
HEARTBEAT_S = 6  # the broker speaks twice in it, even when it takes nothing
PUBLISH, CONTENT = b"\x00\x3c\x00\x28\x00\x00", b"\x00\x3c\x00\x00"
START, TUNE, TUNE_OK = 0x0A000A, 0x0A001E, 0x0A001F
OPENED, CLOSE, BLOCKED = 0x0A0029, 0x0A0032, 0x0A003C
CHANNEL_OPENED, CHANNEL_CLOSE, DECLARED = 0x14000B, 0x140028, 0x28000B
PING = b"\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x14\x01\xce"  # channel.flow


def framed(kind: int, channel: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


class RabbitLink(BrokerLink):
    """`introduction`: start-ok, open, and what is said on the channel, each whole; `exchange` is where beats go."""

    def __init__(
        self,
        servers: tuple[tuple[str, int], ...],
        introduction: tuple[bytes, bytes, bytes],
        exchange: str,
        wants_tls: bool,
        tls: tuple[str, str, str],
        ping_s: float,
    ) -> None:
        super().__init__(servers, wants_tls, tls, ping_s)
        self._introduction, self._unread = introduction, b""
        self._exchange = bytes((len(exchange),)) + exchange.encode()
        self._frame_max = FRAME_MAX

    def _introduce(self, sock: _socket.socket, host: str) -> _socket.socket:
        start_ok, opening, channel = self._introduction
        self._unread, self._pings = b"", 0
        deadline_s = now_s() + CONNECT_MAX_S
        if self._wants_tls:
            sock = self._wrap(sock, host)
        try:
            sock.sendall(GREETING)
            self._await(sock, START, deadline_s)
            sock.sendall(start_ok)
            tuned = self._await(sock, TUNE, deadline_s)
            if len(tuned) < TUNING.size:
                raise OSError("what listens there does not speak AMQP 0-9-1")
            channels, frame_max, _ = TUNING.unpack_from(tuned)
            self._frame_max = max(min(frame_max or FRAME_MAX, FRAME_MAX), FRAME_MIN)
            tune_ok = TUNE_OK.to_bytes(4, "big") + TUNING.pack(channels, self._frame_max, HEARTBEAT_S)
            sock.sendall(framed(METHOD, 0, tune_ok) + opening)
            self._await(sock, OPENED, deadline_s)
            sock.sendall(channel)
            self._await(sock, CHANNEL_OPENED, deadline_s)
            self._await(sock, DECLARED, deadline_s)
        except OSError:
            sock.close()
            raise
        return sock

    def _await(self, sock: _socket.socket, wanted: int, deadline_s: float) -> bytes:
        """What comes with that answer; OSError when the broker will not have this end."""
        while True:
            for method, arguments in self._methods():
                if method == wanted:
                    return arguments
                if method in {CLOSE, CHANNEL_CLOSE}:
                    raise OSError(f"the broker refused this end: {_reason(arguments)}")
            sock.settimeout(max(0.01, deadline_s - now_s()))
            data = sock.recv(READ_BYTES)
            if not data:
                raise OSError("the broker closed the connection, or is none")
            self._unread += data

    def _methods(self) -> Iterator[tuple[int, bytes]]:
        """What has arrived whole, one after the other."""
        while len(self._unread) >= 8:
            kind, _, size = FRAME.unpack_from(self._unread)
            if kind > 8 or size > FRAME_MAX:
                raise OSError("what listens there does not speak AMQP 0-9-1")
            if len(self._unread) < size + 8:
                return
            arguments, self._unread = self._unread[7 : 7 + size], self._unread[size + 8 :]
            if kind == METHOD:
                yield int.from_bytes(arguments[:4], "big"), arguments[4:]

    def _frame(self, subject: bytes, payload: bytes) -> bytes:
        most_bytes = self._frame_max - 8
        data = framed(METHOD, 1, PUBLISH + self._exchange + bytes((len(subject),)) + subject + b"\0")
        data += framed(HEADER, 1, CONTENT + len(payload).to_bytes(8, "big") + b"\0\0")
        for at in range(0, len(payload), most_bytes):
            data += framed(BODY, 1, payload[at : at + most_bytes])
        return data

    def _ask(self, at_s: float) -> float:
        if not self._may_ask():
            return self._due_s
        self._say(PING)
        return at_s + self._ping_s

    def _take(self, data: bytes) -> None:
        """Whatever it is, the broker is there. One that takes nothing leaves pings unread, and sends heartbeats."""
        self._pings = 0
        self._unread += data
        try:
            for method, arguments in self._methods():
                if method in {CLOSE, CHANNEL_CLOSE}:
                    self.end(f"the broker says: {_reason(arguments)}")
                    return
                if method == BLOCKED:
                    say("warning", "the broker blocks publishing", because=arguments[1:].decode(errors="replace"))
        except OSError as error:
            self.end(error.strerror or str(error))


def _reason(arguments: bytes) -> str:
    """A code, then a sentence."""
    code, length = int.from_bytes(arguments[:2], "big"), int.from_bytes(arguments[2:3], "big")
    reason = arguments[3 : 3 + length].decode(errors="replace")
    if code == 403 and "Login" in reason:
        return f"wrong rabbitmq.user or rabbitmq.password ({reason})"
    return reason
