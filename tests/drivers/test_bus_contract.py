"""The guarantees of ports/bus.py, held over the socket bus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from droveway.domain.faults import Unreachable, WrongConfiguration
from droveway.drivers.bus.socket import SocketAgentBus, SocketControlBus
from droveway.drivers.clock import SystemChance
from droveway.ports.bus import Answer, Beat, Command, Gone, Hello, Inspect, Notice, ReadConsole, Welcome

Obey = Callable[[Command], Awaitable[Answer]]


class Ends:
    """Control's end of a bus, and as many agents as a test wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = SocketControlBus(path)
        self.heard: list[Notice] = []
        self.welcomes: list[Welcome] = []
        self.tasks: list[asyncio.Task[None]] = []

    def on_notice(self, notice: Notice) -> Welcome | None:
        self.heard.append(notice)
        return Welcome(0.25) if isinstance(notice, Hello) else None

    def agent(self, host: str, obey: Obey) -> SocketAgentBus:
        bus = SocketAgentBus(self.path, SystemChance())
        hello = Hello(host, "boot", f"address of {host}")
        self.tasks.append(asyncio.create_task(bus.run(lambda: hello, self.welcomes.append, obey)))
        return bus

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    both = Ends(tmp_path / "bus.sock")
    await both.control.serve(both.on_notice)
    try:
        yield both
    finally:
        for task in both.tasks:
            task.cancel()
        await asyncio.gather(*both.tasks, return_exceptions=True)
        await both.control.close()


async def echo(command: Command) -> Answer:
    return Answer("ok", text=f"{command.instance_id} {command.generation}")


def test_command_and_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with ends(tmp_path) as e:
            e.agent("h1", echo)
            await e.until(lambda: bool(e.welcomes))
            assert e.welcomes[0].report_interval_s == 0.25
            answers = await asyncio.gather(*(e.control.command("h1", Command("i", n, Inspect()), 5) for n in range(50)))
            assert [a.text for a in answers] == [f"i {n}" for n in range(50)]

    asyncio.run(story())


def test_a_silent_agent_is_unreachable_at_the_deadline(tmp_path: Path) -> None:
    async def never(command: Command) -> Answer:
        await asyncio.sleep(60)
        return Answer("ok")

    async def story() -> None:
        async with ends(tmp_path) as e:
            with pytest.raises(Unreachable, match="not connected"):
                await e.control.command("h1", Command("i", 1, Inspect()), 1)
            e.agent("h1", never)
            await e.until(lambda: bool(e.welcomes))
            with pytest.raises(Unreachable, match="did not answer within"):
                await e.control.command("h1", Command("i", 1, Inspect()), 0.05)

    asyncio.run(story())


def test_the_end_of_a_connection_is_told_and_ends_what_waits(tmp_path: Path) -> None:
    async def never(command: Command) -> Answer:
        await asyncio.sleep(60)
        return Answer("ok")

    async def story() -> None:
        async with ends(tmp_path) as e:
            e.agent("h1", never)
            await e.until(lambda: bool(e.welcomes))
            waiting = asyncio.create_task(e.control.command("h1", Command("i", 1, Inspect()), 30))
            await asyncio.sleep(0.05)
            e.tasks[0].cancel()
            with pytest.raises(Unreachable, match="ended"):
                await waiting
            await e.until(lambda: any(isinstance(n, Gone) and n.host == "h1" for n in e.heard))

    asyncio.run(story())


def test_agents_come_back_when_control_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with ends(tmp_path) as e:
            agent = e.agent("h1", echo)
            await e.until(lambda: bool(e.welcomes))
            await e.control.close()
            agent.tell(Beat("h1", "boot", 1))  # a hint, lost
            e.control = SocketControlBus(e.path)
            await e.control.serve(e.on_notice)
            await e.until(lambda: len(e.welcomes) == 2)
            assert (await e.control.command("h1", Command("i", 7, Inspect()), 5)).text == "i 7"

    asyncio.run(story())


def test_a_second_agent_of_that_name_is_refused_with_both_addresses(tmp_path: Path) -> None:
    async def story() -> None:
        async with ends(tmp_path) as e:
            e.agent("h1", echo)
            await e.until(lambda: bool(e.welcomes))
            e.agent("h1", echo)
            await e.until(lambda: len(e.welcomes) == 2)
            assert not e.welcomes[1].accepted
            assert e.welcomes[1].sentence.count("address of h1") == 2

    asyncio.run(story())


def test_garbage_closes_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with ends(tmp_path) as e:
            e.agent("h1", echo)
            await e.until(lambda: bool(e.welcomes))
            for garbage in (b"\0\0\0\x05hello", b"\xff\xff\xff\xff", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"):
                reader, writer = await asyncio.open_unix_connection(e.path)
                writer.write(garbage)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            assert (await e.control.command("h1", Command("i", 1, Inspect()), 5)).outcome == "ok"

    asyncio.run(story())


def test_a_message_over_the_bound_is_dropped(tmp_path: Path) -> None:
    async def huge(command: Command) -> Answer:
        return Answer("ok", text="x" * 5_000_000)

    async def story() -> None:
        async with ends(tmp_path) as e:
            e.agent("h1", huge)
            await e.until(lambda: bool(e.welcomes))
            with pytest.raises(Unreachable):
                await e.control.command("h1", Command("i", 1, ReadConsole()), 0.3)

    asyncio.run(story())


def test_two_controls_do_not_share_a_socket(tmp_path: Path) -> None:
    async def story() -> None:
        async with ends(tmp_path) as e:
            with pytest.raises(WrongConfiguration, match="already listens"):
                await SocketControlBus(e.path).serve(e.on_notice)
        with pytest.raises(WrongConfiguration, match="longer than"):
            SocketControlBus(Path("/tmp") / ("x" * 200))

    asyncio.run(story())
