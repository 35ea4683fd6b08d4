"""The service `cinder-backup` of a host: keeps the store of backups. What volumes hold comes into it by the services of
their backends, which alone have their bytes; this one takes out what is deleted, and says whether the store answers.
"""

from __future__ import annotations

import asyncio
import contextlib

from droveway.agents.backup_chunks import BackupChunks
from droveway.agents.fenced import FencedAgent, OffLoop, in_thread
from droveway.agents.fences import Fence, Fences
from droveway.agents.health import HealthReports
from droveway.agents.pulse import Pulse
from droveway.domain.model import SubjectKind
from droveway.domain.service_kinds import BACKUP
from droveway.ports.backups import BackupsDown, BackupsRefused
from droveway.ports.bus import AgentBus, Command, Hello, ListTasks, Ping, Verb, Welcome
from droveway.ports.clock import Clock
from droveway.ports.replies import Answer, BackupDone, PingResult, Refused, Tasks, Unavailable
from droveway.ports.volume_verbs import DeleteBackup

LOOK_S = 15.0
NO_STORE = "it knows no store of backups: [backup] is missing in its configuration"


class BackupAgent(FencedAgent):
    """One host's. `chunks`: the store; None where the configuration names none."""

    ENDS = (DeleteBackup,)
    NOUN = "backup"

    def __init__(
        self,
        host: str,
        boot_id: str,
        address: str,
        chunks: BackupChunks | None,
        bus: AgentBus,
        fences: Fences,
        clock: Clock,
        off_loop: OffLoop = in_thread,
        pulse: Pulse | None = None,
    ) -> None:
        super().__init__(fences, clock, off_loop)
        self._host, self._boot_id, self._address = host, boot_id, address
        self._chunks, self._bus, self._pulse = chunks, bus, pulse
        self._unwell = "its store of backups has not been looked at yet"
        self.reports = HealthReports(host, BACKUP, boot_id, bus, clock, self.health)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                if self._pulse is not None:
                    group.create_task(self._pulse.run(), name="pulse")
                group.create_task(self._bus.run(self._hello, self._on_welcome, self.handle))
                group.create_task(self.reports.run(), name="report")
                group.create_task(self._look_again(), name="look")
        except asyncio.CancelledError:
            if self._pulse is not None:
                self._pulse.leave()
            raise
        finally:
            self.end_work()
            if self._chunks is not None:
                await self._chunks.close()
            await self._bus.close()

    def _hello(self) -> Hello:
        return Hello(self._host, self._boot_id, self._address, service=BACKUP)

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._pulse is not None:
            self._pulse.set_interval(welcome.report_interval_s)
        if welcome.accepted:
            self.reports.ask()

    # -- what it does -------------------------------------------------------------------------------------------------
    async def handle(self, command: Command) -> Answer:
        """Carry the command out, once. Always answers."""
        match command.verb:
            case Ping():
                return PingResult(self._boot_id)
            case ListTasks():
                return Tasks()
            case DeleteBackup() if command.subject.kind is SubjectKind.BACKUP:
                return await self.execute(command)
        return Refused(f"{BACKUP} on {self._host} keeps backups, and does no {type(command.verb).__name__}")

    def _progress(self, verb: Verb) -> str:
        return "what no backup holds is taken from the store"

    async def _answer_again(self, command: Command, fence: Fence) -> Answer:
        return Refused(fence.reason) if fence.outcome == "refused" else BackupDone()

    async def _act(self, command: Command) -> Answer:
        if self._chunks is None:
            return Refused(f"{BACKUP} on {self._host}: {NO_STORE}")
        try:
            await self._chunks.delete(command.subject.id)
        except BackupsRefused as fault:
            return Refused(fault.reason)
        except BackupsDown as fault:
            return Unavailable(fault.reason)
        return BackupDone()

    # -- what it reports ----------------------------------------------------------------------------------------------
    def health(self) -> tuple[bool, str]:
        return not self._unwell, self._unwell or "its store of backups answers"

    async def _look_again(self) -> None:
        while True:
            await self.look()
            with contextlib.suppress(TimeoutError):
                await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        before = self._unwell
        try:
            if self._chunks is not None:
                await self._chunks.begin()
            self._unwell = NO_STORE if self._chunks is None else ""
        except (BackupsRefused, BackupsDown) as fault:
            self._unwell = fault.reason
        if self._unwell != before:
            self.reports.look()
