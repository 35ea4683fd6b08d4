"""Scripts and worker processes, for real: what they do to us and what is left of them."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from droveway.config.scripts import ScriptConfig
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.periodic import warden
from droveway.periodic.commands import GRACE_S, RunOutcome, carry_out
from droveway.periodic.tasks import PeriodicTasks, TaskStatus
from lab.processes import everyone, wait_for
from tests.periodic import work

pytestmark = pytest.mark.slow

ENDS_S = 30.0  # what a killed process takes to be gone on a busy machine
FLOOD = f"yes | head -c {1 << 28}"
ROOT = Path(__file__).resolve().parents[2]


def running(word: str) -> list[str]:
    """Command lines of whoever has that word in it; the wardens, which have it too, left out."""
    return [
        " ".join(one.command())
        for one in everyone()
        if any(word in part for part in one.command()) and not any("warden" in part for part in one.command())
    ]


def ended(*command: str, timeout_s: float = 10.0) -> RunOutcome:
    return asyncio.run(carry_out(command, timeout_s, {"DROVEWAY_HOST": "h1"}))


def sleeper(name: str) -> str:
    """A line for a shell: a sleeping process that is found by its name."""
    return f"{sys.executable} -c 'import time; time.sleep(1000)' {name}"


def test_how_a_script_ended_is_kept() -> None:
    assert ended("/bin/echo", "one\ntwo\n\n") == RunOutcome("", False, 0, "two")
    assert ended("/bin/sh", "-c", "echo $DROVEWAY_HOST; pwd").last_line == "/"
    assert ended("/bin/sh", "-c", "echo $DROVEWAY_HOST").last_line == "h1"
    failed = ended("/bin/sh", "-c", "echo fine; echo 'no space' >&2; exit 3")
    assert (failed.reason, failed.exit_code, failed.last_line) == ("exit code 3: no space", 3, "fine")
    assert failed.output == "no space\n"
    assert ended("/bin/sh", "-c", "kill -SEGV $$").reason == "killed by SIGSEGV"
    assert ended("/does/not/exist").reason == "/does/not/exist cannot be started: No such file or directory"
    assert ended("/bin/cat").exit_code == 0  # stdin is empty
    assert ended("/bin/sh", "-c", r"printf 'a\033[31mb\377'").last_line == "a [31mb�"
    assert ended("/bin/sh", "-c", "kill -TERM $PPID; sleep 0.1; echo still watched").last_line == "still watched"


def test_a_script_that_never_ends_is_killed_with_its_children() -> None:
    name = f"endless-{os.getpid()}"
    began_s = time.monotonic()
    run = ended("/bin/sh", "-c", f"trap '' TERM; {sleeper(name)} & {sleeper(name)} & {sleeper(name)}", timeout_s=0.5)
    assert run.timed_out
    assert run.reason == "killed: it had not ended after 0.5 s"
    assert time.monotonic() - began_s < 0.5 + GRACE_S + 5.0
    assert wait_for(lambda: running(name) == [], ENDS_S)


def test_what_a_script_leaves_behind_is_killed() -> None:
    name = f"left-{os.getpid()}"
    began_s = time.monotonic()
    assert ended("/bin/sh", "-c", f"{sleeper(name)} & echo done") == RunOutcome("", False, 0, "done")
    assert time.monotonic() - began_s < 8.0  # though the one left behind held its output open
    assert wait_for(lambda: running(name) == [], ENDS_S)


def test_a_flood_grows_no_memory_and_ends() -> None:
    """256 MiB on stdout and 256 MiB on stderr: neither we nor the warden keep it, and our loop is not kept busy."""
    before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before_s = time.process_time()
    flood = f"{FLOOD}; {FLOOD} >&2; echo; echo the end"
    run = ended("/bin/sh", "-c", flood, timeout_s=60.0)
    assert (run.exit_code, run.last_line) == (0, "the end")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before_bytes < 20 << 20
    assert time.process_time() - before_s < 0.2


def test_the_warden_stays_small() -> None:
    command = [
        sys.executable,
        "-I",
        "-S",
        str(warden.__file__),
        "60",
        "1",
        "/bin/sh",
        "-c",
        FLOOD,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        most_kib = 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            most_kib = max([most_kib, *(int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", status))])
            time.sleep(0.02)
        assert process.stdout is not None and len(process.stdout.read()) < 16384
    assert process.returncode == 0
    assert 4 << 10 < most_kib < 24 << 10


@pytest.mark.alone  # its scripts have ended by the time that it has
async def test_the_end_of_the_program_ends_its_scripts() -> None:
    name = f"ends-{os.getpid()}"
    tasks = PeriodicTasks(SystemClock(), SystemChance())
    tasks.add_scripts([ScriptConfig("long", f"trap '' TERM; {sleeper(name)} & wait", 1.0, 600.0)], "h1")
    program = asyncio.create_task(tasks.run())
    while not running(name):
        await asyncio.sleep(0.02)
    program.cancel()
    await asyncio.wait({program})
    assert running(name) == []


def test_the_death_of_the_program_ends_its_scripts() -> None:
    """kill -9: nobody is there to end them but their wardens."""
    name = f"dies-{os.getpid()}"
    program = (
        f"import asyncio\nfrom droveway.periodic.commands import carry_out\n"
        f"asyncio.run(carry_out(['/bin/sh', '-c', {sleeper(name) + ' & wait'!r}], 600.0, {{}}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    assert wait_for(lambda: len(running(name)) >= 3, 30)  # itself, the shell, and its child
    process.kill()
    process.wait(30)
    assert wait_for(lambda: running(name) == [], GRACE_S + 3.0)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> dict[str, TaskStatus]:
    """What is marked in tests/periodic/work.py, each after two runs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    async def story() -> dict[str, TaskStatus]:
        tasks = PeriodicTasks(SystemClock(), SystemChance())
        tasks.collect(work)
        program = asyncio.create_task(tasks.run())
        while any(task.runs < 2 for task in tasks.listing()):
            await asyncio.sleep(0.02)
        shown = {task.name: task for task in tasks.listing()}
        program.cancel()
        await asyncio.wait({program})
        return shown

    return asyncio.run(asyncio.wait_for(story(), 30.0))


def test_work_in_a_process_says_how_it_went(workers: dict[str, TaskStatus]) -> None:
    assert {task.kind for task in workers.values()} == {"process"}
    assert (workers["counts"].last_error, workers["counts"].last_line) == ("", "42")
    assert workers["fails"].last_error == "ValueError: not today"
    assert workers["refuses"].last_error == "the other one is at work"
    assert workers["fails"].errors == workers["fails"].runs and workers["fails"].timeouts == 0
    assert workers["hangs"].last_error == "killed: it had not ended after 0.5 s"
    assert workers["hangs"].timeouts == workers["hangs"].runs >= 2
    assert running("left behind by hangs") == []


def test_a_killed_warden_is_said() -> None:
    async def story() -> RunOutcome:
        ours = f"1.{os.getpid()}"
        run = asyncio.create_task(carry_out(["/bin/sleep", ours], 600.0, {}))
        while not (wardens := [one for one in everyone() if {str(warden.__file__), ours} <= set(one.command())]):
            await asyncio.sleep(0.02)
        wardens[0].send(signal.SIGKILL)
        return await run

    assert asyncio.run(story()).reason == "it is not known how it went: what watched over it was killed"
