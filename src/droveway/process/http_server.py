"""uvicorn's server on a listener with a bound: beyond it a connection is refused at once, and nothing of it is kept.

Connections are accepted here and not by the event loop, which takes all that come before anybody can count them: for
that moment there would be no file left for an agent that connects to the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
import uvicorn

from droveway.config.http_bounds import HttpBounds
from droveway.process.http_protocol import BoundedProtocol, Refusal, look_interval_s, reply_of

log = structlog.get_logger("droveway.api")
ACCEPTED_AT_ONCE = 16  # between two looks at everything else
AGAIN_S = 0.1  # until a listener is asked again that could not give a connection
SAID_EVERY_S = 60.0
NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
FULL = reply_of(Refusal(503, "Too many connections are open; try again in a moment."))
FULL_FOR_ADDRESS = reply_of(Refusal(503, "Too many connections are open from this address; use fewer at once."))


class BoundedServer(uvicorn.Server):
    """Serves one listener. `connections_max`: how many it may hold in all. `tls` is asked for each new connection."""

    def __init__(
        self,
        config: uvicorn.Config,
        bounds: HttpBounds,
        connections_max: int,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._bounds, self._most = bounds, connections_max
        self._held: dict[BoundedProtocol, str] = {}  # each with the address it comes from
        self._by_address: Counter[str] = Counter()
        self._silent: dict[str, dict[BoundedProtocol, None]] = {}  # those of an address that never asked, oldest first
        self._coming: set[asyncio.Task[None]] = set()
        self._refused, self._said_s = 0, -SAID_EVERY_S
        self._listeners: list[socket.socket] = []
        self._looking: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """None: the caller decides when it ends."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self._loop = asyncio.get_running_loop()
        self.servers, self._listeners = [], list(sockets or ())
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)
        self._look()
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            self._loop.remove_reader(listener)
        if self._coming:
            await asyncio.wait(self._coming)
        await super().shutdown(sockets)
        if self._looking is not None:
            self._looking.cancel()

    # -- coming -------------------------------------------------------------------------------------------------------
    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_MORE:
                    raise
                self._rest(listener, error)
                return
            self._take(connection, _address(peer))

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """Another thread took the last file: the listener stays readable, and asking on would use all of a
        processor."""
        self._say(f"no connection can be taken: {error.strerror}")
        self._loop.remove_reader(listener)
        self._loop.call_later(AGAIN_S, self._listen_again, listener)

    def _listen_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    def _take(self, connection: socket.socket, address: str) -> None:
        most = self._bounds.max_connections_per_address
        if most and self._by_address[address] >= most and not self._let_go(address):
            self._turn_away(connection, FULL_FOR_ADDRESS)
        elif len(self._held) >= self._most and not self._let_go(self._most_silent()):
            self._turn_away(connection, FULL)
        else:
            protocol = BoundedProtocol(
                self._bounds, self, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            self._held[protocol] = address
            self._by_address[address] += 1
            self._silent.setdefault(address, {})[protocol] = None
            coming = self._loop.create_task(self._begin(connection, protocol))
            self._coming.add(coming)
            coming.add_done_callback(self._coming.discard)

    async def _begin(self, connection: socket.socket, protocol: BoundedProtocol) -> None:
        context = self._tls()
        bounded: dict[str, Any] = (
            {} if context is None else {"ssl": context, "ssl_handshake_timeout": self._bounds.header_timeout_s}
        )
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection, **bounded)
        except OSError as error:  # it has gone already, or shows no certificate that is taken
            if isinstance(error, ssl.SSLError):
                self._refused += 1
                why = getattr(error, "verify_message", "") or error.reason or str(error)
                self._say(f"no certificate of this cloud was shown: {why}", "TLS refused")
            connection.close()
            self.closed(protocol)

    def asked(self, protocol: BoundedProtocol) -> None:
        """A whole head has come: it is a client, and is not closed to make room."""
        address = self._held.get(protocol, "")
        alike = self._silent.get(address, {})
        if alike.pop(protocol, self) is None and not alike:
            del self._silent[address]

    def closed(self, protocol: BoundedProtocol) -> None:
        self.asked(protocol)
        address = self._held.pop(protocol, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _most_silent(self) -> str:
        return max(self._silent, key=lambda address: len(self._silent[address]), default="")

    def _let_go(self, address: str) -> bool:
        """The oldest connection of that address that has never asked anything makes room for a new one. Its file is
        free a moment later: one such moment is within what is kept."""
        protocol = next(iter(self._silent.get(address, {})), None)
        if protocol is None:
            return False
        self._refused += 1
        self._say("connections that had asked nothing were closed to make room")
        self.closed(protocol)
        protocol.abort()
        return True

    def _turn_away(self, connection: socket.socket, reply: bytes) -> None:
        self._refused += 1
        self._say("connections were refused")
        with connection:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.recv(65536)  # what was not read would make the kernel throw the reply away
            with contextlib.suppress(OSError):
                connection.send(reply)

    def _say(self, what: str, event: str = "too many connections") -> None:
        """Not more often than SAID_EVERY_S: the log is no better place to fill."""
        now_s = self._loop.time()
        if now_s - self._said_s >= SAID_EVERY_S:
            self._said_s = now_s
            log.warning(
                event,
                because=what,
                held=len(self._held),
                most=self._most,
                most_per_address=self._bounds.max_connections_per_address,
                refused=self._refused,
            )

    # -- staying ------------------------------------------------------------------------------------------------------
    def _look(self) -> None:
        self._looking = self._loop.call_later(look_interval_s(self._bounds), self._look)  # whatever happens below
        now_s = self._loop.time()
        for protocol in list(self._held):
            protocol.look(now_s)


def _address(peer: Any) -> str:
    """Whose connection it is. One host has a whole /64 of IPv6 to come from; at a unix socket it has none."""
    if not isinstance(peer, tuple):
        return ""
    address = str(peer[0]).partition("%")[0]
    if ":" not in address:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address)
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntoa(packed[12:])
    return packed[:8].hex()
