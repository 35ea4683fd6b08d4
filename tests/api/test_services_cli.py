"""`droveway service …` as an operator types it, against an API that is really served."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from droveway.domain.liveness import State
from droveway.store.fleet import services
from lab.nodes import free_ports
from lab.processes import wait_for
from tests import droveway_process
from tests.api.world import PASSWORD, World

SOON_S = 60.0
START = [sys.executable, "-m", "droveway.main"]
CLOUDS = """clouds:
  droveway:
    auth:
      auth_url: http://127.0.0.1:{port}/identity/v3
      username: admin
      password: {password}
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
"""


async def why(host: str, binary: str) -> dict[str, Any]:
    verdict = {
        "host": host,
        "binary": binary,
        "state": "host gone",
        "word": "down",
        "since_us": 1_000_000,
        "reason": "nobody reaches it",
    }
    evidence = [
        {"about": "beat", "reason": "none for 4 s", "is_bad": True},
        {"about": "clock", "reason": "12 ms ahead", "is_bad": False},
    ]
    return {"verdict": verdict, "evidence": evidence, "advice": ["look at its power"]}


class Served:
    """A world behind a port, in a thread of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self._starts = home, 0
        (self.port,) = free_ports(1)
        (home / "clouds.yaml").write_text(CLOUDS.format(port=self.port, password=PASSWORD))
        self.start()

    def make_world(self, directory: Path) -> World:
        return World(directory)

    def start(self) -> None:
        self._starts += 1
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(SOON_S)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.world = self.make_world(self.home / f"world-{self._starts}")
        await self.world.seed()
        self.world.control.why = why
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.world.app, port=self.port, lifespan="off", log_level="critical", timeout_graceful_shutdown=2
            )
        )
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        await self.world.close()

    def stop(self) -> None:
        def end() -> None:
            self._server.should_exit = True
            self.world.api.streams.end()

        self.loop.call_soon_threadsafe(end)
        self._thread.join(SOON_S)
        assert not self._thread.is_alive()

    def becomes(self, state: State, host: str = "h1") -> None:
        verdict = services.Verdict(host, "nova-compute", state, f"it is {state}", 1_700_000_000_000_000)
        written = asyncio.run_coroutine_threadsafe(self.world.store.run(services.record_verdicts, [verdict]), self.loop)
        written.result(SOON_S)

    def command(self, *words: str) -> list[str]:
        return [*START, "service", *words]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"OS_CLIENT_CONFIG_FILE": str(self.home / "clouds.yaml"), "OS_CLOUD": "droveway"}

    def says(self, *words: str) -> tuple[int, list[str]]:
        """The exit code, and what is printed."""
        program = self.command(*words)
        assert program[:3] == START, f"{program} is another program"
        code, out, err = droveway_process.of_this_process().run(program[len(START) :], self.environment)
        return code, [line.rstrip() for line in (out + err).splitlines()]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.stop()


def words(line: str) -> list[str]:
    return line.split()


def test_the_list_has_the_columns_people_know(served: Served) -> None:
    served.becomes(State.HUNG, "h2")
    code, lines = served.says("list")
    assert code == 0
    assert words(lines[0]) == ["Binary", "Host", "Zone", "Status", "State", "Updated_At"]
    assert [words(line)[:5] for line in lines[1:]] == [
        ["nova-compute", "h1", "nova", "enabled", ":-)"],
        ["nova-compute", "h2", "nova", "enabled", "XXX"],
    ]
    assert len(served.says("list", "--host", "h2")[1]) == 2
    assert len(served.says("list", "--host", "h2", "--service", "nova-scheduler")[1]) == 1
    wide = served.says("list", "--wide", "--host", "h2")[1]
    assert wide[0].split("Updated_At")[1].split() == ["Is", "Since", "Because", "Disabled", "Reason"]
    assert wide[1].endswith("hung  2023-11-14 22:13:20  it is hung  -")


def test_what_a_host_is_called_cannot_reach_the_terminal(served: Served) -> None:
    evil = "h\x1b[2J\n3"
    made = asyncio.run_coroutine_threadsafe(
        served.world.store.run(services.register, evil, "nova-compute", "nova"), served.loop
    )
    made.result(SOON_S)
    lines = served.says("list")[1]
    assert len(lines) == 4
    assert "h\\x1b[2J\\n3" in lines[3]


def test_why_says_what_speaks_for_it_and_what_to_do(served: Served) -> None:
    assert served.says("why", "h1", "nova-compute") == (
        0,
        [
            "XXX nova-compute on h1 is down (host gone) since 1970-01-01 00:00:01: nobody reaches it",
            "  ! beat   none for 4 s",
            "    clock  12 ms ahead",
            "do: look at its power",
        ],
    )
    code, lines = served.says("why", "b?c d%2e")
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("Error: There is no service on a host named b?c d%2e;")


def _watch(served: Served, said: Path) -> subprocess.Popen[bytes]:
    with said.open("wb") as out:
        return subprocess.Popen(served.command("watch"), env=served.environment, stdout=out, stderr=out)


def _comes(said: Path, reason: str) -> Callable[[], bool]:
    return lambda: reason in said.read_text()


def test_watch_goes_on_over_the_loss_of_its_server(served: Served, tmp_path: Path) -> None:
    said = tmp_path / "said"
    watching = _watch(served, said)
    try:
        assert wait_for(lambda: said.read_text().count("nova-compute") == 2, SOON_S), said.read_text()
        served.becomes(State.DEAD)
        assert wait_for(_comes(said, "XXX nova-compute on h1 down (dead): it is dead"), SOON_S), said.read_text()
        served.stop()
        assert wait_for(_comes(said, "trying again"), SOON_S), said.read_text()
        served.start()
        assert wait_for(_comes(said, "the server answers again"), SOON_S), said.read_text()
        served.becomes(State.HUNG, "h2")
        assert wait_for(_comes(said, "XXX nova-compute on h2 down (hung): it is hung"), SOON_S), said.read_text()
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(SOON_S) == 0
    assert "Traceback" not in said.read_text()
