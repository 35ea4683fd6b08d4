"""The heart: one lean process a host that beats for all its services, and knows at once when one of them ends.

It shares no loop, no lock and no library with what it watches, so it beats on when that hangs. A service joins at
heart.sock and says a few times an interval that its loop turns; the kernel says when its process ends (a pidfd). With
control down, the agent down or the broker away it goes on; every listener gets the next heartbeat.

Only small parts of the standard library: `droveway heart` checks the configuration with the whole program, and becomes
this process by execv, which leaves all that behind (process/heart.py).
"""

from __future__ import annotations

import _socket
import errno
import marshal
import os
import select
import sys
import time

from droveway.agents.heart import heart_bytes
from droveway.agents.heart.heart_bytes import (
    DIED,
    INTERVAL_MAX_MS,
    INTERVAL_MIN_MS,
    LATENESS_MAX_MS,
    LEFT,
    SERVICES_MAX,
)
from droveway.agents.heart.links import Link, NatsLink, SocketLink, now_s, say
from droveway.agents.heart.process_state import how_it_ended, why_still

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LINES_MAX = 512  # connections at heart.sock, beside one a host
EVENTS_MAX = 64  # taken in before it is looked whether a beat is due
FULL_PAUSE_S = 0.01
NAME_MAX_BYTES = 64
STILL_S, STILL_INTERVALS = 1.0, 2.0  # a loop that has not turned for the longer of these is looked into


class Settings:
    """What a heart must know; plain values, handed over marshalled. A host is its name, its boot id (empty: it comes
    with who joins) and the subject of its beats. `bus_path` is control's socket; empty: there are `servers`.
    `exchange` is RabbitMQ's; without one they are NATS's."""

    def __init__(
        self,
        path: str,
        hosts: tuple[tuple[str, str, bytes], ...],
        interval_s: float,
        initial_delay_s: float,
        is_debug: bool,
        alive_fd: int = -1,
        bus_path: str = "",
        servers: tuple[tuple[str, int], ...] = (),
        introduction: tuple[bytes, ...] = (),
        exchange: str = "",
        wants_tls: bool = False,
        tls: tuple[str, str, str] = ("", "", ""),
        ping_s: float = 2.0,
    ) -> None:
        self.path, self.hosts, self.interval_s, self.initial_delay_s = path, hosts, interval_s, initial_delay_s
        self.is_debug, self.alive_fd, self.bus_path, self.servers = is_debug, alive_fd, bus_path, servers
        self.introduction, self.exchange, self.wants_tls, self.tls = introduction, exchange, wants_tls, tls
        self.ping_s = ping_s

    def link(self) -> Link:
        if self.bus_path:
            return SocketLink(self.bus_path)
        if self.exchange:
            from droveway.agents.heart.rabbitmq import RabbitLink

            start_ok, opening, channel = self.introduction
            return RabbitLink(
                self.servers, (start_ok, opening, channel), self.exchange, self.wants_tls, self.tls, self.ping_s
            )
        return NatsLink(self.servers, self.introduction[0], self.wants_tls, self.tls, self.ping_s)


class Service:
    """One service of a host: the process that joined last under that name."""

    def __init__(self, binary: str, line: HeartConnection, at_s: float) -> None:
        self.binary, self.line, self.pid = binary, line, line.pid
        self.progress = self.lateness_ms = 0
        self.ending = 0  # or LEFT, or DIED
        self.moved_s = at_s
        self.where = ""  # what its loop is in, says the process itself
        self.ended = ""  # how

    def note(self, still_s: float, at_s: float) -> str:
        """Mostly empty: there is nothing to say of a service that moves."""
        if self.ending == DIED and not self.ended:
            self.ended = how_it_ended(self.line.pidfd, self.pid)
        if self.ending:
            return self.ended
        return why_still(self.pid, self.where, self.line.sock is not None) if at_s - self.moved_s > still_s else ""


class Host:
    """One host that this heart beats for."""

    def __init__(self, name: str, boot_id: str, subject: bytes, interval_s: float, first_s: float) -> None:
        self.name, self.boot_id, self.subject, self.interval_s = name, boot_id, subject, interval_s
        self.boot_is_known = bool(boot_id)
        self.services: dict[str, Service] = {}
        self.first_s = self.due_s = first_s
        self.generation = self.counter = boottime_ms()
        self.beats = 0
        self.front = b""  # of its beats; empty: to be made anew

    def hurry(self, at_s: float) -> None:
        """There is news: the next beat is due now."""
        self.front, self.due_s = b"", max(self.first_s, at_s)


class HeartConnection:
    """One connection at heart.sock, and the process at its other end."""

    def __init__(self, sock: _socket.socket, pid: int, pidfd: int) -> None:
        self.sock: _socket.socket | None = sock
        self.pid, self.pidfd = pid, pidfd
        self.host: Host | None = None
        self.service: Service | None = None


