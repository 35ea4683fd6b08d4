"""A connection to a NATS broker: publish, subscribe, and nothing else of NATS.

nats-py is not used, for two measured reasons (docs/decisions/011): cut off with data unsent it waits in its own close
and never tries another server, and its publish waits where a bus must drop.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from droveway.config.tls import Tls, wrong_files
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.bus import broker_link
from droveway.drivers.bus.broker_link import CONNECT_MAX_S, BrokerLink, OnMessage, Refused
from droveway.drivers.bus.nats_wire import NatsWire
from droveway.drivers.clock import SystemChance
from droveway.ports.clock import Chance

DEFAULT_PORT = 4222


class NatsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker: the `[nats]` table of the configuration file. Times are seconds."""

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)  # tls:// demands TLS; any one of them will do
    user: str = ""
    password: str = ""
    jwt: str = ""  # instead of user and password: a bearer token that the broker's account has signed
    tls_ca: str = ""  # who may sign the broker's certificate; naming one demands TLS
    tls_cert: str = ""  # this end's own, where the broker asks for one
    tls_key: str = ""
    prefix: str = "droveway"  # of every subject: two clouds may share a broker
    ping_interval_s: float = 2.0  # a broker that leaves three pings unanswered is left

    def problems(self) -> list[str]:
        """Every sentence that is wrong with it; empty when it may be used."""
        problems = []
        if not self.servers:
            problems.append('nats.servers is empty; name at least one, such as ["nats://127.0.0.1:4222"]')
        for server in self.servers:
            problems += broker_link.wrong_server("nats", "nats", "tls", server)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.prefix):
            problems.append(f"nats.prefix = {self.prefix!r} must be letters, digits, - and _, such as droveway")
        if bool(self.user) != bool(self.password):
            problems.append("nats.user and nats.password go together; one of them is missing")
        if self.jwt and self.user:
            problems.append("nats.jwt and nats.user exclude each other; this end has one identity")
        if not re.fullmatch(r"[A-Za-z0-9_.=-]*", self.jwt):
            problems.append("nats.jwt must be three texts of letters, digits, - and _ with dots between them")
        if self.ping_interval_s <= 0:
            problems.append(f"nats.ping_interval_s = {self.ping_interval_s} must be above 0 seconds, such as 2.0")
        return problems + wrong_files("nats", self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def identity(self) -> dict[str, str]:
        """What an introduction says of who this end is."""
        if self.jwt:
            return {"jwt": self.jwt}
        return {"user": self.user, "pass": self.password} if self.user else {}

    @property
    def wants_tls(self) -> bool:
        return bool(self.tls_ca) or any(server.startswith("tls://") for server in self.servers)


class NatsLink(BrokerLink):
    """The connection of one process, or of the hosts of a simulated fleet."""

    settings: NatsSettings
    _wire: NatsWire | None

    def __init__(self, settings: NatsSettings, chance: Chance) -> None:
        for wrong in settings.problems():
            raise WrongConfiguration(wrong)
        super().__init__(settings, chance)
        # Read now: a wrong file is told at the start.
        self._tls = Tls("nats", settings.tls_ca, settings.tls_cert, settings.tls_key)
        self._subscriptions: dict[int, str] = {}
        self._handlers: dict[bytes, OnMessage] = {}
        self._last_sid = 0

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

    def _begin(self, wire: broker_link.Wire) -> None:
        assert isinstance(wire, NatsWire), "made by _connect"
        for sid, subject in self._subscriptions.items():
            wire.write(f"SUB {subject} {sid}\r\n".encode())

    async def _connect(self, server: str) -> NatsWire:
        loop = asyncio.get_running_loop()
        where = urlsplit(server)
        wire, is_accepted = NatsWire(self._handlers, self._forbidden), False
        try:
            async with asyncio.timeout(CONNECT_MAX_S):
                await loop.create_connection(lambda: wire, where.hostname or "", where.port or DEFAULT_PORT)
                info = await wire.informed
                if self.settings.wants_tls and not (info.get("tls_required") or info.get("tls_available")):
                    raise Refused("it does not offer TLS, which nats.tls_ca or tls:// demands")
                if info.get("tls_required") or self.settings.wants_tls:
                    await wire.start_tls(self._tls.context(), where.hostname or "")
                wire.write(b"CONNECT " + json.dumps(self._introduction()).encode() + b"\r\nPING\r\n")
                await wire.accepted
            is_accepted = True
        finally:
            if not is_accepted:
                wire.abort()
        return wire

    def _introduction(self) -> dict[str, Any]:
        settings = self.settings
        options: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "lang": "python",
            "version": "1",
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            "name": settings.prefix,
        }
        return options | settings.identity

    def _why_not(self, server: str, error: Exception) -> str:
        return broker_link.why_not(server, error, "nats")

    def _forbidden(self, complaint: str) -> None:
        """The broker will not have something but keeps the connection: no permission, mostly."""
        user = self.settings.user or (
            "the bearer of nats.jwt" if self.settings.jwt else "no user (nats.user is not set)"
        )
        self.complaint = f"the broker says: {complaint}; it knows this end as {user}, whom its permissions must allow"
        self._complain(self.complaint)


def make(settings: dict[str, Any]) -> NatsLink:
    """The connection of a process to the broker that the configuration names."""
    return NatsLink(msgspec.convert(settings, NatsSettings), SystemChance())
