"""A connection to a RabbitMQ broker: one topic exchange, and one queue of this connection's own.

Nothing is durable: truth is in the store, and messages are hints. The queue ends with the connection; it is bounded in
number, bytes and age of its messages, and drops the oldest, so a slow end costs neither the broker nor itself memory.
The exchange is named by the prefix; subjects are its routing keys. aio-pika is not used: docs/decisions/014.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue

from droveway.config.tls import Tls, wrong_files
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.bus import broker_link
from droveway.drivers.bus.broker_link import CONNECT_MAX_S, BrokerLink, OnMessage, log
from droveway.drivers.bus.rabbitmq_wire import FRAME_MIN, RabbitWire, heartbeat_s
from droveway.drivers.clock import SystemChance
from droveway.ports.clock import Chance

DEFAULT_PORT, DEFAULT_TLS_PORT = 5672, 5671
WORD_MAX = 255  # bytes, of whatever AMQP names
PREFIX_MAX = 10  # so that the longest subject, of a host with 64 dots for a name, stays below that
QUEUE_MAX, QUEUE_MAX_BYTES, MESSAGE_MAX_AGE_MS = 50_000, 64 * 1024 * 1024, 30_000
UNACKNOWLEDGED_MAX = 500  # on their way to this end
PROPERTIES: dict[str, Any] = {
    "product": "droveway",
    "capabilities": {"authentication_failure_close": True, "connection.blocked": True, "consumer_cancel_notify": True},
}


class RabbitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker: the `[rabbitmq]` table of the configuration file. Times are seconds."""

    servers: tuple[str, ...] = ("amqp://127.0.0.1:5672",)  # amqps:// demands TLS; any one of them will do
    user: str = "guest"
    password: str = "guest"
    virtual_host: str = "/"
    makes_exchange: bool = True  # False: it is there already, and this user may not make it
    tls_ca: str = ""  # who may sign the broker's certificate; naming one demands TLS
    tls_cert: str = ""  # this end's own, where the broker asks for one
    tls_key: str = ""
    prefix: str = "droveway"  # the exchange's name: two clouds may share a virtual host
    ping_interval_s: float = 2.0  # a broker that leaves three pings unanswered is left

    def problems(self) -> list[str]:
        """Every sentence that is wrong with it; empty when it may be used."""
        problems = []
        if not self.servers:
            problems.append('rabbitmq.servers is empty; name at least one, such as ["amqp://127.0.0.1:5672"]')
        for server in self.servers:
            problems += broker_link.wrong_server("rabbitmq", "amqp", "amqps", server)
        if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{PREFIX_MAX}}}", self.prefix):
            problems.append(
                f"rabbitmq.prefix = {self.prefix!r} must be 1 to {PREFIX_MAX} letters, digits, - and _, "
                "such as droveway"
            )
        if not self.user or not self.password:
            problems.append("rabbitmq.user and rabbitmq.password must not be empty")
        if not 0 < len(self.virtual_host.encode()) <= WORD_MAX:
            problems.append(f"rabbitmq.virtual_host must be 1 to {WORD_MAX} bytes, such as /")
        if not 0 < self.ping_interval_s <= 60:
            problems.append(
                f"rabbitmq.ping_interval_s = {self.ping_interval_s} must be above 0 and at most 60 seconds, such as 2.0"
            )
        return problems + wrong_files("rabbitmq", self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def wants_tls(self) -> bool:
        return bool(self.tls_ca) or any(server.startswith("amqps://") for server in self.servers)

    def address(self, server: str) -> tuple[str, int]:
        where = urlsplit(server)
        return where.hostname or "", where.port or (DEFAULT_TLS_PORT if self.wants_tls else DEFAULT_PORT)

    def start_ok(self) -> Connection.StartOk:
        return Connection.StartOk(PROPERTIES, "PLAIN", f"\0{self.user}\0{self.password}", "en_US")

    def exchange(self) -> Exchange.Declare:
        """Without the right to make it, only that it is there is asked."""
        return Exchange.Declare(0, self.prefix, "topic", passive=not self.makes_exchange)


class RabbitLink(BrokerLink):
    """The connection of one process, or of the hosts of a simulated fleet."""

    settings: RabbitSettings
    _wire: RabbitWire | None

    def __init__(self, settings: RabbitSettings, chance: Chance) -> None:
        for wrong in settings.problems():
            raise WrongConfiguration(wrong)
        super().__init__(settings, chance)
        # Read now: a wrong file is told at the start.
        self._tls = Tls("rabbitmq", settings.tls_ca, settings.tls_cert, settings.tls_key)
        self._subscriptions: dict[int, tuple[str, OnMessage]] = {}
        self._exact: dict[bytes, list[OnMessage]] = {}
        self._open: list[tuple[bytes, OnMessage]] = []  # what stands before the first *; it may go on with any words
        self._last_sid = 0

    # -- subscriptions ------------------------------------------------------------------------------------------------
    def subscribe(self, subject: str, on_message: OnMessage) -> int:
        self._last_sid += 1
        if self._wire is not None and not self._is_bound(subject):
            self._bind(self._wire, subject)
        self._subscriptions[self._last_sid] = (subject, on_message)
        self._sort()
        return self._last_sid

    def unsubscribe(self, sid: int) -> None:
        subject, _ = self._subscriptions.pop(sid, ("", None))
        self._sort()
        if subject and self._wire is not None and not self._is_bound(subject):
            self._wire.send(1, Queue.Unbind(0, "", self.settings.prefix, subject, {}))

    def _is_bound(self, subject: str) -> bool:
        return any(subject == one for one, _ in self._subscriptions.values())

    def _bind(self, wire: RabbitWire, subject: str) -> None:
        """An empty name of a queue means the one that was declared last on the channel."""
        wire.send(1, Queue.Bind(0, "", self.settings.prefix, subject, nowait=True))

    def _sort(self) -> None:
        self._exact, self._open = {}, []
        for subject, on_message in self._subscriptions.values():
            before, star, _ = subject.encode().partition(b"*")
            if star:
                self._open.append((before, on_message))
            else:
                self._exact.setdefault(before, []).append(on_message)

    def _route(self, subject: bytes) -> Sequence[OnMessage]:
        """Whose it is. That the words after a * are as many as were asked for is the broker's care."""
        found = self._exact.get(subject)
        if found is not None:
            return found
        return [on_message for before, on_message in self._open if subject.startswith(before)]

    def publish(self, subject: str, payload: bytes, reply: str = "") -> bool:
        if len(subject) > WORD_MAX or len(reply) > WORD_MAX:
            self.oversized += 1
            self._complain(f"a message on {subject[:WORD_MAX]}... was dropped: a subject has at most {WORD_MAX} bytes")
            return False
        return super().publish(subject, payload, reply)

    # -- the connection -----------------------------------------------------------------------------------------------
    async def _connect(self, server: str) -> RabbitWire:
        loop, settings = asyncio.get_running_loop(), self.settings
        host, port = settings.address(server)
        wire, is_accepted = RabbitWire(settings.prefix, self._route, self._blocked), False
        tls: dict[str, Any] = {"ssl": self._tls.context(), "server_hostname": host} if settings.wants_tls else {}
        try:
            async with asyncio.timeout(CONNECT_MAX_S):
                await loop.create_connection(lambda: wire, host, port, **tls)
                await self._introduce(wire)
            is_accepted = True
        finally:
            if not is_accepted:
                wire.abort()
        return wire

    async def _introduce(self, wire: RabbitWire) -> None:
        settings = self.settings
        await wire.call(0, None, Connection.Start)
        tune = await wire.call(0, settings.start_ok(), Connection.Tune)
        wire.frame_max = max(min(tune.frame_max or wire.frame_max, wire.frame_max), FRAME_MIN)
        wire.send(0, Connection.TuneOk(tune.channel_max, wire.frame_max, heartbeat_s(settings.ping_interval_s)))
        await wire.call(0, Connection.Open(settings.virtual_host), Connection.OpenOk)
        wire.opened()
        await wire.call(1, Channel.Open(), Channel.OpenOk)
        await wire.call(1, settings.exchange(), Exchange.DeclareOk)
        bounds: dict[str, Any] = {
            "x-max-length": QUEUE_MAX,
            "x-max-length-bytes": QUEUE_MAX_BYTES,
            "x-overflow": "drop-head",
            "x-message-ttl": MESSAGE_MAX_AGE_MS,
        }
        await wire.call(1, Queue.Declare(0, "", exclusive=True, auto_delete=True, arguments=bounds), Queue.DeclareOk)
        await wire.call(1, Basic.Qos(0, UNACKNOWLEDGED_MAX), Basic.QosOk)

    def _begin(self, wire: broker_link.Wire) -> None:
        assert isinstance(wire, RabbitWire), "made by _connect"
        for subject in {subject: None for subject, _ in self._subscriptions.values()}:
            self._bind(wire, subject)
        wire.send(1, Basic.Consume(0, "", "", exclusive=True, nowait=False))

    def _blocked(self, reason: str) -> None:
        """A broker short of memory or disk takes nothing: no message can arrive, and no agent is the cause."""
        self.trouble = f"the broker takes no messages: {reason}" if reason else ""
        log.warning("the broker blocks publishing" if reason else "the broker accepts messages again", because=reason)

    def _why_not(self, server: str, error: Exception) -> str:
        return broker_link.why_not(server, error, "rabbitmq")


def make(settings: dict[str, Any]) -> RabbitLink:
    """The connection of a process to the broker that the configuration names."""
    return RabbitLink(msgspec.convert(settings, RabbitSettings), SystemChance())
