"""Real brokers where every host is somebody of its own, made as joining makes it; and one that all hosts share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from droveway.config.file import AgentsNatsConfig, AgentsRabbitmqConfig
from droveway.domain.broker_rights import ANY_HOST, publish_subjects, rabbitmq, subscribe_subjects
from droveway.drivers.bus.broker_link import BrokerLink
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.process import identities
from lab.servers import free_ports
from tests.drivers.bus_worlds import Broker, NatsWorld, Rabbit, RabbitWorld, broker, rabbit

CONTROL, PASSWORD, PREFIX = "control", "of-control", "droveway"


class Identities:
    """`world` makes control's end; `settings` are what is different for a host, as its join hands it out."""

    def __init__(self, world: NatsWorld | RabbitWorld, identify: identities.Identify) -> None:
        self.world, self._identify = world, identify
        self._known: dict[str, dict[str, Any]] = {}
        self.server: Broker | None = None  # of NATS

    async def settings(self, host: str) -> dict[str, Any]:
        if host not in self._known:
            made = await self._identify(host)
            assert not made.commands, made.note
            self._known[host] = dict(made.settings)
        return self._known[host]

    def forget(self, host: str) -> None:
        """It joins anew."""
        del self._known[host]

    async def link(self, host: str) -> BrokerLink:
        return self.world.link(**await self.settings(host))


# -- NATS -------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def signed_nats(directory: Path) -> Iterator[Identities]:
    directory.mkdir()
    keys = directory / "keys"
    identities.make_nats_keys(keys, PREFIX, SystemClock(), SystemNames())
    part = tomllib.loads((keys / "control-part.toml").read_text())
    with broker(directory / "nats", "-c", str(keys / "nats-identities.conf")) as one:
        identify = identities.nats(AgentsNatsConfig(**part["agents"]["nats"]), PREFIX, SystemClock())
        made = Identities(one.world(**part["nats"]), identify)
        made.server = one
        yield made


@contextlib.contextmanager
def shared_nats(directory: Path) -> Iterator[Identities]:
    directory.mkdir()
    conf = directory / "nats.conf"
    conf.write_text(
        f'authorization {{ users = [ {{ user = "{CONTROL}", password = "{PASSWORD}" }}, {{ user = "agents", '
        f'password = "{PASSWORD}", permissions = {{ publish = {json.dumps(publish_subjects(PREFIX, ANY_HOST))}, '
        f"subscribe = {json.dumps(subscribe_subjects(PREFIX, ANY_HOST))} }} }} ] }}\n"
    )
    with broker(directory / "nats", "-c", str(conf)) as one:
        yield _shared(one)


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def managed_rabbit() -> Iterator[Identities]:
    (port,) = free_ports(1)
    settings = f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n"
    with rabbit(settings, started=False) as one:
        (one.directory / "plugins").write_text("[rabbitmq_management].\n")
        one.node.define({CONTROL: PASSWORD}, {CONTROL: (".*",) * 3})
        defined = one.directory / "definitions.json"
        told = json.loads(defined.read_text())
        told["users"][0]["tags"] = "administrator"
        defined.write_text(json.dumps(told))
        one.start()
        theirs = AgentsRabbitmqConfig(
            management_url=f"http://127.0.0.1:{port}", management_user=CONTROL, management_password=PASSWORD
        )
        world = one.world(user=CONTROL, password=PASSWORD)
        yield Identities(world, identities.rabbitmq(theirs, PREFIX, "/", SystemNames()))


@contextlib.contextmanager
def shared_rabbit() -> Iterator[Identities]:
    with rabbit(started=False) as one:
        rights = rabbitmq(PREFIX, "[^.]+")
        one.node.define(
            {CONTROL: PASSWORD, "agents": PASSWORD},
            {CONTROL: (".*",) * 3, "agents": (rights.configure, rights.write, rights.read)},
            {"agents": (PREFIX, rights.topic_write, rights.topic_read)},
        )
        one.start()
        yield _shared(one)


def _shared(one: Broker | Rabbit) -> Identities:
    async def identify(host: str) -> identities.Identity:
        makes = {"makes_exchange": False} if isinstance(one, Rabbit) else {}
        return identities.Identity({"user": "agents", "password": PASSWORD, **makes})

    return Identities(one.world(user=CONTROL, password=PASSWORD), identify)


# -- somebody hostile -------------------------------------------------------------------------------------------------
class Hostile:
    """On the broker as that host, and says and hears what it likes; each attempt on a connection of its own, because a
    broker may end one for it."""

    def __init__(self, of: Identities, host: str) -> None:
        self._of, self._host = of, host
        self.heard: list[tuple[bytes, bytes, bytes | None]] = []
        self._links: list[BrokerLink] = []

    async def connected(self) -> BrokerLink:
        link = await self._of.link(self._host)
        self._links.append(link)
        link.use(self)
        async with asyncio.timeout(30):
            while not link.is_connected:
                await asyncio.sleep(0.01)
        return link

    async def is_forbidden(self, link: BrokerLink) -> bool:
        """What was asked last was refused by the broker; False when a message to itself comes back first."""
        async with asyncio.timeout(30):
            while link.is_connected and not link.complaint:
                await asyncio.sleep(0.01)
        return True

    async def may_not_say(self, subject: str, payload: bytes) -> None:
        link = await self.connected()
        assert link.publish(subject, payload)
        assert await self.is_forbidden(link)
        await self._end(link)

    async def may_not_hear(self, subject: str) -> None:
        link = await self.connected()
        link.subscribe(subject, lambda *message: self.heard.append(message))
        assert await self.is_forbidden(link)
        await self._end(link)

    async def _end(self, link: BrokerLink) -> None:
        self._links.remove(link)
        link.release(self)
        await link.closed()

    async def close(self) -> None:
        for link in list(self._links):
            await self._end(link)

    def on_connected(self) -> None: ...
    def on_lost(self, reason: str) -> None: ...
