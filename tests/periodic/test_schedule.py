"""When periodic tasks run, under simulated time: hours pass at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from droveway.config.scripts import ScriptConfig
from droveway.domain.faults import Busy, WrongConfiguration
from droveway.periodic import schedule
from droveway.periodic.mark import collect, periodic
from droveway.periodic.schedule import ScheduledRun
from droveway.periodic.tasks import PeriodicTasks, TaskStatus
from droveway.simulation.loop import SimChance, SimClock, SimLoop
from tests.periodic import work

HOUR_S = 3600.0


class Run:
    """Some owners' tasks for a while: when each of their functions was begun, and how they stood at the end."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = SimLoop()
        rng = random.Random(seed)
        self.clock = SimClock(self.loop, rng)
        self.tasks = PeriodicTasks(self.clock, SimChance(rng))

    def pass_time(self, for_s: float) -> dict[str, TaskStatus]:
        async def story() -> None:
            running = asyncio.ensure_future(self.tasks.run())
            await asyncio.sleep(for_s)
            self.shown = {task.name: task for task in self.tasks.listing()}
            running.cancel()
            await asyncio.wait({running})
            assert running.cancelled()

        self.loop.run_until_complete(story())
        assert self.loop.troubles == []
        return self.shown


def made(run: Run, body: Callable[[], Awaitable[None]], count: int = 1, **mark: object) -> list[list[float]]:
    """`count` tasks with that mark and body; when each was begun."""
    begun: list[list[float]] = [[] for _ in range(count)]
    for number in range(count):

        class Owner:
            pass

        async def turn(_self: object, number: int = number) -> None:
            begun[number].append(run.loop.time())
            await body()

        turn.__qualname__ = f"task{number}"
        setattr(Owner, f"task{number}", periodic(**mark)(turn))  # type: ignore[arg-type]
        run.tasks.collect(Owner())
    return begun


async def nothing() -> None:
    pass


def test_turns_stand_on_a_grid_that_never_moves() -> None:
    assert schedule.following(ScheduledRun(100.0), 10.0, 1.0, 100.5) == ScheduledRun(110.0, 0)
    assert schedule.following(ScheduledRun(100.0), 10.0, 1.0, 111.0) == ScheduledRun(
        110.0, 0
    )  # still within the window
    assert schedule.following(ScheduledRun(100.0), 10.0, 1.0, 111.5) == ScheduledRun(120.0, 1)
    assert schedule.following(ScheduledRun(100.0), 10.0, 0.0, 145.0) == ScheduledRun(150.0, 4)
    assert schedule.following(ScheduledRun(100.0), 10.0, 0.0, 140.0) == ScheduledRun(140.0, 3)


def test_first_deadlines_are_spread_and_never_all_at_once() -> None:
    run = Run()
    begun = made(run, nothing, count=50, every_s=600.0)
    run.pass_time(700.0)
    firsts = sorted(times[0] for times in begun)
    assert firsts[0] < 60 and firsts[-1] > 540
    in_one_second = max(sum(at <= other < at + 1.0 for other in firsts) for at in firsts)
    assert in_one_second <= 3


def test_what_runs_on_start_is_spread_over_a_few_seconds() -> None:
    run = Run()
    begun = made(run, nothing, count=50, every_s=HOUR_S, run_on_start=True)
    run.pass_time(60.0)
    firsts = [times[0] for times in begun]
    assert max(firsts) <= schedule.START_SPREAD_S
    assert len({round(at, 1) for at in firsts}) > 20


def test_a_turn_begins_within_its_window_and_the_rate_does_not_drift() -> None:
    run = Run()
    (begun,) = made(run, nothing, every_s=60.0, jitter=0.1)
    shown = run.pass_time(24 * HOUR_S)
    assert len(begun) in (1439, 1440, 1441)
    offsets = [at - begun[0] - 60.0 * number for number, at in enumerate(begun)]
    assert max(offsets) - min(offsets) <= 6.0
    assert max(offsets) - min(offsets) > 3.0  # it is a jitter
    assert shown["task0"].overruns == 0
    assert shown["task0"].runs == len(begun)


