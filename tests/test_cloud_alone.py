"""`./dev up` and `./dev down` of one cloud never work at the same time, nor at what they do not know."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import nodes
from lab.cloud import CLONE, Cloud

SOON_S = 60.0


def down(home: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lab.cloud", "down", *arguments]
    environment = {"DROVEWAY_DIR": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.Popen(
        command, cwd=CLONE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_down_waits_for_an_up_that_is_under_way(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("w") as up:
        fcntl.flock(up, fcntl.LOCK_EX)
        with down(tmp_path) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == f"waiting for another up or down of {tmp_path}\n"
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.3)
            fcntl.flock(up, fcntl.LOCK_UN)
            assert waiting.wait(SOON_S) == 0, waiting.stdout.read()


def test_down_where_nothing_was_ever_started(tmp_path: Path) -> None:
    with down(tmp_path / "never") as ended:
        assert ended.wait(SOON_S) == 0
    assert not (tmp_path / "never").exists()


def test_an_argument_that_is_not_known_is_named_by_the_command_that_was_typed(tmp_path: Path) -> None:
    with down(tmp_path / "never", "--hard") as ended:
        assert ended.stdout is not None
        assert ended.stdout.read().endswith("./dev: error: unrecognized arguments: --hard\n")
        assert ended.wait(SOON_S) == 2


def test_two_that_start_at_once_choose_different_ports(tmp_path: Path) -> None:
    """Neither listens yet: what one has chosen is not free for the other."""
    homes = [tmp_path / "one", tmp_path / "other"]
    for home in homes:
        home.mkdir()
    one, other = (Cloud(home) for home in homes)
    kept = one.agents_port()
    assert other.agents_port() != kept
    one.release_ports()
    assert one.agents_port() == kept  # clients keep what they know
    for cloud in (one, other):
        cloud.release_ports()


def test_a_port_that_is_chosen_is_nobody_elses_while_a_process_has_it() -> None:
    """As the program has it, whose API may be away for a moment, after the `up` that chose it."""
    name = f"test-{os.getpid()}"
    held = nodes.claim(name)
    assert held is not None
    assert nodes.claim(name) is None
    with subprocess.Popen(["sleep", "60"], pass_fds=[held.fileno()]) as other:
        held.close()
        assert nodes.claim(name) is None
        other.kill()
    again = nodes.claim(name)
    assert again is not None
    again.close()


def test_no_port_is_given_twice() -> None:
    """Nobody listens at any of them, in this process and in others at the same time."""
    many = 2 * nodes.BLOCK
    ask = f"from lab import nodes; import sys; print(*nodes.free_ports({many}), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", ask]
    others = [
        subprocess.Popen(command, cwd=CLONE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    given = nodes.free_ports(many)
    for other in others:
        assert other.stdout is not None
        given += map(int, other.stdout.readline().split())
    assert len(set(given)) == len(given) == 3 * many
    assert not nodes.keep_port(given[-1])  # another process has it
    for other in others:
        other.communicate(timeout=SOON_S)
    assert nodes.keep_port(given[-1])
    assert nodes.keep_port(given[0])
    assert given[-1] not in nodes.free_ports(many)
