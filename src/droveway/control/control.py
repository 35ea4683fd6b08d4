"""One control process: observer, saga runner, loops; and what the API may ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from droveway.control.answers import ControlAnswers
from droveway.control.audit import Audit
from droveway.control.engine.nudges import Nudges
from droveway.control.engine.runner import Runner
from droveway.control.engine.saga import ControlSettings, Saga
from droveway.control.engine.settled import settled
from droveway.control.liveness.admission import Admission
from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.duty import DetectorDuty
from droveway.control.liveness.lag import LoopLag
from droveway.control.liveness.members import Members
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.liveness.verdicts import DETECTOR, Verdicts
from droveway.control.liveness.why import Why
from droveway.control.loops.file_cleanup import FileCleanup
from droveway.control.loops.guests import GuestsLoop
from droveway.control.loops.networks import NetworksLoop
from droveway.control.loops.plans import KeptPlans
from droveway.control.loops.router_places import RouterPlaces
from droveway.control.loops.upkeep import PREFIX, Upkeep
from droveway.control.sagas import STORIES
from droveway.control.scheduling.cpu_baselines import CpuBaselines
from droveway.control.scheduling.dry_run import DryRun
from droveway.control.scheduling.move_plan import MovePlanner
from droveway.control.scheduling.move_trials import MoveTrials
from droveway.control.scheduling.placer import Placer
from droveway.domain import service_kinds
from droveway.domain.liveness import State
from droveway.domain.model import SagaKind
from droveway.periodic.tasks import PeriodicTasks
from droveway.ports.bus import ControlBus
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import services
from droveway.store.work import leases

TASKS_TOLD_MAX = 1000  # to another process; `/metrics` shows no more


class Control:
    observer_type, detector_type = Observer, FailureDetector

    def __init__(
        self,
        store: Store,
        bus: ControlBus,
        clock: Clock,
        name: str,
        settings: ControlSettings,
        liveness: LivenessSettings,
        stories: dict[SagaKind, Saga] = STORIES,
        runner: type[Runner] = Runner,
        placer: type[Placer] = Placer,
        tasks: PeriodicTasks | None = None,
    ) -> None:
        self.name = name
        self._stories, self._runner_type = stories, runner
        self._store, self._bus, self._clock, self._settings = store, bus, clock, settings
        self.tasks = tasks
        self.nudges = Nudges()
        self.placer = placer(store, clock, self.nudges, settings.placement, settings.refresh_s)
        self.trial = DryRun(store, self.placer)
        self.observer = self.observer_type(clock, self.nudges, liveness)
        self.verdicts = Verdicts(store, clock, self.nudges, self.observer, liveness)
        self.detector = self.detector_type(self.observer, bus, clock, liveness, self.verdicts.put)
        self.duty = DetectorDuty(store, clock, name, self.detector, self.verdicts)
        self.why = Why(store, clock, self.observer, self.detector, self.verdicts, self.duty)
        self.lag = LoopLag(clock)
        self.admission = Admission(store, self.nudges, self.observer, liveness.report_interval_s)
        self._guests = GuestsLoop(store, bus, self.observer, self.nudges, settings, self.admission)
        self._file_cleanup = FileCleanup(store, bus, self.nudges, self.admission, settings)
        self.plans = KeptPlans(store, clock)
        self._networks = NetworksLoop(store, bus, self.observer, self.nudges, clock, self.plans)
        self._router_places = RouterPlaces(store, self.nudges, clock, self.observer.is_heard)
        self.audit = Audit(store, bus, clock, self._guests.compare, settings.placement)
        planner = MovePlanner(store, self.placer, MoveTrials(bus), settings.images_path, settings.copy)
        asked = (self.observer, self.detector, self.lag, self.why, self.trial, planner, CpuBaselines(store, bus))
        self.answers = ControlAnswers(store, bus, name, tasks, *asked, self.audit)
        self.epoch = 0
        self.members: Members | None = None  # a membership driver in place of heartbeats
        self.runner: Runner | None = None
        store.on_commit(self._on_commit)

    async def start(self) -> None:
        """Take the lease, load what is known, listen on the bus. Raises when the bus cannot be served."""
        self.epoch = await self._store.run(leases.regain, PREFIX + self.name, self.name)
        await self._store.run(_register, self.name)
        self.observer.learn(await self.verdicts.load())
        await self.placer.load()
        await self.admission.look()
        await self.duty.look(await self._store.read(leases.listing))
        self.runner = self._runner_type(
            self._store,
            self._bus,
            self._clock,
            self.nudges,
            self._stories,
            self._settings,
            self.placer,
            self.name,
            self.epoch,
            self.admission,
        )
        await self._bus.serve(self.admission.on_notice)

    async def run(self) -> None:
        """Until cancelled, or until a part of it fails."""
        assert self.runner is not None, "start() first"
        upkeep = Upkeep(
            self._store,
            self._clock,
            self.runner,
            self.name,
            self.epoch,
            self.duty,
            self._settings,
            stamps=self.verdicts.stamps,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (
                    self.detector,
                    self.placer,
                    self.admission,
                    self.runner,
                    self._guests,
                    self._file_cleanup,
                    self._networks,
                    self._router_places,
                    upkeep,
                ):
                    group.create_task(loop.run(), name=type(loop).__name__)
                group.create_task(self.verdicts.run(self.detector), name="Verdicts")
                group.create_task(self.lag.run(), name="LoopLag")
                if self.tasks is not None:
                    self.tasks.collect(upkeep)
                    group.create_task(self.tasks.run(), name="PeriodicTasks")
                if self.members is not None:
                    group.create_task(self.members.run(), name="Members")
        finally:
            await self.runner.close()
            await self._bus.close()

    async def leave(self) -> None:
        """After `run`, when it was stopped in order: its services show down at once, and say why."""
        await self._store.run(_leave, self.name, self.epoch, self.verdicts.epoch)

    def _on_commit(self, topic: str) -> None:
        self.nudges.call(topic)
        if topic == services.FORGOTTEN:
            self.verdicts.learn_soon()

    def defer_to(self, beat: Callable[[str], None] | None, *, stamps: bool) -> None:
        """A membership driver is the failure detector: it gets the heartbeats that arrive here, and its answer is
        recorded. `stamps`: Updated_At is still written here."""
        self.observer.defer(beat)
        self.verdicts.stamps = stamps

    async def sagas_settled(self, saga_id: str, timeout_s: float) -> tuple[bool, str]:
        """Wait until a live migration has passed its checks (True), or has failed (False and the sentence)."""
        return await settled(self._store, self.nudges, self._clock, saga_id, timeout_s)


def _register(tx: Tx, name: str) -> None:
    for binary in services.CONTROL:
        services.register(tx, name, binary, service_kinds.INTERNAL_ZONE)
    services.record_control_state(tx, name, State.ALIVE, "it answers")


def _leave(tx: Tx, name: str, epoch: int, detector_epoch: int | None) -> None:
    if detector_epoch is not None:
        leases.release(tx, DETECTOR, detector_epoch)
    if leases.renew(tx, PREFIX + name, epoch):  # otherwise a newer control of that name is at work
        services.record_control_state(tx, name, State.STOPPED, "it was stopped")
