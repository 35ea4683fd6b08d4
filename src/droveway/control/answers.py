"""What a control answers: the implementation of ports/control.py. Read-only but for `repair`, each with a deadline."""

from __future__ import annotations

import asyncio

import msgspec

from droveway.control.audit import Audit
from droveway.control.engine.commands import send
from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.lag import LoopLag
from droveway.control.liveness.observer import Observer
from droveway.control.liveness.why import Why
from droveway.control.scheduling.cpu_baselines import CpuBaselines
from droveway.control.scheduling.dry_run import DryRun
from droveway.control.scheduling.move_plan import MovePlanner
from droveway.domain import service_kinds
from droveway.domain.consoles import ConsoleKind
from droveway.domain.cpu_baseline import CpuBaseline
from droveway.domain.diagnostics import GuestDiagnostics
from droveway.domain.faults import Conflict, NotFound, StepFailed
from droveway.domain.metrics import LivenessMetrics, TaskStatus
from droveway.domain.model import of_host, of_instance
from droveway.domain.move_plan import MoveMatrix, MovePlan
from droveway.domain.resources import LastReport, without_guests
from droveway.domain.volume.model import StoredVolume
from droveway.domain.why import Explanation
from droveway.periodic.tasks import PeriodicTasks
from droveway.ports.bus import ControlBus, ListTasks, OpenConsole, ReadConsole, ReadDiagnostics
from droveway.ports.control import (
    CONSOLE_TIMEOUT_S,
    LIST_TASKS_TIMEOUT_S,
    STORED_VOLUMES_TIMEOUT_S,
    AuditResult,
    ControlQueries,
    DryRunRequest,
    DryRunResult,
    MoveRequest,
    RepairResult,
    Replay,
)
from droveway.ports.volume_verbs import ListVolumes
from droveway.store.engine.transaction import Store
from droveway.store.fleet import services

TASKS_TOLD_MAX = 1000  # `/metrics` shows no more


class ControlAnswers(ControlQueries):
    """`name` is the control's; `tasks` are its own periodic ones."""

    def __init__(
        self,
        store: Store,
        bus: ControlBus,
        name: str,
        tasks: PeriodicTasks | None,
        observer: Observer,
        detector: FailureDetector,
        lag: LoopLag,
        why: Why,
        trial: DryRun,
        planner: MovePlanner,
        baselines: CpuBaselines,
        audit: Audit,
    ) -> None:
        self.name = name
        self._store, self._bus, self._tasks = store, bus, tasks
        self._observer, self._detector, self._lag = observer, detector, lag
        self._why, self._trial, self._audit = why, trial, audit
        self._planner, self._baselines = planner, baselines

    async def why(self, host: str, binary: str) -> Explanation:
        return await self._why(host, binary)

    async def read_console(self, host: str, instance_id: str, length_lines: int | None) -> str:
        verb = ReadConsole(length_lines)
        try:
            return (await send(self._bus, host, of_instance(instance_id), 0, verb, CONSOLE_TIMEOUT_S)).text
        except StepFailed as refused:
            raise Conflict(refused.reason) from None

    async def read_diagnostics(self, host: str, instance_id: str) -> GuestDiagnostics:
        try:
            answer = await send(self._bus, host, of_instance(instance_id), 0, ReadDiagnostics(), CONSOLE_TIMEOUT_S)
        except StepFailed as refused:
            raise Conflict(refused.reason) from None
        return answer.diagnostics

    async def open_console(self, host: str, instance_id: str, kind: ConsoleKind, url: str, session: str) -> None:
        verb = OpenConsole(kind, url, session)
        try:
            await send(self._bus, host, of_instance(instance_id), 0, verb, CONSOLE_TIMEOUT_S)
        except StepFailed as refused:
            raise Conflict(refused.reason) from None

    async def list_stored_volumes(self, backend: str) -> list[StoredVolume]:
        host, service = service_kinds.address_of(backend, service_kinds.VOLUME)
        try:
            answer = await send(self._bus, host, of_host(host), 0, ListVolumes(), STORED_VOLUMES_TIMEOUT_S, service)
        except StepFailed as refused:
            raise Conflict(refused.reason) from None
        return list(answer.volumes)

    async def list_tasks(self, host: str) -> list[TaskStatus]:
        """A control and a host may have the same name: then the tasks of both."""
        own = self._tasks.listing() if host == self.name and self._tasks is not None else []
        there = await self._store.read(services.on_host, host)
        if not there:
            if host == self.name:
                return own
            raise NotFound(f"there is no host {host[:64]}; 'droveway service list' shows those there are")
        # Of what is down nothing runs; where all are down the reason is returned.
        asked = [one.service for one in there if one.is_up] or [one.service for one in there]
        for listed in await asyncio.gather(*(self._tasks_of(host, name) for name in asked)):
            own += listed
        return own

    async def _tasks_of(self, host: str, service: str) -> list[TaskStatus]:
        try:
            tasks = (await send(self._bus, host, of_host(host), 0, ListTasks(), LIST_TASKS_TIMEOUT_S, service)).tasks
        except StepFailed as refused:
            raise Conflict(refused.reason) from None
        return [msgspec.structs.replace(task, service=service) for task in tasks]

    async def liveness_metrics(self) -> LivenessMetrics:
        numbers, tally = self._observer.numbers, self._detector.tally
        tasks = [] if self._tasks is None else list(self._tasks.metrics(self.name))
        tasks += self._observer.inbox.tasks()
        return LivenessMetrics(
            numbers.beats,
            numbers.refused,
            dict(tally.entered),
            tally.flaps,
            self._detector.holds.begun,
            tuple(numbers.lateness),
            numbers.lateness_sum_ms,
            self._lag.last_s,
            self._lag.worst_s,
            tuple(tasks[:TASKS_TOLD_MAX]),
        )

    async def last_reports(self, *names: str) -> dict[str, LastReport]:
        reports = self._observer.inbox.last_reports()
        found = {name: reports[name] for name in names if name in reports} if names else dict(reports)
        return found if len(names) == 1 else {name: without_guests(one) for name, one in found.items()}

    async def try_placement(self, wanted: DryRunRequest) -> DryRunResult:
        return await self._trial.attempt(wanted)

    async def replay_placement(self, server: str) -> Replay:
        return await self._trial.replay(server)

    async def plan_move(self, wanted: MoveRequest) -> MovePlan:
        return await self._planner.plan(wanted)

    async def move_matrix(self, host: str | None) -> MoveMatrix:
        return await self._planner.matrix(host)

    async def cpu_baseline(self, aggregate: str) -> CpuBaseline:
        return await self._baselines.of_aggregate(aggregate)

    async def audit(self) -> AuditResult:
        return await self._audit()

    async def repair(self, keys: list[str]) -> RepairResult:
        return await self._audit.repair(keys)
