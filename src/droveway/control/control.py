"""One control process: observer, saga runner, loops; and what the API may ask of it."""

from __future__ import annotations

import asyncio

from droveway.control.loops.guests import GuestsLoop
from droveway.control.loops.upkeep import PREFIX, Upkeep
from droveway.control.members import Members
from droveway.control.nudges import Nudges, wait
from droveway.control.observer import LivenessSettings, Observer
from droveway.control.runner import Runner, send
from droveway.control.saga import ControlSettings, Saga
from droveway.control.sagas import STORIES
from droveway.control.sagas.live_migration import CHECKED
from droveway.domain.faults import Conflict, StepFailed
from droveway.domain.model import ENDED_SAGA, SagaKind, SagaStatus
from droveway.ports.bus import Command, ControlBus, ReadConsole
from droveway.ports.clock import Clock
from droveway.store import leases, sagas, services
from droveway.store.transaction import Store, Tx

INTERNAL_ZONE = "internal"
CONSOLE_TIMEOUT_S = 5.0


class Control:
    def __init__(self, store: Store, bus: ControlBus, clock: Clock, name: str, settings: ControlSettings,
                 liveness: LivenessSettings, stories: dict[SagaKind, Saga] = STORIES,
                 runner: type[Runner] = Runner) -> None:  # fmt: skip
        self.name = name
        self._stories, self._runner_type = stories, runner
        self._store, self._bus, self._clock, self._settings = store, bus, clock, settings
        self.nudges = Nudges()
        self.observer = Observer(store, clock, self.nudges, liveness)
        self.epoch = 0
        self.members: Members | None = None  # a membership driver that judges in the observer's place
        self.runner: Runner | None = None
        store.on_commit(self.nudges.call)

    async def start(self) -> None:
        """Take the lease, load what is known, listen on the bus. Raises when the bus cannot be served."""
        self.epoch = await self._store.run(leases.regain, PREFIX + self.name, self.name)
        await self._store.run(_register, self.name)
        await self.observer.load()
        self.runner = self._runner_type(self._store, self._bus, self._clock, self.nudges, self._stories,
                                        self._settings, self.name, self.epoch)  # fmt: skip
        await self._bus.serve(self.observer.on_notice)

    async def run(self) -> None:
        """Until cancelled, or until a part of it fails."""
        assert self.runner is not None, "start() first"
        guests = GuestsLoop(self._store, self._bus, self.observer, self.nudges, self._settings)
        upkeep = Upkeep(self._store, self._clock, self.runner, self.name, self.epoch)
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (self.observer, self.runner, guests, upkeep):
                    group.create_task(loop.run(), name=type(loop).__name__)
                if self.members is not None:
                    group.create_task(self.members.run(), name="Members")
        finally:
            await self.runner.close()
            await self._bus.close()

    async def leave(self) -> None:
        """After `run`, when it was stopped in order: its services show down at once, and say why."""
        await self._store.run(_leave, self.name, self.epoch)

    # -- what the API may ask (read-only, with a deadline) -----------------------------------------------------------
    async def sagas_settled(self, saga_id: str, timeout_s: float) -> tuple[bool, str]:
        """Wait until a live migration has passed its checks (True), or has failed (False and the sentence)."""
        with self.nudges.listen(f"saga:{saga_id}") as woken:
            deadline_s = self._clock.monotonic_s() + timeout_s
            while True:
                row = await self._store.read(sagas.get, saga_id)
                if row["status"] in {SagaStatus.UNDONE, SagaStatus.BROKEN}:
                    return False, row["error"]
                is_forward = row["status"] == SagaStatus.FORWARD
                if (is_forward and row["position"] >= CHECKED) or row["status"] in ENDED_SAGA:
                    return True, ""
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s <= 0:
                    failed = row["status"] == SagaStatus.BACKWARD
                    return not failed, row["error"] if failed else "the checks are still under way"
                await wait(woken, min(left_s, 1.0))

    async def read_console(self, host: str, instance_id: str, length_lines: int | None) -> str:
        """The guest's console, from its host. Raises Unreachable, Conflict."""
        command = Command(instance_id, 0, ReadConsole(length_lines))
        try:
            return (await send(self._bus, host, command, CONSOLE_TIMEOUT_S)).text
        except StepFailed as refused:
            raise Conflict(refused.sentence) from None


def _register(tx: Tx, name: str) -> None:
    for binary in services.CONTROL:
        services.register(tx, name, binary, INTERNAL_ZONE)
    services.judge_control(tx, name, True, "it answers")


def _leave(tx: Tx, name: str, epoch: int) -> None:
    if leases.renew(tx, PREFIX + name, epoch):  # otherwise a newer control of that name is at work
        services.judge_control(tx, name, False, "it was stopped")
