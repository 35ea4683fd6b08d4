"""How a heart's beats reach control: a unix socket, NATS, or RabbitMQ (heart_rabbit.py); each connection is made again
when it ends.

What is said in one round goes out in one piece. While a piece cannot go out whole, what is said is dropped: the next
beat says it all. Only the small parts of the standard library are used (heart.py tells why).
"""

from __future__ import annotations

import _socket  # the half of `socket` that is in C: without the other half's enums a heart is a MiB smaller
import os
import select
import time

RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.05, 1.0
CONNECT_MAX_S = 3.0
QUIET_S = 5.0  # without control before it is said
PINGS_MAX = 3
SAID_MAX_BYTES = 2048  # less than what a pipe takes at once
LINE_MAX_BYTES = 64 * 1024
READ_BYTES = 16 * 1024


def now_s() -> float:
    """The heart's only clock for waiting."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


_stderr = select.poll()
_stderr.register(2, select.POLLOUT)


def say(level: str, event: str, **facts: object) -> None:
    """One line on stderr, in the form of the program's log. Never fails."""
    at = time.time_ns()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at // 10**9))}.{at // 1000 % 10**6:06d}Z"
    words = {"timestamp": stamp, "level": level, "event": event, **facts}
    line = " ".join(f"{key}={_quoted(str(word))}" for key, word in words.items())
    try:
        if _stderr.poll(0):  # a pipe without a reader must not stop the heart: then the line is lost
            os.write(2, line.encode(errors="replace")[:SAID_MAX_BYTES] + b"\n")
    except OSError:
        pass


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '\\"').replace("\n", "\\n") + '"' if not word or " " in word or "=" in word else word


class Link:
    """A connection towards control. `tick` makes it, `send` gathers and `flush` says it."""

    def __init__(self) -> None:
        self.socket: _socket.socket | None = None
        self._round: list[bytes] = []
        self._rest = b""  # of a round that has not gone out whole
        self._delay_s, self._due_s, self._began_s = RECONNECT_FIRST_S, 0.0, 0.0
        self._where, self._trouble = "control", ""
        self._lost_s = now_s()
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError,)

    # -- what differs -------------------------------------------------------------------------------------------------
    def _connect(self) -> _socket.socket:
        """A connection that takes beats; OSError when there is none. May block for CONNECT_MAX_S: while it does,
        no heartbeat could be delivered."""
        raise NotImplementedError

    def _frame(self, subject: bytes, payload: bytes) -> bytes:
        raise NotImplementedError

    def _take(self, data: bytes) -> None:
        """What the other end says."""

    def _ask(self, at_s: float) -> float:
        """Look whether the other end is there; when to do so again."""
        return float("inf")

    # -- the connection -----------------------------------------------------------------------------------------------
    def tick(self) -> bool:
        """Connect if it is time to, and look after the connection; True when there is a new one."""
        at_s = now_s()
        if at_s < self._due_s:
            return False
        if self.socket is not None:
            self._due_s = self._ask(at_s)
            return False
        try:
            sock = self._connect()
            sock.setblocking(False)
        except OSError as error:
            self._wait(f"{self._where} cannot be reached: {error.strerror or error}")
            return False
        if self._trouble:
            say("info", "heartbeats reach control again", by=self._where)
        self.socket, self._trouble, self._rest, self._began_s = sock, "", b"", now_s()
        self._round.clear()
        self._due_s = self._ask(self._began_s)
        return True

    def due_s(self) -> float:
        return self._due_s

    def send(self, subject: bytes, payload: bytes) -> None:
        self._say(self._frame(subject, payload))

    def _say(self, data: bytes) -> None:
        if self.socket is not None and not self._rest:
            self._round.append(data)

    @property
    def is_full(self) -> bool:
        """There is something left for `flush`, once the other end takes more."""
        return bool(self._rest)

    def flush(self) -> None:
        if self._round:
            self._rest = b"".join(self._round)
            self._round.clear()
        if self.socket is None or not self._rest:
            return
        try:
            self._rest = self._rest[self.socket.send(self._rest) :]
        except self._would_block:
            pass  # TLS wants to be asked again with the same bytes, and is
        except OSError as error:
            self.end(error.strerror or str(error))

    def on_readable(self) -> None:
        if self.socket is None:
            return
        try:
            data = self.socket.recv(READ_BYTES)
        except self._would_block:
            return
        except OSError as error:
            self.end(error.strerror or str(error))
            return
        if data:
            self._take(data)
        else:
            self.end("the other end closed it")

    def end(self, why: str) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket, self._rest, self._lost_s = None, b"", now_s()
        if now_s() - self._began_s > RECONNECT_MAX_S:
            self._delay_s = RECONNECT_FIRST_S
        self._wait(f"the connection to {self._where} ended: {why}")

    def _wait(self, trouble: str) -> None:
        """Said when it lasts: a control that is started again is soon there."""
        if now_s() - self._lost_s > QUIET_S and trouble != self._trouble:
            say("warning", "heartbeats do not reach control", because=trouble)
            self._trouble = trouble
        spread = 0.5 + os.urandom(1)[0] / 510  # not all hearts at once
        self._due_s = now_s() + self._delay_s * spread
        self._delay_s = min(self._delay_s * 2, RECONNECT_MAX_S)