def test_a_run_that_is_too_long_skips_turns_and_they_are_counted() -> None:
    run = Run()
    (begun,) = made(run, lambda: asyncio.sleep(25.0), every_s=10.0, jitter=0.0)
    shown = run.pass_time(HOUR_S)["task0"]
    gaps = {round(b - a, 6) for a, b in pairwise(begun)}
    assert gaps == {30.0}  # one at a time, and on the grid
    assert shown.overruns == 2 * shown.runs
    assert shown.running_since_us is not None or shown.next_due_in_s is not None


def test_a_slow_task_never_delays_another() -> None:
    run = Run()
    made(run, lambda: asyncio.sleep(HOUR_S), every_s=10.0)

    class Quick:
        def __init__(self) -> None:
            self.begun: list[float] = []

        @periodic(every_s=10.0, jitter=0.0)
        async def quick(self) -> None:
            self.begun.append(run.loop.time())

    quick = Quick()
    run.tasks.collect(quick)
    shown = run.pass_time(HOUR_S)
    assert len(quick.begun) in (359, 360, 361)
    assert shown["task0"].runs == 0
    assert shown["task0"].running_since_us is not None and shown["task0"].next_due_in_s is None
    assert shown["quick"].overruns == 0


def test_an_error_is_kept_and_the_next_turn_comes_as_planned() -> None:
    run = Run()
    errors: list[BaseException] = [
        KeyError("lost"),
        Busy("the queue is full"),
        asyncio.CancelledError(),
        TimeoutError(),
    ]

    async def body() -> None:
        seen.append(run.tasks.listing()[0].last_error)
        if errors:
            raise errors.pop(0)

    seen: list[str] = []
    (begun,) = made(run, body, every_s=10.0, jitter=0.0)
    shown = run.pass_time(100.0)["task0"]
    assert seen[:6] == [
        "",
        "KeyError: 'lost'",
        "the queue is full",
        "something it waited for was cancelled",
        "TimeoutError",
        "",
    ]
    assert shown.errors == 4 and shown.timeouts == 0 and shown.runs == len(begun) >= 9
    assert {round(b - a, 6) for a, b in pairwise(begun)} == {10.0}
    assert shown.last_error == ""


def test_what_exceeds_its_time_is_cancelled_and_said() -> None:
    run = Run()
    (begun,) = made(run, lambda: asyncio.sleep(1000.0), every_s=60.0, jitter=0.0, timeout_s=5.0)
    shown = run.pass_time(HOUR_S)["task0"]
    assert len(begun) in (60, 61)
    assert shown.timeouts == shown.errors == shown.runs
    assert shown.last_error == "cancelled: it had not ended after 5 s"
    assert shown.last_duration_s == pytest.approx(5.0)
    assert shown.overruns == 0


def test_metrics_are_counted_a_task() -> None:
    run = Run()
    made(run, nothing, count=3, every_s=10.0)
    run.pass_time(100.0)
    metrics = list(run.tasks.metrics("h1", "nova-compute"))
    assert [metric.name for metric in metrics] == ["task0", "task1", "task2"]
    assert all(metric.runs >= 9 and metric.errors == metric.overruns == metric.timeouts == 0 for metric in metrics)


def test_what_is_marked_is_found_without_asking_properties() -> None:
    class Owner:
        @property
        def trap(self) -> None:
            raise AssertionError("asked")

        @periodic(every_s=1.0)
        async def _clean(self) -> None:
            pass

        async def unmarked(self) -> None:
            pass

    assert [marked.name for marked in collect(Owner())] == ["clean"]
    assert [marked.name for marked in collect(work)] == ["counts", "fails", "hangs", "refuses"]


def test_a_mark_that_makes_no_sense_is_a_bug_said_at_once() -> None:
    for wrong in ({"every_s": 0}, {"every_s": 1, "jitter": 2}, {"every_s": 1, "in_process": True}):
        with pytest.raises(AssertionError):
            periodic(**wrong)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="async in the loop"):
        periodic(every_s=1)(lambda: None)


def test_a_script_may_not_take_the_name_of_a_built_in_task() -> None:
    run = Run()
    made(run, nothing, every_s=10.0)
    with pytest.raises(WrongConfiguration, match=r"task0.*built-in"):
        run.tasks.add_scripts([ScriptConfig("task0", "true", 10.0, 1.0)], "h1")