class Heart:
    def __init__(self, settings: Settings) -> None:
        self._settings, self._link = settings, settings.link()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._lines: set[HeartConnection] = set()
        self._garbage_logged: set[str] = set()
        first_s = now_s() + settings.initial_delay_s
        self._hosts = {
            name: Host(name, boot_id, subject, settings.interval_s, first_s)
            for name, boot_id, subject in settings.hosts
        }
        if settings.alive_fd >= 0:
            self._watch(settings.alive_fd, lambda: sys.exit(0))
        self._listener = self._listen(settings.path)

    def _listen(self, path: str) -> _socket.socket:
        """The starter of a heart holds a lock on its socket's path: what is there is left over."""
        if os.path.lexists(path):
            os.unlink(path)
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        listener.setblocking(False)
        listener.bind(path)
        listener.listen(128)
        self._watch(listener.fileno(), self._accept)
        return listener

    def run(self) -> None:
        """Until its supervisor is gone or a signal ends it."""
        while True:
            if self._link.tick():
                self._on_connected()
            dues_s = [host.due_s for host in self._hosts.values() if host.boot_id]
            due_s = min(self._link.due_s(), now_s() + INTERVAL_MAX_MS / 1000, *dues_s)
            ready = self._epoll.poll(max(0.0, due_s - now_s()), EVENTS_MAX)
            # All are looked up before the first is called: what one closes, the next may open under the same number.
            for handler in [self._handlers.get(fd) for fd, _ in ready]:
                if handler is not None:
                    handler()
            at_s = now_s()
            for host in self._hosts.values():
                if host.boot_id and at_s >= host.due_s:
                    self._beat(host, at_s)
            was_full = self._link.is_full
            self._link.flush()
            if self._link.socket is not None and was_full is not self._link.is_full:
                wanted = select.EPOLLIN | (select.EPOLLOUT if self._link.is_full else 0)
                self._epoll.modify(self._link.socket.fileno(), wanted)

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _on_connected(self) -> None:
        assert self._link.socket is not None, "it has just been made"
        self._watch(self._link.socket.fileno(), self._link.on_readable)
        for host in self._hosts.values():
            host.hurry(now_s())

    # -- beating ------------------------------------------------------------------------------------------------------
    def _beat(self, host: Host, at_s: float) -> None:
        host.due_s = max(host.due_s + host.interval_s, at_s)
        host.beats += 1
        host.counter = max(host.counter + 1, boottime_ms())
        services = list(host.services.values())
        host.front = host.front or heart_bytes.front(host.name, host.boot_id, tuple(host.services))
        still_s = max(STILL_S, STILL_INTERVALS * host.interval_s)
        self._link.send(
            host.subject,
            heart_bytes.beat(
                host.front,
                host.generation,
                host.counter,
                time.time_ns() // 1000,
                [one.progress for one in services],
                [one.ending or one.lateness_ms for one in services],
                [one.note(still_s, at_s) for one in services],
            ),
        )
        for one in services:
            one.lateness_ms = 0
        if self._settings.is_debug:
            say("debug", "enter report_state", host=host.name, report_count=host.beats)

    # -- who joins ----------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
        except OSError as error:  # it has gone again, or there is no descriptor left: it will try again
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                time.sleep(FULL_PAUSE_S)
            return
        sock = _socket.socket(fileno=fd)
        sock.setblocking(False)
        pid = int.from_bytes(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        if len(self._lines) >= LINES_MAX + len(self._hosts):
            self._complain(pid, f"{len(self._lines)} connections are the bound")
            sock.close()
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            pidfd = -1
            if error.errno != errno.ESRCH:  # one that has ended already is recorded so
                self._complain(pid, f"it cannot be watched ({error.strerror}); is it in another pid namespace?")
                sock.close()
                return
        line = HeartConnection(sock, pid, pidfd)
        self._lines.add(line)
        self._watch(fd, lambda: self._receive(line))
        if pidfd >= 0:
            self._watch(pidfd, lambda: self._on_death(line))

    def _receive(self, line: HeartConnection, messages_max: int = EVENTS_MAX) -> None:
        """What has arrived; what is no message closes the connection."""
        for _ in range(messages_max):
            if line.sock is None:
                return
            try:
                message = line.sock.recv(heart_bytes.MESSAGE_MAX_BYTES + 1)
                if not message:
                    self._on_end(line)
                    return
                self._take(line, message)
            except BlockingIOError:
                return
            except ValueError as error:
                self._complain(line.pid, f"it sent something that is no message: {error}")
                self._on_end(line)
                return
            except OSError:
                self._on_end(line)
                return

    def _take(self, line: HeartConnection, message: bytes) -> None:
        kind, rest, service, host = message[:1], message[1:], line.service, line.host
        if kind == heart_bytes.JOIN and service is None and len(message) <= heart_bytes.MESSAGE_MAX_BYTES:
            self._join(line, rest)
            return
        if service is None or host is None:
            raise ValueError("the first one must join")
        if kind == heart_bytes.PULSE and len(rest) == heart_bytes.PULSED.size:
            progress, lateness_ms = heart_bytes.PULSED.unpack(rest)
            if progress != service.progress:
                service.progress, service.moved_s, service.where = progress, now_s(), ""
            service.lateness_ms = max(service.lateness_ms, min(lateness_ms, LATENESS_MAX_MS))
        elif kind == heart_bytes.INTERVAL and len(rest) == heart_bytes.INTERVALLED.size:
            (interval_ms,) = heart_bytes.INTERVALLED.unpack(rest)
            host.interval_s = min(max(interval_ms, INTERVAL_MIN_MS), INTERVAL_MAX_MS) / 1000
            host.due_s = min(host.due_s, now_s() + host.interval_s)
        elif kind == heart_bytes.WHERE and len(rest) <= heart_bytes.WHERE_MAX_BYTES:
            service.where = rest.decode()
        elif message == heart_bytes.LEAVE:
            self._set_ending(line, LEFT)
        else:
            raise ValueError(f"{len(message)} bytes that begin with {kind!r}")

    def _join(self, line: HeartConnection, rest: bytes) -> None:
        name, boot_id, binary = rest.decode().split("\0")
        host = self._hosts.get(name)
        if host is None:
            raise ValueError(f"host {name!r} is none of this heart's")
        if not (0 < len(boot_id.encode()) <= NAME_MAX_BYTES and 0 < len(binary.encode()) <= NAME_MAX_BYTES):
            raise ValueError(f"a boot id and a binary have 1 to {NAME_MAX_BYTES} bytes")
        if not host.boot_is_known and boot_id != host.boot_id:
            for old in list(host.services.values()):  # they were of that boot
                self._replace(host, old)
            host.boot_id = boot_id
        if binary in host.services:
            self._replace(host, host.services[binary])
        elif len(host.services) >= SERVICES_MAX:
            raise ValueError(f"host {name} has {SERVICES_MAX} services, which is the bound")
        line.host, line.service = host, Service(binary, line, now_s())
        host.services[binary] = line.service
        host.hurry(now_s())
        if line.pidfd < 0:
            self._set_ending(line, DIED)

    def _replace(self, host: Host, old: Service) -> None:
        old.line.service = None
        self._close(old.line)
        del host.services[old.binary]

    # -- who goes -----------------------------------------------------------------------------------------------------
    def _on_end(self, line: HeartConnection) -> None:
        """The connection has ended. The process may live on: then it is watched, and its progress stands still."""
        if line.sock is not None:
            self._handlers.pop(line.sock.fileno(), None)
            line.sock.close()
            line.sock = None
        if line.service is None or line.service.ending == LEFT:
            self._close(line)

    def _on_death(self, line: HeartConnection) -> None:
        self._receive(line, sys.maxsize)  # it may have left in good order before
        if line.service is None or line.service.ending:
            self._close(line)
            return
        self._epoll.unregister(line.pidfd)  # kept, for it will tell how that came
        self._set_ending(line, DIED)
        self._on_end(line)

    def _set_ending(self, line: HeartConnection, ending: int) -> None:
        if line.service is not None and line.host is not None:
            line.service.ending = ending
            self._lines.discard(line)  # what is kept of it is bounded by the services
            line.host.hurry(now_s())

    def _close(self, line: HeartConnection) -> None:
        self._lines.discard(line)
        if line.sock is not None:
            self._handlers.pop(line.sock.fileno(), None)
            line.sock.close()
            line.sock = None
        if line.pidfd >= 0:
            self._handlers.pop(line.pidfd, None)
            os.close(line.pidfd)
            line.pidfd = -1

    def _complain(self, pid: int, because: str) -> None:
        """Once a sentence, and not for ever: a log is bounded too."""
        if because not in self._garbage_logged and len(self._garbage_logged) < EVENTS_MAX:
            self._garbage_logged.add(because)
            say("warning", "a connection was closed", pid=pid, because=because)


def boottime_ms() -> int:
    """Rises while a boot lasts, over restarts of the heart too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def main() -> None:
    """The whole process. Its settings stand in the descriptor that `settings_fd=` names, its last argument."""
    settings_fd = int(sys.argv[-1].partition("=")[2])
    with open(settings_fd, "rb") as file:
        file.seek(0)
        settings = Settings(**marshal.loads(file.read()))
    try:
        Heart(settings).run()
    except KeyboardInterrupt:
        sys.exit(0)
