"""A connection that has just ended, under the loop that the program runs on: whoever still publishes on it is not hurt.
(uvloop's transports raise where asyncio's drop; an agent that beats in that moment would have ended.)"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from droveway.drivers.bus.nats_wire import NatsWire
from droveway.drivers.bus.rabbitmq_wire import RabbitWire


async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()
    await writer.wait_closed()


WIRES: dict[str, Callable[[], NatsWire | RabbitWire]] = {
    "nats": lambda: NatsWire({}, lambda _: None),
    "rabbitmq": lambda: RabbitWire("droveway", lambda _: (), lambda _: None),
}


@pytest.mark.parametrize("bus", WIRES)
@pytest.mark.parametrize("how", ["aborted", "closed"])
def test_publishing_on_a_wire_that_has_just_ended(bus: str, how: str) -> None:
    async def work() -> None:
        server = await asyncio.start_server(leave, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wire = WIRES[bus]()
        await asyncio.get_running_loop().create_connection(lambda: wire, "127.0.0.1", port)
        if how == "aborted":
            wire.abort()
        else:
            wire.close()
        for _ in range(3):
            wire.publish("droveway.beat.h1", b"beat", "")
            await asyncio.sleep(0)
        await asyncio.wait_for(wire.ended, 30)
        wire.publish("droveway.beat.h1", b"beat", "")
        server.close()
        await server.wait_closed()

    uvloop.run(work())
