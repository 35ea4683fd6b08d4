"""A connection to a NATS broker that makes itself again: publish, subscribe, and nothing else of NATS.

nats-py is not used, for two measured reasons (docs/decisions/007): cut off with data unsent it waits in its own close
and never tries another server, and its publish waits where a bus must drop. Here publishing is a plain function that
drops and counts beyond its bound, what arrives is handed over at once (so no queue can grow), and a broker that no
longer answers pings is left at once, unsent data and all.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
import structlog

from droveway.domain.faults import WrongConfiguration
from droveway.drivers.bus.nats_wire import CLOSE_MAX_S, Refused, Wire
from droveway.ports.bus import MAX_MESSAGE_BYTES
from droveway.ports.clock import Chance

log = structlog.get_logger("droveway.bus")
WRITE_BUFFER_MAX = 16 * 1024 * 1024
RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.05, 1.0
REFUSED_MAX_S = 5.0  # a wrong password is tried again too: it may be put right at the broker
CONNECT_MAX_S = 3.0
COMPLAINTS_MAX = 64
DEFAULT_PORT = 4222

# Subject, reply subject, payload; the payload is None when the broker says that nobody listens there.
OnMessage = Callable[[bytes, bytes, bytes | None], None]


class NatsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker: the `[nats]` table of the configuration file. Times are seconds."""

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)  # tls:// demands TLS; any one of them will do
    user: str = ""
    password: str = ""
    tls_ca: str = ""  # who may sign the broker's certificate; naming one demands TLS
    tls_cert: str = ""  # this end's own, where the broker asks for one
    tls_key: str = ""
    prefix: str = "droveway"  # of every subject: two clouds may share a broker
    ping_interval_s: float = 2.0  # a broker that leaves three pings unanswered is left

    def wrongs(self) -> list[str]:
        """Every sentence that is wrong with it; empty when it may be used."""
        wrongs = []
        if not self.servers:
            wrongs.append('nats.servers is empty; name at least one, such as ["nats://127.0.0.1:4222"]')
        for server in self.servers:
            wrongs += _wrong_server(server)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.prefix):
            wrongs.append(f"nats.prefix = {self.prefix!r} must be letters, digits, - and _, such as droveway")
        if bool(self.user) != bool(self.password):
            wrongs.append("nats.user and nats.password go together; one of them is missing")
        if bool(self.tls_cert) != bool(self.tls_key):
            wrongs.append("nats.tls_cert and nats.tls_key go together; one of them is missing")
        if self.ping_interval_s <= 0:
            wrongs.append(f"nats.ping_interval_s = {self.ping_interval_s} must be above 0 seconds, such as 2.0")
        for key in ("tls_ca", "tls_cert", "tls_key"):
            path = getattr(self, key)
            if path and not Path(path).is_file():
                wrongs.append(f"nats.{key} = {path}: there is no such file")
        return wrongs

    @property
    def wants_tls(self) -> bool:
        return bool(self.tls_ca) or any(server.startswith("tls://") for server in self.servers)

    def tls(self) -> ssl.SSLContext:
        """Raises WrongConfiguration when the files do not hold what their keys promise."""
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise WrongConfiguration(
                f"nats.tls_ca, tls_cert, tls_key: cannot be used: {error}; they must be PEM files"
            ) from None
        return context


class User(Protocol):
    """Whoever sends over a link: told when there is a broker, and when there no longer is. Plain functions."""

    def on_connected(self) -> None: ...
    def on_lost(self, sentence: str) -> None: ...


