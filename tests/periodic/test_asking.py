"""Who asks for periodic tasks gets them: from the agent, from control, over the API, on the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from droveway.config.scripts import ScriptConfig
from droveway.domain.faults import NotFound, Unreachable
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.periodic.tasks import PeriodicTasks
from lab.processes import everyone, wait_for
from tests.api.world import in_world, reason
from tests.control.world import world
from tests.test_starts import SOON_S, Program

pytestmark = pytest.mark.slow


async def test_control_answers_for_itself_and_asks_the_agent_for_a_host() -> None:
    def tasks(name: str) -> PeriodicTasks:
        made = PeriodicTasks(SystemClock(), SystemChance())
        made.add_scripts([ScriptConfig(name, "true", 60.0, 1.0)], "h1")
        return made

    async with world() as w:
        control = w._control
        assert control is not None
        answers = control.answers
        answers._tasks, w.agents["h1"]._tasks = tasks("ours"), tasks("theirs")
        assert [task.name for task in await answers.list_tasks("control")] == ["ours"]
        assert [(task.name, task.runs) for task in await answers.list_tasks("h1")] == [("theirs", 0)]
        assert await answers.list_tasks("h2") == []
        with pytest.raises(NotFound, match="no host h7"):
            await answers.list_tasks("h7")
        answers.name = "h1"  # a control may have the name of the host that it runs on
        assert [task.name for task in await answers.list_tasks("h1")] == ["ours", "theirs"]


async def test_the_api_lists_tasks_to_admins(tmp_path: Path) -> None:
    async def listing(host: str) -> list[dict[str, Any]]:
        if host == "h2":
            raise Unreachable("the agent of h2 is not connected")
        return [{"name": "sweep_bases"}]

    async with in_world(tmp_path) as world:
        token, path = await world.token(), "/droveway/v1/hosts/{}/tasks"
        reply = await world.ask("GET", path.format("h1"), token=token)
        assert reply.status_code == 503  # no control beside this API
        world.control.list_tasks = listing
        reply = await world.ask("GET", path.format("h1"), token=token)
        assert reply.json() == {"host": "h1", "tasks": [{"name": "sweep_bases"}]}
        reply = await world.ask("GET", path.format("h2"), token=token)
        assert (reply.status_code, reason(reply)) == (503, "the agent of h2 is not connected")
        reply = await world.ask("GET", path.format("h1"), token=await world.token("alice", "red"))
        assert reply.status_code == 403


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    if made.running is not None and made.running.poll() is None:
        made.running.terminate()
        made.running.wait(SOON_S)


def test_the_whole_program_runs_scripts_and_lists_them(program: Program) -> None:
    mark = f"lasts-{os.getpid()}"
    program.configure()
    with program.config.open("a") as config:
        config.write(f"""
            [[periodic]]
            name = "offset"
            command = "echo 3 ms on $DROVEWAY_HOST"
            every_s = 1
            timeout_s = 5
            [[periodic]]
            name = "disks"
            command = "echo sdb is failing >&2; exit 2"
            every_s = 1
            timeout_s = 5
            on = ["s1"]
            [[periodic]]
            name = "lasts"
            command = [{sys.executable!r}, "-c", "import time; time.sleep(1000)", {mark!r}]
            every_s = 1
            timeout_s = 1000
            on = "control"
        """)

    def listed(host: str) -> str:
        command = [sys.executable, "-m", "droveway.main", "task", "list", host]
        environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(program.home / "clouds.yaml")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=SOON_S)
        return done.stdout + done.stderr

    def scripts() -> int:
        return sum(mark in one.command() and "-I" not in one.command() for one in everyone())

    program.start()
    program.is_up().close()
    assert wait_for(lambda: "3 ms on s1" in listed("s1") and "exit code 2: sdb is failing" in listed("s1"), SOON_S)
    assert wait_for(lambda: "3 ms on s2" in listed("s2"), SOON_S)
    assert "disks" not in listed("s2")
    assert wait_for(lambda: "running" in listed("control") and scripts() == 1, SOON_S)
    assert "age_out" in listed("control")
    assert "there is no host s9" in listed("s9")
    (agents,) = program.processes("agent")
    agents.send(signal.SIGSTOP)
    assert "did not answer" in listed("s1")
    agents.send(signal.SIGCONT)
    assert program.running is not None
    program.running.terminate()
    assert program.ends() == 0
    assert scripts() == 0
