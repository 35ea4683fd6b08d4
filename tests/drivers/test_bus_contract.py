"""The guarantees of ports/bus.py, held over every bus driver; NATS and RabbitMQ over real brokers.

More than 400 lines because it is one contract, which every bus keeps whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.domain.faults import Unreachable, WrongConfiguration
from droveway.domain.model import Guest, GuestState, of_instance
from droveway.domain.service_kinds import COMPUTE
from droveway.drivers.bus.decoding import decoder
from droveway.drivers.bus.socket import SocketControlBus
from droveway.ports.bus import (
    PROTOCOL_VERSION,
    AgentDisconnected,
    Beat,
    Command,
    GuestChanged,
    Hello,
    MalformedMessage,
    Notice,
    Ping,
    ReadConsole,
    Report,
    ServiceReport,
    Welcome,
    wrong_protocol,
)
from droveway.ports.replies import Answer, ConsoleText
from tests.drivers.bus_worlds import Broker, Ends, Rabbit, SocketWorld, World, broker, ends, never, ready

Story = Callable[[Ends], Awaitable[None]]


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker(tmp_path_factory.mktemp("broker") / "nats") as one:
        yield one


@pytest.fixture(scope="module")
def shared_rabbit(rabbit_that_stays: Rabbit) -> Rabbit:
    return ready(rabbit_that_stays)


@pytest.fixture(params=["socket", *(pytest.param(name, marks=pytest.mark.servers) for name in ("nats", "rabbitmq"))])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "socket":
        return SocketWorld(tmp_path / "bus.sock")
    shared: Broker | Rabbit = request.getfixturevalue("shared_broker" if request.param == "nats" else "shared_rabbit")
    return shared.world(prefix=f"t{abs(hash(request.node.name)) % 10**8}")


@contextlib.asynccontextmanager
async def told(world: World) -> AsyncIterator[Any]:
    async with ends(world) as e:
        yield e


async def test_command_and_answer(world: World) -> None:
    async with told(world) as e:
        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        assert e.welcomes[0].report_interval_s == 0.25
        answers = await asyncio.gather(
            *(e.control.command("h1", Command(of_instance("i"), n, ReadConsole()), 5) for n in range(50))
        )
        assert [a.text for a in answers] == [f"i {n}" for n in range(50)]


async def test_notices_arrive_as_they_were_told(world: World) -> None:
    guest = Guest("i", GuestState.RUNNING)
    notices: list[Notice] = [
        Beat("rack 1.h*1", "boot", 7),
        Beat("rack 1.h*1", "boot", 8, 3, ("compute", "volume"), (5, 0xFFFFFFFF), (0, 250)),
        Report("rack 1.h*1", "boot", 1, True, "", None, (guest,), True),
        GuestChanged("rack 1.h*1", "boot", guest),
        Beat("rack 1.h*1", "boot", 9, 3, ("compute",), (6,), (1,), 1_795_000_000_000_000),
        Beat("rack 1.h*1", "boot", 10, 3, ("compute",), (6,), (0xFFFF,), 1, ("its process is stopped (SIGSTOP)",)),
    ]
    async with told(world) as e:
        bus = e.agent("rack 1.h*1")  # a name may hold what means something to a driver
        bus.notify(notices[0])  # a hint, lost: nobody has let this agent in
        await e.until(lambda: bool(e.welcomes))
        for notice in notices:
            bus.notify(notice)
        await e.until(lambda: len(e.heard) == 1 + len(notices))
        assert e.heard[1:] == notices


async def test_nonsense_names_its_host_and_closes_nothing(world: World) -> None:
    async with told(world) as e:
        host = "rack 1.h*1"
        bus = e.agent(host)
        await e.until(lambda: bool(e.welcomes))
        bus.notify(Report(host, "boot", "one", True, "", None, (), True))  # type: ignore[arg-type]
        await e.until(lambda: bool(e.told(MalformedMessage, host)))
        (garbled,) = e.told(MalformedMessage, host)
        assert isinstance(garbled, MalformedMessage) and "no message (Expected `int`, got `str`" in garbled.reason
        assert (await e.control.command(host, Command(of_instance("i"), 7, ReadConsole()), 5)).text == "i 7"
        assert not e.told(AgentDisconnected, host)


async def test_a_reply_to_another_verb_names_its_host_and_is_not_believed(world: World) -> None:
    async with told(world) as e:
        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        with pytest.raises(Unreachable, match="answered Ping with ConsoleText; upgrade droveway on that host"):
            await e.control.command("h1", Command(of_instance("i"), 7, Ping()), 5)
        (garbled,) = e.told(MalformedMessage)
        assert isinstance(garbled, MalformedMessage) and "answered Ping with ConsoleText" in garbled.reason
        assert not e.told(AgentDisconnected)


async def test_a_silent_agent_is_unreachable_at_the_deadline(world: World) -> None:
    async with told(world) as e:
        with pytest.raises(Unreachable, match="not connected"):
            await e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 1)
        e.agent("h1", never)
        await e.until(lambda: bool(e.welcomes))
        with pytest.raises(Unreachable, match="did not answer within"):
            await e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 0.05)


async def test_an_agent_that_ends_is_told_and_ends_what_waits(world: World) -> None:
    async with told(world) as e:
        e.agent("h1", never)
        await e.until(lambda: bool(e.welcomes))
        waiting = asyncio.create_task(e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 30))
        await asyncio.sleep(0.05)
        e.tasks[0].cancel()
        with pytest.raises(Unreachable, match="ended"):
            await waiting
        await e.until(lambda: bool(e.told(AgentDisconnected)))
        assert e.told(AgentDisconnected) == [
            AgentDisconnected("h1", "its agent has ended in good order", in_order=True)
        ]
        assert e.control.trouble == ""


async def test_agents_come_back_when_control_does(world: World) -> None:
    async with told(world) as e:
        agent = e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        await e.control.close()
        agent.notify(Beat("h1", "boot", 1))  # a hint, lost
        e.control = e.world.control()
        await e.control.serve(e.on_notice)
        await e.until(lambda: len(e.welcomes) == 2)
        assert (await e.control.command("h1", Command(of_instance("i"), 7, ReadConsole()), 5)).text == "i 7"


async def test_a_second_agent_of_that_name_is_refused_with_both_addresses(world: World) -> None:
    async with told(world) as e:
        e.agent("h1", address="rack 1")
        await e.until(lambda: bool(e.welcomes))
        second = e.agent("h1", never, address="rack 2")
        await e.until(lambda: len(e.welcomes) >= 2)
        assert not e.welcomes[1].accepted
        assert "rack 1" in e.welcomes[1].reason
        assert "rack 2" in e.welcomes[1].reason
        second.notify(Beat("h1", "boot", 99))
        assert (
            await e.control.command("h1", Command(of_instance("i"), 3, ReadConsole()), 5)
        ).text == "i 3"  # the first one's
        assert not e.told(Beat)


SCRIPTS = "droveway-scripts"


async def test_each_service_of_a_host_is_commanded_and_ends_by_itself(world: World) -> None:
    async def theirs(command: Command) -> Answer:
        return ConsoleText("scripts")

    async with told(world) as e:
        e.agent("h1")
        other = e.agent("h1", theirs, service=SCRIPTS)
        await e.until(lambda: len(e.welcomes) == 2)
        assert all(welcome.accepted for welcome in e.welcomes)
        answers = [
            await e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 5, one)
            for one in (COMPUTE, SCRIPTS)
        ]
        assert [answer.text for answer in answers] == ["i 1", "scripts"]
        with pytest.raises(Unreachable, match="cinder-volume@fast on h1 is not connected"):
            await e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 5, "cinder-volume@fast")
        report = ServiceReport("h1", SCRIPTS, "boot", False, "1 of 1 script failed")
        other.notify(report)
        await e.until(lambda: e.told(ServiceReport) == [report])
        for number, (ended, left) in enumerate(((SCRIPTS, COMPUTE), (COMPUTE, SCRIPTS))):
            e.tasks[1 - number].cancel()
            await e.until(lambda number=number: len(e.told(AgentDisconnected)) == number + 1)
            assert e.told(AgentDisconnected)[-1] == AgentDisconnected(
                "h1", "its agent has ended in good order", in_order=True, service=ended
            )
            if left == COMPUTE:
                assert (
                    await e.control.command("h1", Command(of_instance("i"), 2, ReadConsole()), 5, left)
                ).text == "i 2"
            with pytest.raises(Unreachable):
                await e.control.command("h1", Command(of_instance("i"), 2, ReadConsole()), 1, ended)


async def test_a_second_process_of_one_service_is_refused_and_names_it(world: World) -> None:
    async with told(world) as e:
        e.agent("h1")
        e.agent("h1", service=SCRIPTS, address="pid 1")
        await e.until(lambda: len(e.welcomes) == 2)
        e.agent("h1", never, service=SCRIPTS, address="pid 2")
        await e.until(lambda: not e.welcomes[-1].accepted)
        assert e.welcomes[-1].reason == (
            f"{SCRIPTS} on host h1 is taken by the agent at pid 1; the one at pid 2 is refused: stop one of them or "
            "give it another name"
        )
        assert (
            await e.control.command("h1", Command(of_instance("i"), 3, ReadConsole()), 5, SCRIPTS)
        ).text == "i 3"  # the first one's


@pytest.mark.parametrize(
    "notice",
    [
        ServiceReport("h1", COMPUTE, "boot", True, "well"),
        Report("h1", "boot", 1, True, "", None, (), True),
        GuestChanged("h1", "boot", Guest("i", GuestState.ABSENT)),
        AgentDisconnected("h1", "it ended", in_order=True),
    ],
)
async def test_a_service_speaks_for_itself_alone(world: World, notice: Notice) -> None:
    async with told(world) as e:
        e.agent("h1")
        other = e.agent("h1", service=SCRIPTS)
        await e.until(lambda: len(e.welcomes) == 2)
        other.notify(notice)
        await e.until(lambda: bool(e.told(MalformedMessage)))
        (garbled,) = e.told(MalformedMessage)
        assert garbled == MalformedMessage(
            "h1", "its agent spoke in the name of host h1; nothing of that counts", SCRIPTS
        )
        assert not e.told(type(notice))
        for service in (COMPUTE, SCRIPTS):
            assert (
                await e.control.command("h1", Command(of_instance("i"), 4, ReadConsole()), 5, service)
            ).text == "i 4"


async def test_a_restarted_agent_is_let_in(world: World) -> None:
    async with told(world) as e:
        for number in range(3):
            e.agent("h1")
            await e.until(lambda number=number: len(e.welcomes) == number + 1)
            assert e.welcomes[-1].accepted
            assert (
                await e.control.command("h1", Command(of_instance("i"), number, ReadConsole()), 5)
            ).text == f"i {number}"
            e.tasks[-1].cancel()
            await asyncio.wait({e.tasks[-1]})


async def test_the_one_refused_is_let_in_when_the_first_has_gone(world: World) -> None:
    async with told(world) as e:
        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        e.agent("h1", address="second")
        await e.until(lambda: len(e.welcomes) == 2)
        e.tasks[0].cancel()
        await e.until(lambda: e.welcomes[-1].accepted and len(e.welcomes) > 2)
        last = e.told(Hello)[-1]
        assert isinstance(last, Hello)
        assert last.address == "second"


async def test_the_one_refused_is_let_in_by_the_next_control(world: World) -> None:
    async with told(world) as e:
        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        e.agent("h1", address="second")
        await e.until(lambda: len(e.welcomes) == 2)
        await e.control.close()
        e.tasks[0].cancel()
        e.control = e.world.control()
        await e.control.serve(e.on_notice)
        await e.until(lambda: e.welcomes[-1].accepted)


def test_an_agent_of_the_release_before_is_read_and_refused() -> None:
    """Its hello names no service, and is a hello all the same: it is told what to upgrade."""
    said = {"type": "hello", "host": "h1", "boot_id": "boot", "address": "a", "protocol": 2}
    hello = decoder(Hello)(msgspec.msgpack.encode(said))
    assert (hello.service, hello.host) == (COMPUTE, "h1")
    reason = "its agent speaks protocol 2, control 3: upgrade droveway on that host"
    assert (PROTOCOL_VERSION, wrong_protocol(hello.protocol)) == (3, reason)
    welcome = msgspec.msgpack.decode(msgspec.msgpack.encode(Welcome(1.0, accepted=False, reason=reason)))
    assert (welcome["accepted"], welcome["sentence"]) == (False, reason)  # as that release reads it


async def test_another_protocol_is_refused_with_a_reason(world: World) -> None:
    async with told(world) as e:
        bus = e.world.agent()
        e.buses.append(bus)
        hello = Hello("h1", "boot", "a", protocol=99)
        e.tasks.append(asyncio.create_task(bus.run(lambda: hello, e.welcomes.append, never)))
        await e.until(lambda: bool(e.welcomes))
        assert not e.welcomes[0].accepted
        assert "protocol 99" in e.welcomes[0].reason and e.welcomes[0].reason.endswith("upgrade control")


@pytest.mark.parametrize("spoken", [0, PROTOCOL_VERSION - 1])  # the release before knows no subjects
async def test_an_agent_older_than_control_is_told_both_versions_and_what_to_upgrade(spoken: int, world: World) -> None:
    async with told(world) as e:
        bus = e.world.agent()
        e.buses.append(bus)
        hello = Hello("h1", "boot", "a", protocol=spoken)
        e.tasks.append(asyncio.create_task(bus.run(lambda: hello, e.welcomes.append, never)))
        await e.until(lambda: bool(e.welcomes))
        assert (e.welcomes[0].accepted, e.welcomes[0].reason) == (
            False,
            f"its agent speaks protocol {spoken}, control {PROTOCOL_VERSION}: upgrade droveway on that host",
        )


async def test_whoever_is_told_to_come_back_later_does_not_knock_again_before(world: World) -> None:
    both = Ends(world)
    await both.control.serve(lambda _: Welcome(1.0, accepted=False, reason="too old", retry_after_s=60.0))
    both.agent("h1")
    await both.until(lambda: bool(both.welcomes))
    await asyncio.sleep(2.5)
    assert len(both.welcomes) <= 2  # the second one was under way
    await both.close()


async def test_control_may_refuse(world: World) -> None:
    both = Ends(world)
    await both.control.serve(lambda _: Welcome(1.0, accepted=False, reason="the house is full"))
    both.agent("h1")
    await both.until(lambda: bool(both.welcomes))
    assert both.welcomes[0].reason == "the house is full"
    await both.close()


async def test_a_message_over_the_bound_is_dropped(world: World) -> None:
    async def huge(command: Command) -> Answer:
        return ConsoleText("x" * 5_000_000)

    async with told(world) as e:
        e.agent("h1", huge)
        await e.until(lambda: bool(e.welcomes))
        with pytest.raises(Unreachable):
            await e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 0.3)


# -- what only the socket bus has -------------------------------------------------------------------------------------
async def test_garbage_closes_the_connection_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    async with told(SocketWorld(path)) as e:
        e.agent("h1")
        await e.until(lambda: bool(e.welcomes))
        for garbage in (b"\0\0\0\x05hello", b"\xff\xff\xff\xff", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(garbage)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert (await e.control.command("h1", Command(of_instance("i"), 1, ReadConsole()), 5)).text == "i 1"


async def test_two_controls_do_not_share_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    async with told(SocketWorld(path)) as e:
        with pytest.raises(WrongConfiguration, match="already listens"):
            await SocketControlBus(path).serve(e.on_notice)
    with pytest.raises(WrongConfiguration, match="longer than"):
        SocketControlBus(Path("/tmp") / ("x" * 200))


async def test_what_control_sends_itself_comes_back(world: World) -> None:
    async with told(world) as e:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Unreachable):  # no connection to the broker has been made yet
                    await e.control.echo(1.0)
                    break
        await asyncio.gather(*(e.control.echo(2.0) for _ in range(50)))
        assert e.heard == []


async def test_the_echo_of_a_socket_that_is_another_programs_does_not_come_back(tmp_path: Path) -> None:
    async with told(SocketWorld(tmp_path / "bus.sock")) as e:
        await e.control.echo(1.0)
        (tmp_path / "bus.sock").unlink()
        with pytest.raises(Unreachable, match=r"no connection can be made to .*bus.sock: No such file"):
            await e.control.echo(1.0)
        accepted: list[asyncio.StreamWriter] = []
        other = await asyncio.start_unix_server(lambda _, writer: accepted.append(writer), tmp_path / "bus.sock")
        with pytest.raises(Unreachable, match=r"bus\.sock does not answer within 0\.1 s, or is another program's"):
            await e.control.echo(0.1)
        for writer in accepted:
            writer.close()
        other.close()
