"""Runs what is periodic: each in a task of its own, one run at a time, and never one behind another.

Whatever a run does, its next turn comes as planned (droveway.periodic.schedule). What went wrong is kept as a sentence.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
import structlog

from droveway.config.scripts import ScriptConfig
from droveway.domain.faults import Fault, WrongConfiguration
from droveway.domain.metrics import TaskMetrics, TaskStatus
from droveway.periodic import schedule
from droveway.periodic.commands import RunOutcome, carry_out
from droveway.periodic.mark import PeriodicFunction, TaskOptions, collect
from droveway.ports.clock import Chance, Clock

log = structlog.get_logger("droveway.periodic")
REASON_CHARS = 1000
TASK, PROCESS, SCRIPT = "task", "process", "script"  # what a kind is called


class _Task:
    """One task and what is known of its runs."""

    def __init__(self, name: str, kind: str, mark: TaskOptions, work: Callable[[], Awaitable[RunOutcome]]) -> None:
        self.name, self.kind, self.mark, self.work = name, kind, mark, work
        self.runs = self.errors = self.timeouts = self.overruns = 0
        self.last_started_us: int | None = None
        self.last_duration_s: float | None = None
        self.last = RunOutcome()
        self.is_running = False
        self.due_s: float | None = None

    def ended(self, ended: RunOutcome, duration_s: float) -> None:
        self.is_running = False
        self.last, self.last_duration_s = ended, duration_s
        self.runs += 1
        self.errors += ended.reason != ""
        self.timeouts += ended.timed_out

    def shown(self, now_s: float) -> TaskStatus:
        due_s = None if self.is_running or self.due_s is None else max(0.0, self.due_s - now_s)
        return TaskStatus(
            self.name,
            self.kind,
            self.mark.every_s,
            self.runs,
            self.errors,
            self.timeouts,
            self.overruns,
            self.last_started_us,
            self.last_duration_s,
            self.last.reason,
            self.last.last_line,
            self.last.exit_code,
            self.last_started_us if self.is_running else None,
            due_s,
        )


class PeriodicTasks:
    """Those of one control or of one host's agent."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock, self._chance = clock, chance
        self._tasks: dict[str, _Task] = {}
        self._begun = False

    def collect(self, *owners: object) -> None:
        """Take in what is marked in these objects or modules. Before `run`."""
        for owner in owners:
            for marked in collect(owner):
                kind, work = _as_marked(marked)
                self._add(_Task(marked.name, kind, marked.mark, work))

    def add_scripts(self, scripts: Iterable[ScriptConfig], host: str) -> None:
        """An operator's own; they find their name and `host` in the environment. Before `run`."""
        for script in scripts:
            environment = {"DROVEWAY_TASK": script.name, "DROVEWAY_HOST": host}
            mark = TaskOptions(script.every_s, timeout_s=script.timeout_s)
            self._add(_Task(script.name, SCRIPT, mark, _as_command(script.argv, script.timeout_s, environment)))

    def _add(self, task: _Task) -> None:
        assert not self._begun, "what is periodic is known before it begins"
        if task.name in self._tasks:
            raise WrongConfiguration(f"periodic {task.name}: there is a built-in task of that name; choose another")
        self._tasks[task.name] = task

    async def run(self) -> None:
        """Until cancelled; then whatever runs is ended."""
        self._begun = True
        async with asyncio.TaskGroup() as group:
            for task in self._tasks.values():
                group.create_task(self._again_and_again(task), name=f"periodic {task.name}")

    async def _again_and_again(self, task: _Task) -> None:
        mark = task.mark
        window_s = mark.jitter * mark.every_s
        turn = schedule.first(self._clock.monotonic_s(), mark.every_s, mark.run_on_start, self._chance.uniform(0, 1))
        task.due_s = turn.at_s
        while True:
            await self._clock.sleep(max(0.0, task.due_s - self._clock.monotonic_s()))
            await self._once(task)
            turn = schedule.following(turn, mark.every_s, window_s, self._clock.monotonic_s())
            task.overruns += turn.skipped
            task.due_s = turn.at_s + self._chance.uniform(0, window_s)

    async def _once(self, task: _Task) -> None:
        began_s = self._clock.monotonic_s()
        task.is_running, task.last_started_us = True, self._clock.now_us()
        try:
            ended = await task.work()
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            ended = RunOutcome("something it waited for was cancelled")
        except Fault as fault:
            ended = RunOutcome(fault.reason)
        except Exception as bug:  # quarantine: this task has its next turn, the others go on
            log.warning("bug in a periodic task", task=task.name, exc_info=bug)
            ended = RunOutcome(f"{type(bug).__name__}: {bug}".removesuffix(": ")[:REASON_CHARS])
        task.ended(ended, self._clock.monotonic_s() - began_s)
        if ended.reason:
            log.warning("periodic task failed", task=task.name, because=ended.reason, output=ended.output)

    # -- what is known of them ----------------------------------------------------------------------------------------
    def listing(self) -> list[TaskStatus]:
        """By name."""
        now_s = self._clock.monotonic_s()
        return [task.shown(now_s) for _, task in sorted(self._tasks.items())]

    def metrics(self, host: str, service: str = "") -> tuple[TaskMetrics, ...]:
        """As tasks of that service of the host, or of a control of that name."""
        return tuple(
            TaskMetrics(
                host,
                task.name,
                task.runs,
                task.errors,
                task.overruns,
                task.timeouts,
                task.last_duration_s or 0.0,
                service,
            )
            for task in self._tasks.values()
        )


def _as_marked(marked: PeriodicFunction) -> tuple[str, Callable[[], Awaitable[RunOutcome]]]:
    """Its kind, and how to carry it out once."""
    timeout_s, function = marked.mark.timeout_s, marked.function
    if not marked.mark.in_process:
        return TASK, lambda: _in_loop(function, timeout_s)
    assert timeout_s is not None
    where = f"{function.__module__}:{function.__name__}"
    command = _as_command((sys.executable, "-m", "droveway.periodic.worker", where), timeout_s, {})

    async def work() -> RunOutcome:
        ended = await command()
        # The last line of a worker that has failed is the sentence of what its function raised.
        is_raised = ended.exit_code == 1 and ended.last_line != ""
        return msgspec.structs.replace(ended, reason=ended.last_line) if is_raised else ended

    return PROCESS, work


def _as_command(
    command: Sequence[str], timeout_s: float, environment: dict[str, str]
) -> Callable[[], Awaitable[RunOutcome]]:
    return lambda: carry_out(command, timeout_s, environment)


async def _in_loop(function: Callable[[], Awaitable[object]], timeout_s: float | None) -> RunOutcome:
    try:
        async with asyncio.timeout(timeout_s) as scope:
            await function()
    except TimeoutError:
        if not scope.expired():  # its own
            raise
        return RunOutcome(f"cancelled: it had not ended after {timeout_s:g} s", timed_out=True)
    return RunOutcome()
