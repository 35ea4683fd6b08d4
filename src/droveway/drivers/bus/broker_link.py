"""A connection to a broker that makes itself again: subscribe and publish, and what every kind of broker has in common.

Publishing is a plain function that drops and counts beyond its bound; what arrives is handed over at once, so no queue
can grow here; a broker that no longer answers is left at once, unsent data and all.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from droveway.ports.bus import MAX_MESSAGE_BYTES
from droveway.ports.clock import Chance

log = structlog.get_logger("droveway.bus")
WRITE_BUFFER_MAX = 16 * 1024 * 1024
RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.05, 1.0
FEW_RECONNECT_MAX_S = 0.25  # of controls and APIs: they are few, and should listen by the time the agents say hello
REFUSED_MAX_S = 5.0  # a wrong password is tried again too: it may be put right at the broker
CONNECT_MAX_S = 3.0
CLOSE_MAX_S = 1.0
PINGS_MAX = 3
COMPLAINTS_MAX = 64

# Subject, reply subject, payload; the payload is None when the broker says that there is no subscriber.
OnMessage = Callable[[bytes, bytes, bytes | None], None]


class Refused(Exception):
    """The broker, or what listens in its place, will not have this end."""


class LinkListener(Protocol):
    """The user of a link: called when the broker is connected, and when it no longer is. Plain functions."""

    def on_connected(self) -> None: ...
    def on_lost(self, reason: str) -> None: ...


class Wire(Protocol):
    """One connection. `ended`: why it is over."""

    ended: asyncio.Future[str]
    is_refused: bool  # the broker ended it for a reason that will hold for a while

    @property
    def max_payload_bytes(self) -> int: ...
    def unsent_bytes(self) -> int: ...
    def publish(self, subject: str, payload: bytes, reply: str) -> None: ...
    def keep_pinging(self, interval_s: float) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class LinkSettings(Protocol):
    """What a link asks of the settings of its kind of broker."""

    @property
    def servers(self) -> tuple[str, ...]: ...
    @property
    def prefix(self) -> str: ...
    @property
    def ping_interval_s(self) -> float: ...


class BrokerLink:
    """One connection, shared by any number of users (the hosts of a simulated fleet); lives while one uses it."""

    def __init__(self, settings: LinkSettings, chance: Chance) -> None:
        self.settings, self._chance = settings, chance
        self.reconnect_max_s = RECONNECT_MAX_S  # the longest pause between two tries; a user may shorten it
        self._users: list[LinkListener] = []
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: tuple[asyncio.Task[None], Wire | None] | None = None
        self._complaints: set[str] = set()
        self.trouble = "no connection to the broker has been made yet"  # empty when connected
        self.complaint = ""  # what the broker last forbade on this connection
        self.dropped = 0  # messages not sent: no broker, or its queue full
        self.oversized = 0  # messages not sent: over the bound

    # -- what differs -------------------------------------------------------------------------------------------------
    async def _connect(self, server: str) -> Wire:
        """A connection that was accepted; Refused, OSError or TimeoutError when there is none."""
        raise NotImplementedError

    def _begin(self, wire: Wire) -> None:
        """Subscribe on it to everything that is wanted."""
        raise NotImplementedError

    def _why_not(self, server: str, error: Exception) -> str:
        return why_not(server, error, "")

    def subscribe(self, subject: str, on_message: OnMessage) -> int:
        """The number by which it ends. `*` stands for one word, in the last words only."""
        raise NotImplementedError

    def unsubscribe(self, sid: int) -> None:
        raise NotImplementedError

    # -- for users ----------------------------------------------------------------------------------------------------
    @property
    def is_connected(self) -> bool:
        return self._wire is not None

    @property
    def max_payload_bytes(self) -> int:
        return min(MAX_MESSAGE_BYTES, self._wire.max_payload_bytes if self._wire else MAX_MESSAGE_BYTES)

    def use(self, user: LinkListener) -> None:
        """Be told of the connection from now on; the first user starts it."""
        self._users.append(user)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())
        elif self.is_connected:
            user.on_connected()

    def release(self, user: LinkListener) -> None:
        """The last one to leave ends the connection; what was published before goes out."""
        if user in self._users:
            self._users.remove(user)
        if not self._users and self._task is not None:
            self._task.cancel()
            self._ending, self._task = (self._task, self._wire), None

    def publish(self, subject: str, payload: bytes, reply: str = "") -> bool:
        """False when it was dropped: no broker, its queue is full, or the message is over the bound. With `reply` the
        broker is asked to say so there when there is no subscriber."""
        wire = self._wire
        if wire is None or wire.unsent_bytes() + len(payload) > WRITE_BUFFER_MAX:
            self.dropped += 1
            return False
        if len(payload) > self.max_payload_bytes:
            self.oversized += 1
            self._complain(
                f"a message of {len(payload)} bytes on {subject} was dropped: the bound is {self.max_payload_bytes}"
                f" (max_payload of the broker: {wire.max_payload_bytes})"
            )
            return False
        wire.publish(subject, payload, reply)
        return True

    def renew(self) -> None:
        """Leave the connection that there is, unsent data and all; another one is made at once."""
        if self._wire is not None:
            self._wire.abort()

    # -- the connection -----------------------------------------------------------------------------------------------
    async def _keep_connected(self) -> None:
        """Until cancelled: whichever server answers, again and again, never faster than the back-off."""
        loop = asyncio.get_running_loop()
        servers = self.settings.servers
        turn = int(self._chance.uniform(0, len(servers)))  # so that not all ends press on the first one named
        delay_s, delay_max_s = RECONNECT_FIRST_S, self.reconnect_max_s
        while True:
            server = servers[turn % len(servers)]
            turn += 1
            try:
                wire = await self._connect(server)
            except (Refused, OSError, TimeoutError) as error:
                self._say(self._why_not(server, error))
                delay_max_s = REFUSED_MAX_S if isinstance(error, Refused) else self.reconnect_max_s
            else:
                began_s = loop.time()
                try:
                    self._say(await self._serve(server, wire))
                finally:
                    self._leave(wire)
                if loop.time() - began_s > RECONNECT_MAX_S and not wire.is_refused:
                    delay_s, delay_max_s = RECONNECT_FIRST_S, self.reconnect_max_s
                elif wire.is_refused:
                    delay_max_s = REFUSED_MAX_S
            await asyncio.sleep(delay_s * self._chance.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, delay_max_s)

    async def _serve(self, server: str, wire: Wire) -> str:
        """From the first subscription until the connection ends; the sentence says why."""
        self._wire, self.trouble, self.complaint = wire, "", ""
        self._complaints.clear()
        log.info("connected to the broker", server=server)
        if wire.max_payload_bytes < MAX_MESSAGE_BYTES:
            log.info(
                "the broker's max_payload is below the bus's bound; larger messages are dropped",
                max_payload=wire.max_payload_bytes,
                bound=MAX_MESSAGE_BYTES,
            )
        self._begin(wire)
        for user in list(self._users):
            user.on_connected()
        wire.keep_pinging(self.settings.ping_interval_s)
        await asyncio.wait({wire.ended})  # not awaited itself: a cancellation of this would cancel it
        return f"the connection to the broker at {server} ended: {wire.ended.result()}"

    def _leave(self, wire: Wire) -> None:
        self._wire = None
        wire.close()
        self.trouble = self.trouble or "the connection to the broker has been closed"
        for user in list(self._users):
            user.on_lost(self.trouble)

    async def closed(self) -> None:
        """After the last user has left: what was written goes out; bounded, as the broker may not take it."""
        if self._ending is not None:
            task, wire = self._ending
            self._ending = None
            await asyncio.wait({task}, timeout=CLOSE_MAX_S)
            if wire is not None:
                await asyncio.wait({wire.ended}, timeout=CLOSE_MAX_S)

    # -- what is said -------------------------------------------------------------------------------------------------
    def _say(self, reason: str) -> None:
        if reason != self.trouble:
            log.warning("not connected to the broker", because=reason)
        self.trouble = reason

    def _complain(self, reason: str) -> None:
        if reason not in self._complaints and len(self._complaints) < COMPLAINTS_MAX:
            self._complaints.add(reason)
            log.error("bus error", because=reason)


# -- what the settings of every kind share ----------------------------------------------------------------------------
def wrong_server(section: str, plain: str, secure: str, server: str) -> list[str]:
    """Every sentence that is wrong with one of `servers`."""
    try:
        where = urlsplit(server)
        fits = where.scheme in {plain, secure} and bool(where.hostname) and where.path in {"", "/"}
        fits = fits and (where.port is None or where.port > 0)
        (where.hostname or "").encode("idna")
    except ValueError:
        fits = False
    if not fits:
        return [f"{section}.servers: {server!r} must be {plain}://HOST:PORT or {secure}://HOST:PORT"]
    if where.username or where.password:
        return [f"{section}.servers: user and password have keys of their own, {section}.user and {section}.password"]
    return []


def why_not(server: str, error: Exception, section: str) -> str:
    """Why there is no connection, in one sentence."""
    if isinstance(error, TimeoutError):
        return f"the broker at {server} did not answer within {CONNECT_MAX_S:.0f} s"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        return (
            f"TLS with the broker at {server} failed: {reason}; see {section}.tls_ca, and {section}.tls_cert if it "
            "asks for one"
        )
    if isinstance(error, Refused):
        return f"the broker at {server} refused this end: {error}"
    return f"the broker at {server} cannot be reached: {error}"
