"""`./dev bench`: what it needs is known, rows come one by one, and none is lost with a later one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES, _needs, run
from benchmarks.claims import Claim
from lab import servers
from lab.nodes import ServerFailed

CLONE = Path(__file__).resolve().parent.parent
GOOD, BAD = Claim("first", 1.0, 2.0, "ms", "a note"), Claim("second", 3.0, 2.0, "ms")


def rows(*given: Claim | BaseException) -> Iterator[Claim]:
    for one in given:
        if isinstance(one, BaseException):
            raise one
        yield one


@pytest.mark.parametrize("name", NAMES)
def test_what_a_benchmark_needs_is_known(name: str) -> None:
    for need in _needs(importlib.import_module(f"benchmarks.{name}"), []):
        assert need == "hosts" or servers.packages(need)


def test_the_fleet_needs_the_broker_that_it_is_told() -> None:
    asked = [sys.executable, "-m", "benchmarks", "--needs", "fleet", "--bus", "rabbitmq"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=CLONE)
    assert done.stdout == "rabbitmq postgresql\n"


def test_rows_are_printed_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    def measured() -> Iterator[Claim]:
        yield GOOD
        shown = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in shown] == ["claim", "first"]
        assert shown[1].endswith("yes    a note")
        yield BAD

    assert run("x", measured, as_json=False) == 1
    assert " NO " in capsys.readouterr().out
    assert run("x", lambda: rows(GOOD), as_json=False) == 0
    assert run("x", rows, as_json=False) == 1


@pytest.mark.parametrize("failure", [ServerFailed("nats is not installed"), KeyboardInterrupt()])
def test_a_later_failure_keeps_them_and_is_one_reason(
    capsys: pytest.CaptureFixture[str], failure: BaseException
) -> None:
    assert run("x", lambda: rows(GOOD, failure, BAD), as_json=False) == 1
    out, err = capsys.readouterr()
    assert "first" in out
    assert err.startswith("bench: x ended after 1 rows: ")
    assert err.count("\n") == 1


def test_json_is_whole_however_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("x", lambda: rows(GOOD), as_json=True) == 0
    whole = json.loads(capsys.readouterr().out)
    assert [row["claim"] for row in whole["claims"]] == ["first"]
    assert "failed" not in whole
    run("x", lambda: rows(GOOD, ServerFailed("gone")), as_json=True)
    assert json.loads(capsys.readouterr().out)["failed"] == "gone"
    with pytest.raises(ZeroDivisionError):
        run("x", lambda: rows(GOOD, ZeroDivisionError()), as_json=True)
    assert len(json.loads(capsys.readouterr().out)["claims"]) == 1


def test_a_server_that_is_not_installed_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "server-packages").write_text("nats /nowhere/nats-server nats-server\n")
    script = (
        "import pathlib, sys; from lab import servers; servers.PACKAGES = pathlib.Path(sys.argv[1]);"
        "from benchmarks.__main__ import run; from benchmarks import nats_beats;"
        "sys.exit(run('nats_beats', nats_beats.measure, False))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "server-packages")],
        capture_output=True,
        text=True,
        check=False,
        cwd=CLONE,
    )
    assert done.returncode == 1
    assert done.stderr == "bench: nats_beats ended after 0 rows: nats is not installed: apt-get install nats-server\n"
