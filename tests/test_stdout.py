"""What a command says meets a full disk, or a reader who has gone: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.processes import wait_for
from tests.test_starts import SOON_S, Program

VERBS = [
    "--help",
    "--version",
    "service list",
    "service list --wide",
    "service why s1",
    "service watch",
    "host list",
    "host list --json",
    "host show s1",
    "saga list",
    "task list s1",
    "audit",
    "user create eve --project red",
    "placement try --flavor tiny",
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("program")
    program = Program(home)
    started = program.start()
    program.is_up().close()
    yield os.environ | {"OS_CLIENT_CONFIG_FILE": str(home / "clouds.yaml"), "XDG_CACHE_HOME": str(home / "cache")}
    started.terminate()
    program.ends()
    assert wait_for(lambda: program.processes() == [], SOON_S)


def run(verb: str, stdout: int, environment: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "droveway.main", *verb.split()]
    return subprocess.run(
        command,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SOON_S,
        check=False,
        env=environment | more,
        cwd="/",
    )


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk(environment: dict[str, str], verb: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(verb, full.fileno(), environment)
    assert done.stderr == "droveway: the output could not be written to the end: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("verb", ["--help", "service list", "service watch", "saga list"])
def test_a_reader_who_has_gone(environment: dict[str, str], verb: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(verb, writing, environment)
    os.close(writing)
    assert done.stderr == "droveway: the output could not be written to the end: its reader has ended\n"
    assert done.returncode == 1


def test_nobody_wants_to_hear_it() -> None:
    for closing in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m droveway.main --version {closing}', sys.executable],
            capture_output=True,
            text=True,
            timeout=SOON_S,
            check=False,
        )
        assert done.returncode == 0
        assert "Traceback" not in done.stderr + done.stdout


def test_what_is_said_is_whole(environment: dict[str, str]) -> None:
    done = run("host list", subprocess.PIPE, environment, PYTHONIOENCODING="latin-1:replace")
    assert done.returncode == 0
    assert not done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["Host", "s1", "s2"]
