"""The service `droveway-scripts` of a host: runs the operator's scripts, apart from the compute agent.

Neither waits for the other: scripts run on while the compute agent is upgraded, hangs or is dead, and a script that
takes the memory or the descriptors of its process takes them from no command about a guest. It has no hypervisor, so it
reports its health: when a script begins or ceases to fail, and each minute.
"""

from __future__ import annotations

import asyncio
import contextlib

from droveway.agents.pulse import Pulse
from droveway.domain.service_kinds import SCRIPTS
from droveway.periodic.tasks import PeriodicTasks
from droveway.ports.bus import AgentBus, Command, Hello, ListTasks, Ping, ServiceReport, Welcome
from droveway.ports.clock import Clock
from droveway.ports.replies import Answer, PingResult, Refused, Tasks

FULL_S = 60.0
LOOK_S = 5.0  # between two looks at what has failed
NAMED_MAX = 5  # failed scripts in one sentence


class ScriptsAgent:
    """One host's. `pulse` reports its progress to its host's heart."""

    def __init__(
        self,
        host: str,
        boot_id: str,
        address: str,
        tasks: PeriodicTasks,
        bus: AgentBus,
        clock: Clock,
        pulse: Pulse | None = None,
    ) -> None:
        self._host, self._boot_id, self._address = host, boot_id, address
        self._tasks, self._bus, self._clock, self._pulse = tasks, bus, clock, pulse
        self._due = asyncio.Event()
        self._sent: tuple[bool, str] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._bus.run(self._hello, self._on_welcome, self.handle))
                group.create_task(self._tasks.run(), name="scripts")
                group.create_task(self._report(), name="report")
                if self._pulse is not None:
                    group.create_task(self._pulse.run(), name="pulse")
        except asyncio.CancelledError:
            if self._pulse is not None:
                self._pulse.leave()
            raise
        finally:
            await self._bus.close()

    def _hello(self) -> Hello:
        return Hello(self._host, self._boot_id, self._address, service=SCRIPTS)

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._pulse is not None:
            self._pulse.set_interval(welcome.report_interval_s)
        if welcome.accepted:
            self._sent = None
            self._due.set()

    async def handle(self, command: Command) -> Answer:
        """It only answers questions."""
        match command.verb:
            case Ping():
                return PingResult(self._boot_id)
            case ListTasks():
                return Tasks(tuple(self._tasks.listing()))
        return Refused(f"{SCRIPTS} on {self._host} runs scripts and has no guests")

    # -- what it reports ----------------------------------------------------------------------------------------------
    async def _report(self) -> None:
        full_at_s = self._clock.monotonic_s()
        while True:
            health, now_s = self.health(), self._clock.monotonic_s()
            if health != self._sent or now_s >= full_at_s:
                self._sent, full_at_s = health, now_s + FULL_S
                self._bus.notify(self._made(*health))
            self._due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, max(0.0, full_at_s - now_s))):
                    await self._due.wait()

    def health(self) -> tuple[bool, str]:
        """Whether every script went well when it last ran, and a sentence about those that did not."""
        listed = self._tasks.listing()
        failed = [f"{task.name} ({task.last_error})" for task in listed if task.last_error]
        count = f"{len(listed)} script{'' if len(listed) == 1 else 's'}"
        if not failed:
            return True, f"{count}, none of which failed when it last ran"
        more = f", and {len(failed) - NAMED_MAX} more" if len(failed) > NAMED_MAX else ""
        return False, f"{len(failed)} of {count} failed when last run: {', '.join(failed[:NAMED_MAX])}{more}"

    def _made(self, is_well: bool, reason: str) -> ServiceReport:
        tasks = self._tasks.metrics(self._host, SCRIPTS)
        return ServiceReport(self._host, SCRIPTS, self._boot_id, is_well, reason, tasks)