class SocketLink(Link):
    """To control's own socket: four bytes of length, then the beat."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path, self._where = path, f"control at {path}"

    def _connect(self) -> _socket.socket:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_MAX_S)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock

    def _frame(self, subject: bytes, payload: bytes) -> bytes:
        return len(payload).to_bytes(4, "big") + payload


class BrokerLink(Link):
    """To a broker; any one of several. `tls` names three files."""

    def __init__(
        self, servers: tuple[tuple[str, int], ...], wants_tls: bool, tls: tuple[str, str, str], ping_s: float
    ) -> None:
        super().__init__()
        self._servers, self._wants_tls, self._tls, self._ping_s = servers, wants_tls, tls, ping_s
        self._turn = os.urandom(1)[0]  # not all hearts press on the first one named
        self._unread = b""
        self._pings = 0

    def _introduce(self, sock: _socket.socket, host: str) -> _socket.socket:
        """The connection once it takes beats; OSError, and it is closed, when it will not."""
        raise NotImplementedError

    def _connect(self) -> _socket.socket:
        host, port = self._servers[self._turn % len(self._servers)]
        self._turn += 1
        self._where = f"the broker at {host}:{port}"
        error: OSError | None = None
        for family, kind, protocol, _, address in _socket.getaddrinfo(host.encode(), port, 0, _socket.SOCK_STREAM):
            sock = _socket.socket(family, kind, protocol)
            try:
                sock.settimeout(CONNECT_MAX_S)
                sock.connect(address)
                sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                return self._introduce(sock, host)
            except OSError as one:
                sock.close()
                error = one
        raise error or OSError(f"{host} has no address")

    def _wrap(self, sock: _socket.socket, host: str) -> _socket.socket:
        import socket  # with TLS a heart is as large as it must be
        import ssl

        self._would_block = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        ca, certificate, key = self._tls
        context = ssl.create_default_context(cafile=ca or None)
        if certificate:
            context.load_cert_chain(certificate, key)
        whole = socket.socket(fileno=sock.detach())
        try:
            whole.settimeout(CONNECT_MAX_S)
            return context.wrap_socket(whole, server_hostname=host)
        except (OSError, ValueError) as error:
            whole.close()
            raise OSError(f"TLS with the broker failed: {error}") from None

    def _may_ask(self) -> bool:
        """Counts pings, not time: when this process stood still, one ping is late and the broker is not blamed."""
        if self._pings >= PINGS_MAX:
            self.end(f"the broker left {PINGS_MAX} pings unanswered")
            return False
        self._pings += 1
        return True


class NatsLink(BrokerLink):
    """To NATS. `introduction` is the whole CONNECT line."""

    def __init__(
        self,
        servers: tuple[tuple[str, int], ...],
        introduction: bytes,
        wants_tls: bool,
        tls: tuple[str, str, str],
        ping_s: float,
    ) -> None:
        super().__init__(servers, wants_tls, tls, ping_s)
        self._introduction = introduction

    def _introduce(self, sock: _socket.socket, host: str) -> _socket.socket:
        self._unread, self._pings = b"", 0
        deadline_s = now_s() + CONNECT_MAX_S
        info = self._line(sock, deadline_s)
        if not info.startswith(b"INFO "):
            raise OSError("what listens there does not speak NATS")
        is_required, is_offered = b'"tls_required":true' in info, b'"tls_available":true' in info
        if self._wants_tls and not (is_required or is_offered):
            raise OSError("the broker does not offer TLS, which nats.tls_ca or tls:// demands")
        if self._wants_tls or is_required:
            sock = self._wrap(sock, host)
        try:
            sock.sendall(self._introduction + b"PING\r\n")
            while (line := self._line(sock, deadline_s)) != b"PONG":
                if line.startswith(b"-ERR"):
                    raise OSError(f"the broker refused this end: {line[4:].decode(errors='replace').strip()}")
        except OSError:
            sock.close()
            raise
        return sock

    def _line(self, sock: _socket.socket, deadline_s: float) -> bytes:
        while b"\r\n" not in self._unread:
            sock.settimeout(max(0.01, deadline_s - now_s()))
            data = sock.recv(READ_BYTES)
            if not data or len(self._unread) > LINE_MAX_BYTES:
                raise OSError("the broker closed the connection, or is none")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def _frame(self, subject: bytes, payload: bytes) -> bytes:
        return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)

    def _ask(self, at_s: float) -> float:
        if not self._may_ask():
            return self._due_s
        self._say(b"PING\r\n")
        return at_s + self._ping_s

    def _take(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\r\n")
        for line in lines:
            if line == b"PING":
                self._say(b"PONG\r\n")
            elif line == b"PONG":
                self._pings = 0
            elif line.startswith(b"-ERR"):
                say("error", "the broker reported an error", because=line[4:].decode(errors="replace").strip(" '"))
        if len(self._unread) > LINE_MAX_BYTES:
            self.end("what listens there does not speak NATS")
