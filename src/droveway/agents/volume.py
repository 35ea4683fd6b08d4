"""The service `cinder-volume@BACKEND` of a host: obeys fenced commands about the volumes of one backend, and reports
how its pool stands.

What it has admitted outlives it (ports/storage.py): a guest does not see that it ends. A backend that is away ends
nothing either: the process answers and reports that, and looks again until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog

from droveway.agents.backup_chunks import BackupChunks, BackupPlan
from droveway.agents.fenced import FencedAgent, OffLoop, in_thread
from droveway.agents.fences import REPORT, Fence, Fences
from droveway.agents.health import HealthReports, PoolReport
from droveway.agents.pulse import Pulse
from droveway.domain.model import Subject, SubjectKind
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.model import BackendSettings, StoragePool
from droveway.ports.backups import BackupsDown, BackupsRefused
from droveway.ports.bus import ABOUT_HOST, AgentBus, Command, Hello, ListTasks, Ping, Verb, Welcome
from droveway.ports.clock import Clock
from droveway.ports.images import TicketWanted
from droveway.ports.replies import (
    Answer,
    ImageTicketNeeded,
    PingResult,
    PoolStatus,
    Refused,
    Tasks,
    Unavailable,
    VolumeAdmitted,
    VolumeBackedUp,
    VolumeDone,
    VolumeList,
    VolumeSent,
)
from droveway.ports.storage import Storage, StorageDown, StorageRefused
from droveway.ports.volume_verbs import (
    AdmitVolume,
    BackupVolume,
    CreateVolume,
    DeleteSnapshot,
    DeleteVolume,
    ExtendVolume,
    FillVolume,
    ForgetBackup,
    ListVolumes,
    ReadPool,
    RestoreBackup,
    RevertVolume,
    SendVolume,
    SnapshotVolume,
    WithdrawVolume,
)

log = structlog.get_logger("droveway.volume")
LOOK_S = 5.0  # between two looks at the pool
AGAIN_S = 2.0  # while something is wrong with it
POOL_ANSWER_S = 10.0  # a pool that does not answer for so long is out of reach
FREE_CHANGED = 0.01  # of all; less is not worth a report
AS_IT_IS = BackendSettings()
MADE = {
    CreateVolume: "made",
    FillVolume: "filled",
    SendVolume: "sent",
    DeleteVolume: "deleted",
    ExtendVolume: "extended",
    SnapshotVolume: "snapshotted",
    DeleteSnapshot: "freed of a snapshot",
    RevertVolume: "reverted",
    AdmitVolume: "exported",
    WithdrawVolume: "withdrawn",
    BackupVolume: "backed up",
    RestoreBackup: "restored",
    ForgetBackup: "freed of a backup",
}


class VolumeAgent(FencedAgent):
    """Of one backend. `name`: the service's on its host. `pulse` reports its progress to its host's heart."""

    LOOKS = (AdmitVolume, SendVolume, BackupVolume)  # their answer carries what was made
    ENDS = (DeleteVolume,)
    NOUN = "volume"
    WORKS_MAX_S = 24 * 3600.0  # all of a large one is read for a backup

    def __init__(
        self,
        host: str,
        name: str,
        boot_id: str,
        address: str,
        storage: Storage,
        bus: AgentBus,
        fences: Fences,
        clock: Clock,
        settings: BackendSettings = AS_IT_IS,
        off_loop: OffLoop = in_thread,
        pulse: Pulse | None = None,
        trouble: str = "",
        backups: BackupChunks | None = None,
    ) -> None:
        """`trouble`: why its driver could not be made; then it is not opened, and that is said. `backups`: where they
        lie, as the configuration says."""
        super().__init__(fences, clock, off_loop)
        self._host, self._name, self._boot_id, self._address = host, name, boot_id, address
        self._storage, self._bus, self._settings, self._pulse = storage, bus, settings, pulse
        self._backups = backups
        self._is_open, self._is_wrong = False, bool(trouble)
        self._unwell = trouble or "its backend has not been looked at yet"
        self._reported = PoolReport()
        self._look_soon = asyncio.Event()
        self.reports = HealthReports(host, name, boot_id, bus, clock, self.health, pool=lambda: self._reported)

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
            await self._storage.close()
            await self._bus.close()

    def _hello(self) -> Hello:
        return Hello(self._host, self._boot_id, self._address, service=self._name)

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._pulse is not None:
            self._pulse.set_interval(welcome.report_interval_s)
        if welcome.accepted:
            self.reports.ask()

    # -- what it does -------------------------------------------------------------------------------------------------
    async def handle(self, command: Command) -> Answer:
        """Carry the command out, once. Always answers."""
        verb = command.verb
        if not isinstance(verb, (*ABOUT_HOST, *MADE)):
            return Refused(f"{self._name} on {self._host} has volumes, and does no {type(verb).__name__}")
        if isinstance(verb, tuple(MADE)) and command.subject.kind is not SubjectKind.VOLUME:
            return Refused(f"{type(verb).__name__} is done to a volume, not to {command.subject}")
        return await self.execute(command)

    def _named(self, verb: Verb) -> str:
        """A volume has several snapshots, and goes to several hosts."""
        match verb:
            case SnapshotVolume(snapshot_id) | DeleteSnapshot(snapshot_id):
                return f"{type(verb).__name__} {snapshot_id}"
            case AdmitVolume(host=host) | WithdrawVolume(host=host):
                return f"{type(verb).__name__} {host}"
            case BackupVolume(backup_id=backup_id) | RestoreBackup(backup_id=backup_id) | ForgetBackup(backup_id):
                return f"{type(verb).__name__} {backup_id}"
        return type(verb).__name__

    def _progress(self, verb: Verb) -> str:
        return f"the volume is being {MADE[type(verb)]}"

    def _trouble(self) -> str:
        return self._unwell

    async def _answer_again(self, command: Command, fence: Fence) -> Answer:
        return Refused(fence.reason) if fence.outcome == "refused" else VolumeDone()

    async def _act(self, command: Command) -> Answer:
        match command.verb:
            case Ping():
                return PingResult(self._boot_id)
            case ListTasks():
                return Tasks()
        if not self._is_open:
            return Unavailable(self._unwell)
        try:
            return await self._do(command.subject, command.verb)
        except TicketWanted as fault:
            return ImageTicketNeeded(fault.reason, fault.challenge)
        except (StorageRefused, BackupsRefused) as fault:
            return Refused(fault.reason)
        except StorageDown as fault:
            self._look_soon.set()
            return Unavailable(fault.reason)
        except BackupsDown as fault:  # the saga asks again by itself; who waits is told
            return Unavailable(fault.reason)

    async def _do(self, subject: Subject, verb: Verb) -> Answer:
        storage = self._storage
        match verb:
            case ReadPool():
                return PoolStatus(self._set(await storage.pool()))
            case ListVolumes():
                return VolumeList(await storage.inventory())
            case AdmitVolume(volume, host, read_only, identity):
                return VolumeAdmitted(await storage.admit(volume, host, read_only=read_only, identity=identity))
            case SendVolume(volume, image_id, disk_format, ticket):
                return VolumeSent(await storage.send(volume, image_id, disk_format, ticket))
            case BackupVolume(volume, backup_id, parent_id, snapshot_id, former):
                plan = BackupPlan(backup_id, volume, parent_id, snapshot_id, former)
                return VolumeBackedUp(*await self._store().make(storage, plan))
            case _:
                await self._make(subject.id, verb)
                self._look_soon.set()
                return VolumeDone()

    async def _make(self, volume_id: str, verb: Verb) -> None:
        storage = self._storage
        match verb:
            case CreateVolume(volume, origin):
                await storage.create(volume, origin)
            case FillVolume(volume, image, ticket):
                await storage.fill(volume, image, ticket)
            case DeleteVolume():
                await storage.delete(volume_id)
            case ExtendVolume(volume):
                await storage.extend(volume)
            case SnapshotVolume(snapshot_id):
                await storage.snapshot(volume_id, snapshot_id)
            case DeleteSnapshot(snapshot_id):
                await storage.delete_snapshot(volume_id, snapshot_id)
            case RevertVolume(volume, snapshot_id):
                await storage.revert(volume, snapshot_id)
            case WithdrawVolume(host, force):
                await storage.withdraw(volume_id, host, force=force)
            case RestoreBackup(volume, backup_id, is_blank):
                await self._store().restore(storage, volume, backup_id, is_blank=is_blank)
            case ForgetBackup(backup_id):
                if self._backups is not None:
                    await self._backups.forget(storage, volume_id, backup_id)

    def _store(self) -> BackupChunks:
        """Raises BackupsRefused."""
        if self._backups is None:
            raise BackupsRefused(f"{self._name} on {self._host} knows no store of backups: [backup] is missing there.")
        return self._backups

    # -- how its pool stands ------------------------------------------------------------------------------------------
    def health(self) -> tuple[bool, str]:
        """Whether volumes can be made there, and a sentence."""
        pool = self._reported.pool
        if self._unwell or pool is None:
            return False, self._unwell
        if pool.free_gb <= 0:
            return False, f"its pool is full: none of {pool.total_gb:g} GiB is free"
        return True, f"{pool.free_gb:.1f} of {pool.total_gb:.1f} GiB are free"

    async def _look_again(self) -> None:
        while True:
            await self.look()
            wait_s = AGAIN_S if self._unwell else LOOK_S
            await self._clock.sleep(1.0)  # however often something is made
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s - 1.0):
                    await self._look_soon.wait()
            self._look_soon.clear()

    async def look(self) -> None:
        """How its backend stands now."""
        if self._is_wrong:
            return
        before = self._unwell
        try:
            async with asyncio.timeout(POOL_ANSWER_S):
                if not self._is_open:
                    await self._storage.open()
                    self._is_open = True
                pool = self._set(await self._storage.pool())
        except TimeoutError:
            self._unwell = f"its pool is out of reach: nothing was answered within {POOL_ANSWER_S:.0f} s"
        except StorageDown as fault:
            self._unwell = f"its pool is out of reach: {fault.reason}"
        except StorageRefused as fault:
            self._unwell = f"its driver refuses: {fault.reason}"
        else:
            self._unwell = f"its pool cannot be used: {pool.trouble}" if pool.trouble else ""
            await self._report(pool)
        if self._unwell and self._reported.pool is not None and self._reported.pool.trouble != self._unwell:
            await self._report(msgspec.structs.replace(self._reported.pool, trouble=self._unwell))
        if self._unwell != before:
            log.info("backend", service=self._name, is_well=not self._unwell, because=self._unwell)
            self.reports.look()

    def _set(self, pool: StoragePool) -> StoragePool:
        return msgspec.structs.replace(pool, settings=self._settings)

    async def _report(self, pool: StoragePool) -> None:
        """What differs from what was reported last has a generation of its own, kept first, and never below the clock's
        seconds: so a late report is known for one also when the files of this host were lost."""
        before = self._reported.pool
        if before is not None and _says_the_same(before, pool):
            return
        generation = max(self._fences.read(REPORT).generation + 1, self._clock.now_us() // 1_000_000)
        with contextlib.suppress(OSError):  # it is unique as long as this process lives
            await self._off_loop(lambda: self._fences.write(REPORT, Fence(generation, "pool")))
        self._reported = PoolReport(pool, generation)
        self.reports.look()


def _says_the_same(before: StoragePool, now: StoragePool) -> bool:
    change_gb = abs(before.free_gb - now.free_gb)
    is_full = before.free_gb <= 0, now.free_gb <= 0
    near = change_gb <= FREE_CHANGED * max(1.0, now.total_gb) and is_full[0] == is_full[1]
    return near and msgspec.structs.replace(before, free_gb=now.free_gb) == now


def service_of(backend: str) -> str:
    """The name of the service of that backend on its host."""
    return f"{VOLUME}@{backend}"