class NatsLink:
    """One connection, shared by any number of users (the hosts of a simulated fleet); lives while one uses it."""

    def __init__(self, settings: NatsSettings, chance: Chance) -> None:
        for wrong in settings.wrongs():
            raise WrongConfiguration(wrong)
        self.settings, self._chance = settings, chance
        self._tls = settings.tls()  # read now: a wrong file is told at the start
        self._users: list[User] = []
        self._subscriptions: dict[int, str] = {}
        self._handlers: dict[bytes, OnMessage] = {}
        self._last_sid = 0
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: tuple[asyncio.Task[None], Wire | None] | None = None
        self._complaints: set[str] = set()
        self.trouble = "no connection to the broker has been made yet"  # empty when connected
        self.complaint = ""  # what the broker last forbade on this connection
        self.dropped = 0  # messages not sent: no broker, or its queue full
        self.oversized = 0  # messages not sent: over the bound

    # -- for users ----------------------------------------------------------------------------------------------------
    @property
    def is_connected(self) -> bool:
        return self._wire is not None

    @property
    def max_payload_bytes(self) -> int:
        return min(MAX_MESSAGE_BYTES, self._wire.max_payload_bytes if self._wire else MAX_MESSAGE_BYTES)

    def use(self, user: User) -> None:
        """Be told of the connection from now on; the first user starts it."""
        self._users.append(user)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())
        elif self.is_connected:
            user.on_connected()

    def release(self, user: User) -> None:
        """The last one to leave ends the connection; what was published before goes out."""
        if user in self._users:
            self._users.remove(user)
        if not self._users and self._task is not None:
            self._task.cancel()
            self._ending, self._task = (self._task, self._wire), None

    def subscribe(self, subject: str, on_message: OnMessage) -> int:
        self._last_sid += 1
        sid = self._last_sid
        self._subscriptions[sid] = subject
        self._handlers[b"%d" % sid] = on_message
        if self._wire is not None:
            self._wire.write(f"SUB {subject} {sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid: int) -> None:
        if self._subscriptions.pop(sid, None) is not None:
            del self._handlers[b"%d" % sid]
            if self._wire is not None:
                self._wire.write(b"UNSUB %d\r\n" % sid)

    def publish(self, subject: str, payload: bytes, reply: str = "") -> bool:
        """False when it was dropped: no broker, its queue is full, or the message is over the bound."""
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
        wire.write(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload))
        return True

    # -- the connection -----------------------------------------------------------------------------------------------
    async def _keep_connected(self) -> None:
        """Until cancelled: whichever server answers, again and again, never faster than the back-off."""
        loop = asyncio.get_running_loop()
        servers = self.settings.servers
        turn = int(self._chance.uniform(0, len(servers)))  # so that not all ends press on the first one named
        delay_s, delay_max_s = RECONNECT_FIRST_S, RECONNECT_MAX_S
        while True:
            server = servers[turn % len(servers)]
            turn += 1
            try:
                wire = await self._connect(server)
            except (Refused, OSError, TimeoutError) as error:
                self._say(_why_not(server, error))
                delay_max_s = REFUSED_MAX_S if isinstance(error, Refused) else RECONNECT_MAX_S
            else:
                began_s = loop.time()
                try:
                    self._say(await self._serve(server, wire))
                finally:
                    self._leave(wire)
                if loop.time() - began_s > RECONNECT_MAX_S:
                    delay_s, delay_max_s = RECONNECT_FIRST_S, RECONNECT_MAX_S
            await asyncio.sleep(delay_s * self._chance.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, delay_max_s)

    async def _connect(self, server: str) -> Wire:
        loop = asyncio.get_running_loop()
        where = urlsplit(server)
        wire, is_accepted = Wire(self._handlers, self._forbidden), False
        try:
            async with asyncio.timeout(CONNECT_MAX_S):
                await loop.create_connection(lambda: wire, where.hostname or "", where.port or DEFAULT_PORT)
                info = await wire.informed
                if self.settings.wants_tls and not (info.get("tls_required") or info.get("tls_available")):
                    raise Refused("it does not offer TLS, which nats.tls_ca or tls:// demands")
                if info.get("tls_required") or self.settings.wants_tls:
                    await wire.start_tls(self._tls, where.hostname or "")
                wire.write(b"CONNECT " + json.dumps(self._introduction()).encode() + b"\r\nPING\r\n")
                await wire.accepted
            is_accepted = True
        finally:
            if not is_accepted:
                wire.abort()
        return wire

    def _introduction(self) -> dict[str, Any]:
        settings = self.settings
        options: dict[str, Any] = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1,
                                   "headers": True, "no_responders": True, "name": settings.prefix}  # fmt: skip
        if settings.user:
            options |= {"user": settings.user, "pass": settings.password}
        return options

    async def _serve(self, server: str, wire: Wire) -> str:
        """From the first subscription until the connection ends; the sentence says why."""
        self._wire, self.trouble, self.complaint = wire, "", ""
        self._complaints.clear()
        log.info("connected to the broker", server=server)
        if wire.max_payload_bytes < MAX_MESSAGE_BYTES:
            log.info("the broker's max_payload is below the bus's bound; larger messages are dropped",
                     max_payload=wire.max_payload_bytes, bound=MAX_MESSAGE_BYTES)  # fmt: skip
        for sid, subject in self._subscriptions.items():
            wire.write(f"SUB {subject} {sid}\r\n".encode())
        for user in list(self._users):
            user.on_connected()
        wire.keep_pinging(self.settings.ping_interval_s)
        await asyncio.wait({wire.ended})  # not awaited itself: whoever cancels this would cancel it
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
    def _say(self, sentence: str) -> None:
        if sentence != self.trouble:
            log.warning("no broker", because=sentence)
        self.trouble = sentence

    def _forbidden(self, complaint: str) -> None:
        """The broker will not have something but keeps the connection: no permission, mostly."""
        user = self.settings.user or "nobody (nats.user is not set)"
        self.complaint = f"the broker says: {complaint}; it knows this end as {user}, whom its permissions must allow"
        self._complain(self.complaint)

    def _complain(self, sentence: str) -> None:
        if sentence not in self._complaints and len(self._complaints) < COMPLAINTS_MAX:
            self._complaints.add(sentence)
            log.error("bus", because=sentence)


def _wrong_server(server: str) -> list[str]:
    try:
        where = urlsplit(server)
        fits = where.scheme in {"nats", "tls"} and bool(where.hostname) and where.path in {"", "/"}
        fits = fits and (where.port is None or where.port > 0)
        (where.hostname or "").encode("idna")
    except ValueError:
        fits = False
    if not fits:
        return [f"nats.servers: {server!r} must be nats://HOST:PORT or tls://HOST:PORT"]
    if where.username or where.password:
        return ["nats.servers: user and password have keys of their own, nats.user and nats.password"]
    return []


def _why_not(server: str, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"the broker at {server} did not answer within {CONNECT_MAX_S:.0f} s"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        return (
            f"TLS with the broker at {server} failed: {reason}; see nats.tls_ca, and nats.tls_cert if it asks for one"
        )
    if isinstance(error, Refused):
        return f"the broker at {server} refused this end: {error}"
    return f"the broker at {server} cannot be reached: {error}"
