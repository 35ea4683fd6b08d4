"""The state of the failure detector has one owner: others ask the observer, and have it changed by its methods."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.inbox import Inbox
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.drivers.clock import SystemClock

ROOT = Path(__file__).parents[2]
# Who owns it; what tests the functions of domain/liveness.py on observations of its own; and programs that break laws.
OWNERS = {"detector_state.py", "observer.py", "inbox.py", "test_liveness.py", "test_mutants.py"}
OWNED = {"observer", "_observer", "inbox", "_inbox"}  # what an owner is called by those that have one
PUBLIC = {"numbers", "inbox", "woken", "to_write"}  # objects with methods of their own, and counters
FOLDERS = ("src/droveway/api", "src/droveway/control", "src/droveway/simulation", "tests", "benchmarks")
OBSERVATIONS = {"seen", "service"}  # what is given out to be read is called


def breaches(source: str) -> list[str]:
    """Lines that change what is an owner's, or reach into it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = _name(node.value)
            is_set = not isinstance(node.ctx, ast.Load)
            if (of in OWNED and (is_set or node.attr.startswith("_"))) or (of in OBSERVATIONS and is_set):
                found.append(f"{node.lineno}: {of}.{node.attr}")
    return found


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Attribute(attr="observation")):
            return "seen"
    return ""


def test_what_is_an_owners_is_private() -> None:
    for owner in (Observer(SystemClock(), Nudges(), LivenessSettings()), Inbox()):
        assert {name for name in vars(owner) if not name.startswith("_")} <= PUBLIC


def test_no_other_file_writes_the_state_of_the_detector() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.name not in OWNERS]
    assert len(files) > 200
    found = {str(path.relative_to(ROOT)): breaches(path.read_text()) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "observer._seen[host]",
        "self._observer._order",
        "hall.observer.now_s = 1",
        "seen.silent_found_s = now_s",
        "self._observer.observation(host).held_since_s = None",
        "service.state = State.DEAD",
        "del observer.inbox._unsaved[host]",
        "self._observer.inbox.to_write = event",
        "seen.beats += 1",
    ],
)
def test_a_breach_is_seen(line: str) -> None:
    assert breaches(line)


def test_methods_of_the_state_may_be_called() -> None:
    assert not breaches(
        "seen = self._observer.observation(host)\nself._observer.hold(seen, now_s)\nprint(seen.silent_found_s)"
    )
