"""What all tests stand on."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
import structlog

if TYPE_CHECKING:
    from tests.drivers.bus_worlds import Rabbit

# Whoever starts the tests in the background of a shell makes them, and all they start, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

AGAIN_S = 60.0  # what a test that has waited too long has to end

UMASK = os.umask(0o022)
os.umask(UMASK)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """That of whoever starts the tests: what makes private files sets another one for its whole process."""
    os.umask(UMASK)
    yield
    os.umask(UMASK)


gc.disable()  # until all files are loaded: what they hold stays anyway


def pytest_collection_finish() -> None:
    """What was loaded is not looked through again and again while tests run: they would take a tenth more."""
    gc.enable()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="every case of a test that is marked `matrix`, and those marked `full`"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--full"):
        os.environ["DROVEWAY_TESTS_FULL"] = "1"  # for what is decided while files are loaded


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a matrix the first case is run, and one of the others, chosen by the commit: the next one runs another. What
    takes minutes is not run."""
    if config.getoption("--full"):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("matrix") is not None:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = {item for item in items if item.get_closest_marker("full") is not None}
    for name, found in cases.items():
        others = found[1:]
        if len(others) > 1:
            left_out.update(set(others) - {others[_drawn(name, len(others))]})
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))


def _drawn(name: str, count: int) -> int:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, check=False)
    return int.from_bytes(hashlib.sha256(commit.stdout + name.encode()).digest()[:4], "big") % count


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    """Which cases of a matrix these are: a run that is said to be good says of what."""
    return [f"of a matrix: {item.nodeid}" for item in items if item.get_closest_marker("matrix") is not None]


def _show_awaiting(task: asyncio.Task[object]) -> None:
    """Each function that it waits in; `Task.print_stack` knows the outermost alone."""
    print(f"{task.get_name()} waits in", file=sys.stderr)
    waiting: object = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        print(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}", file=sys.stderr)
        waiting = getattr(waiting, "cr_await", None)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, object, object]:
    """A test that waits too long shows where: the traceback alone ends in the event loop, so its tasks are printed."""
    result = yield
    fail = signal.getsignal(signal.SIGALRM)

    def show_tasks_and_fail(number: int, frame: FrameType | None) -> None:
        try:
            for task in asyncio.all_tasks():
                _show_awaiting(task)
        except RuntimeError:  # no event loop runs
            pass
        # A thread of the loop's may wait too, and the end of the loop would wait for it: then this comes again.
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        assert callable(fail)
        fail(number, frame)

    if callable(fail):
        signal.signal(signal.SIGALRM, show_tasks_and_fail)
    return result


@pytest.fixture(scope="session")
def rabbit_that_stays() -> Iterator[Rabbit]:
    """To start one costs 4 CPU seconds. Each test on it has a prefix of its own, and leaves it running."""
    from tests.drivers.bus_worlds import USERS, rabbit

    with rabbit(users=USERS) as one:
        yield one


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A test that sets how the program logs, as the simulation does, leaves no other one without its log. Where the
    program and a command line share a process, the log is none of what the command prints."""
    structlog.reset_defaults()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def ceph_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from lab.ceph import ceph

    with ceph(tmp_path_factory.mktemp("ceph"), users=("volumes", "h1", "h2"), has_manager=True) as cluster:
        yield cluster
