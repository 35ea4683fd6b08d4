"""RabbitMQ checks no topic permission for what it routes anew: dead letters and copies. Nobody listens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from pamqp import frame
from pamqp.commands import Basic, Queue
from pamqp.header import ContentHeader

from droveway.drivers.bus import beats
from droveway.drivers.bus.broker_link import BrokerLink
from droveway.drivers.bus.broker_messages import HelloFrom, encode
from droveway.drivers.bus.rabbitmq_link import RabbitLink
from droveway.drivers.bus.rabbitmq_wire import BODY, RabbitWire, framed
from droveway.ports.bus import AgentDisconnected, Beat, Hello
from tests.drivers.bus_worlds import control_of, ends, works
from tests.drivers.identity_worlds import Hostile, Identities, managed_rabbit
from tests.drivers.test_broker_identities import joined

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def own() -> Iterator[Identities]:
    with managed_rabbit() as one:
        yield one


def wire_of(link: BrokerLink) -> RabbitWire:
    assert isinstance(link, RabbitLink)
    assert link._wire is not None
    return link._wire


def say_with_copy(wire: RabbitWire, subject: str, copy: str, payload: bytes) -> None:
    properties = Basic.Properties(headers={"CC": [copy]})
    wire.write(
        frame.marshal(Basic.Publish(0, "droveway", subject), 1)
        + frame.marshal(ContentHeader(0, len(payload), properties), 1)
        + framed(BODY, 1, payload)
    )


async def echo(wire: RabbitWire, to: str) -> None:
    """A queue whose messages the broker sends on at once, under that subject."""
    arguments = {"x-dead-letter-exchange": "droveway", "x-dead-letter-routing-key": to, "x-message-ttl": 0}
    made = await wire.call(1, Queue.Declare(0, "", exclusive=True, arguments=arguments), Queue.DeclareOk)
    await wire.call(1, Queue.Bind(0, made.queue, "droveway", "droveway.agent.h2.mine"), Queue.BindOk)


async def test_a_host_cannot_speak_for_another_by_dead_letters(own: Identities) -> None:
    async with ends(own.world) as e:
        await joined(e, own, "h1")
        await joined(e, own, "h2")
        id_ = control_of(e)._agents.of("h1")["nova-compute"].id
        for subject, payload in (
            ("droveway.beat.h1", beats.encode(Beat("h1", "boot", 99))),
            ("droveway.hello.h1", encode(HelloFrom("evil", Hello("h1", "boot", "here")))),
            (f"droveway.notice.gone.h1.{id_}", encode(AgentDisconnected("h1", "it ended", in_order=True))),
        ):
            said, seen, control = len(e.heard), asyncio.Event(), control_of(e)._link
            sid = control.subscribe(subject, lambda *_, seen=seen: seen.set())  # type: ignore[misc]
            evil = Hostile(own, "h2")
            try:
                wire = wire_of(await evil.connected())
                await echo(wire, subject)
                say_with_copy(wire, "droveway.beat.h2", "droveway.agent.h2.mine", payload)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await seen.wait()
                assert e.heard[said:] == []
            finally:
                control.unsubscribe(sid)
                await evil.close()
        await works(e, "h1")
