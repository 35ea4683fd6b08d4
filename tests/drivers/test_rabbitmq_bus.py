"""What a RabbitMQ broker brings beside what every broker does: its troubles, strangers on it, several controls."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pamqp import commands
from structlog.testing import capture_logs

from droveway.domain.faults import Unreachable
from droveway.domain.model import of_instance
from droveway.drivers.bus import beats
from droveway.drivers.bus.broker_link import WRITE_BUFFER_MAX
from droveway.ports.bus import AgentDisconnected, Beat, Command, Hello, ReadConsole
from droveway.ports.replies import ConsoleText
from tests.drivers.bus_worlds import Rabbit, Stranger, control_of, ends, filled, never, prefix, rabbit, ready
from tests.drivers.test_nats_bus import works

pytestmark = pytest.mark.servers
ASK = Command(of_instance("i"), 1, ReadConsole())
BACK_S = 6.0


@pytest.fixture
def shared(rabbit_that_stays: Rabbit) -> Rabbit:
    return ready(rabbit_that_stays)


# -- the broker's troubles --------------------------------------------------------------------------------------------
def restarted(end: Callable[[Rabbit], None]) -> Callable[[Rabbit], Coroutine[Any, Any, None]]:
    async def story(one: Rabbit) -> None:
        async with ends(one.world(prefix=prefix("restarted"))) as e:
            e.agent("slow", never)
            e.agent("h1")
            await e.until(lambda: len(e.told(Hello, "slow")) > 0 and len(e.told(Hello)) > 0)
            waiting = [asyncio.create_task(e.control.command("slow", ASK, 60)) for _ in range(20)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(end, one)
            began = time.monotonic()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert time.monotonic() - began < 2
            assert all(isinstance(one, Unreachable) and "ended" in one.reason for one in ended)
            with pytest.raises(Unreachable, match=r"not connected: .*broker"):
                await e.control.command("h1", ASK, 60)
            one.start(wait=False)  # not in a thread of this loop: with that it would end
            await asyncio.to_thread(one.node.wait)
            began = time.monotonic()
            await works(e)
            assert time.monotonic() - began < 3
            assert not e.told(AgentDisconnected, "h1")  # the end of a broker says nothing about agents

    return story


async def test_broker_stopped_and_killed_under_commands_in_flight(shared: Rabbit) -> None:
    await restarted(Rabbit.stop)(shared)
    await restarted(Rabbit.kill)(shared)


async def test_broker_away_at_the_start() -> None:
    with rabbit(started=False) as one, capture_logs() as logs:
        async with ends(one.world()) as e:
            e.agent("h1")
            await asyncio.sleep(0.5)
            assert "cannot be reached" in control_of(e).trouble
            assert one.url in control_of(e).trouble
            with pytest.raises(Unreachable, match="cannot be reached"):
                await e.control.command("h1", ASK, 60)
            assert len(logs) == 2  # each end says it once, however often it tries
            await asyncio.to_thread(one.start)
            await works(e)
            assert control_of(e).trouble == ""


async def test_a_frozen_broker_is_left_for_another_and_what_is_unsent_is_bounded(shared: Rabbit) -> None:
    one = shared
    with rabbit() as two:
        world = one.world(servers=(one.url, two.url), prefix=prefix("frozen"))
        async with ends(world) as e:
            link = world.link()
            agent = e.agent("h1", bus=world.agent(link))
            one.freeze()  # whoever is on it, or comes to it, waits
            await e.until(lambda: bool(e.welcomes), 20)
            two.freeze()
            one.thaw()
            report = filled(100_000)
            for _ in range(500):
                agent.notify(report)
            assert link.dropped > 100
            assert link._wire is not None
            assert link._wire.unsent_bytes() <= WRITE_BUFFER_MAX + 200_000
            began = time.monotonic()
            await works(e)
            assert time.monotonic() - began < BACK_S
            two.thaw()


async def test_closing_ends_though_the_broker_is_frozen(shared: Rabbit) -> None:
    async with ends(shared.world(ping_interval_s=10.0, prefix=prefix("closing"))) as e:
        agent = e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        shared.freeze()
        report = filled(100_000)
        for _ in range(100):
            agent.notify(report)
        began = time.monotonic()
        await e.close()
        assert time.monotonic() - began < 6
    shared.thaw()


async def test_a_connection_that_is_cut_is_made_again(shared: Rabbit) -> None:
    world = shared.world(prefix=prefix("cut"))
    async with ends(world) as e:
        link = world.link()
        e.agent("h1", bus=world.agent(link))
        await e.until(lambda: bool(e.welcomes))
        for cut in (control_of(e)._link, link):
            assert cut._wire is not None
            cut._wire.abort()
            await e.until(lambda cut=cut: not cut.is_connected)
            await works(e)
        assert not e.told(AgentDisconnected)


async def test_a_broker_short_of_memory_takes_nothing_and_nobody_is_blamed() -> None:
    with rabbit("vm_memory_high_watermark.absolute = 1MB") as one:
        async with ends(one.world()) as e:
            e.agent("h1")
            await e.until(lambda: "takes no messages: low on memory" in control_of(e).trouble)
            await asyncio.sleep(3)  # longer than three pings
            assert "takes no messages" in control_of(e).trouble
            assert control_of(e)._link.is_connected


# -- strangers and several --------------------------------------------------------------------------------------------
async def test_a_flood_of_garbage_harms_nothing(shared: Rabbit) -> None:
    p = prefix("garbage")
    with capture_logs() as logs:
        async with ends(shared.world(prefix=p)) as e, Stranger(shared, p) as stranger:
            agent = e.agent("h1")
            await e.until(lambda: bool(e.welcomes))
            good = beats.encode(Beat("h1", "boot", 1, 1, ("a",), (1,), (1,)))
            junk = [
                b"",
                b"x",
                b"\xb1" * 40,
                good[:-1],
                good + b"two\0notes",
                b"\xb1\xff\xff\xff",
                good.replace(b"h1", b"\xff\xff"),
            ]
            for sent in range(500, 3_501, 500):  # what is not read for 30 s is dropped
                for one in (junk * 72)[:500]:
                    await stranger.say(f"{p}.beat.h1", one)
                await e.until(lambda sent=sent: control_of(e).garbage >= sent, 120)  # type: ignore[misc]
            for one in junk:
                for subject in (
                    "hello",
                    "notice.report.h1.x",
                    "notice.gone.h1.x",
                    "ask",
                    "agent.h1.x",
                    "beat.other",
                    "notice.h1",
                    "answer.x.y",
                    "beat",
                    "beat.a.b",
                ):
                    await stranger.say(f"{p}.{subject}", one)
            for number in range(1500):  # whole beats, of hosts that nobody knows
                await stranger.say(f"{p}.beat.n{number}", beats.encode(Beat(f"n{number}", "boot", 1)))
            await stranger.say(f"{p}.beat.h2", good)  # under another's subject
            await stranger.say(f"{p}.beat.h1", beats.encode(Beat("h1", "an older boot", 1)))
            await e.until(lambda: control_of(e).garbage >= 3_500 and control_of(e).foreign_beats == 2, 120)
            agent.notify(Beat("h1", "boot", 5))
            await works(e)
            # The one of another boot, too: the judge decides.
            assert e.told(Beat) == [Beat("h1", "an older boot", 1), Beat("h1", "boot", 5)]
            assert len(control_of(e)._reader._known) <= 1
    assert len([line for line in logs if "no message" in line["event"]]) <= 2


async def test_what_a_stranger_says_with_more_properties(shared: Rabbit) -> None:
    p = prefix("properties")
    async with ends(shared.world(prefix=p)) as e, Stranger(shared, p) as stranger:
        from pamqp import body, frame, header

        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        wire = stranger.link._wire
        assert wire is not None
        for counter, headers in ((2, {"a": 1}), (3, None)):  # with headers: see test_dead_letters.py
            payload = beats.encode(Beat("h1", "boot", counter))
            properties = commands.Basic.Properties("text", headers=headers, reply_to="somebody", message_id="7")
            wire.write(
                frame.marshal(commands.Basic.Publish(0, p, f"{p}.beat.h1"), 1)
                + frame.marshal(header.ContentHeader(0, len(payload), properties), 1)
                + frame.marshal(body.ContentBody(payload[:9]), 1)
                + frame.marshal(body.ContentBody(payload[9:]), 1)
            )
        await e.until(lambda: e.told(Beat) == [Beat("h1", "boot", 3)])


async def test_two_controls_hear_and_command(shared: Rabbit) -> None:
    world = shared.world(prefix=prefix("two"))
    async with ends(world) as one, ends(world) as two:
        agent = one.agent("h1")
        await one.until(lambda: bool(one.told(Hello)) and bool(two.told(Hello)))
        await one.until(lambda: bool(one.welcomes))  # before it was let in it tells nothing
        agent.notify(Beat("h1", "boot", 4))
        for e in (one, two):
            assert isinstance(await e.control.command("h1", ASK, 5), ConsoleText)
            await e.until(lambda e=e: bool(e.told(Beat)))
        one.agent("h1", address="second")
        await one.until(lambda: sum(not welcome.accepted for welcome in one.welcomes) >= 2)
        assert {hello.address for e in (one, two) for hello in e.told(Hello)} == {"address of h1"}
        await two.control.close()
        assert isinstance(await one.control.command("h1", ASK, 5), ConsoleText)


async def test_many_hosts_share_a_connection(shared: Rabbit) -> None:
    world = shared.world(prefix=prefix("many"))
    async with ends(world) as e:
        link = world.link()
        for number in range(20):
            e.agent(f"h{number}", bus=world.agent(link))
        await e.until(lambda: len({one.host for one in e.heard if isinstance(one, Hello)}) == 20)
        await e.control.command("h3", ASK, 5)  # whoever obeys has its welcome behind it
        e.tasks[3].cancel()
        await e.until(lambda: bool(e.told(AgentDisconnected, "h3")))
        answers = await asyncio.gather(*(e.control.command(f"h{n}", ASK, 5) for n in range(20) if n != 3))
        assert len(answers) == 19


AGENT = """
import asyncio, sys
from droveway.drivers.bus.broker_agent import BrokerAgentBus
from droveway.drivers.bus.rabbitmq_link import RabbitLink, RabbitSettings
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import Hello
async def never(command):
    await asyncio.sleep(60)
settings = RabbitSettings((sys.argv[1],), prefix=sys.argv[2])
bus = BrokerAgentBus(RabbitLink(settings, SystemChance()), SystemChance(), SystemNames())
asyncio.run(bus.run(lambda: Hello("h1", "boot", "a process"), print, never))
"""


async def test_a_killed_agent_ends_its_commands_and_leaves_its_name(shared: Rabbit) -> None:
    process = subprocess.Popen([sys.executable, "-c", AGENT, shared.url, "killed"], stdout=subprocess.DEVNULL)
    try:
        async with ends(shared.world(prefix="killed")) as e:
            await e.until(lambda: bool(e.heard))
            waiting = asyncio.create_task(e.control.command("h1", ASK, 60))
            await asyncio.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(Unreachable, match="its process has ended"):
                await waiting
            assert time.monotonic() - began < 3
            e.agent("h1")
            await e.until(lambda: bool(e.welcomes))
            assert e.welcomes[0].accepted
            await works(e)
    finally:
        process.kill()
        process.wait(30)
