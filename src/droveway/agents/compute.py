"""The agent of one host: obeys fenced commands about guests (fenced.py), and says what its hypervisor says."""

from __future__ import annotations

import asyncio

import structlog

from droveway.agents import move_trials
from droveway.agents.consoles import Consoles
from droveway.agents.fenced import FencedAgent, OffLoop, in_thread
from droveway.agents.fences import Fence, Fences
from droveway.agents.guest_verbs import carry_out
from droveway.agents.pulse import Pulse
from droveway.agents.reports import Reports
from droveway.domain.model import SubjectKind
from droveway.periodic.tasks import PeriodicTasks
from droveway.ports.bus import (
    ABOUT_HOST,
    AdjustCopy,
    Admit,
    AgentBus,
    CheckDestination,
    CheckSource,
    Command,
    CopyDisk,
    DropFiles,
    Freeze,
    GuestChanged,
    Hello,
    Inspect,
    ListGuests,
    ListTasks,
    OpenConsole,
    Ping,
    Prepare,
    PrepareArrival,
    PrepareDisk,
    Reach,
    Remove,
    ResumePostCopy,
    SendCopy,
    Verb,
    Welcome,
)
from droveway.ports.clock import Clock
from droveway.ports.hypervisor import Hypervisor, HypervisorDown, HypervisorRefused
from droveway.ports.images import TicketWanted
from droveway.ports.kept_disk_verbs import KeepDisk, ListRootDisks
from droveway.ports.move_verbs import BaselineCpu, CompareCpu, LookForProbes, RemoveProbes, TryArrivals, TryDepartures
from droveway.ports.replies import (
    FILES_MAX,
    Answer,
    ConsoleOpened,
    GuestAdmitted,
    GuestStatus,
    HostInventory,
    ImageTicketNeeded,
    PingResult,
    ReachResult,
    Refused,
    RootDisks,
    Tasks,
    Unavailable,
)

log = structlog.get_logger("droveway.agent")
MAKES_DISKS = {  # and answers `working` as long as that takes
    Prepare: "made",
    PrepareDisk: "made",
    PrepareArrival: "made",
    CopyDisk: "copied",
    KeepDisk: "copied",
    SendCopy: "sent",
}


class ComputeAgent(FencedAgent):
    """One host's agent. `pulse` reports its progress to its host's heart. `guests_boot_id`: where guests end sooner
    than their machine does, the boot that they live in (simulated ones end with this process)."""

    # They look, or find it done, and their answer carries what they saw.
    LOOKS = (AdjustCopy, CheckDestination, CheckSource, CopyDisk, Freeze, ResumePostCopy)
    # The guest may then be made on another host, with a disk of the same name on the same store.
    ENDS = (Remove, DropFiles)
    NOUN = "guest"

    def __init__(
        self,
        host: str,
        boot_id: str,
        address: str,
        hypervisor: Hypervisor,
        bus: AgentBus,
        fences: Fences,
        clock: Clock,
        off_loop: OffLoop = in_thread,
        tasks: PeriodicTasks | None = None,
        pulse: Pulse | None = None,
        guests_boot_id: str = "",
        consoles: Consoles | None = None,
    ) -> None:
        super().__init__(fences, clock, off_loop)
        self._host, self._machine_boot_id, self._address = host, boot_id, address
        self._boot_id = boot_id = guests_boot_id or boot_id
        self._hypervisor, self._bus, self._tasks, self._consoles = hypervisor, bus, tasks, consoles
        self._pulse = pulse
        self.reports = Reports(host, boot_id, hypervisor, fences, clock, off_loop, tasks, bus.notify)
        self._changed: asyncio.Queue[str] = asyncio.Queue(1024)
        self._queued: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._hypervisor.open(self._on_changed, self._on_connection)
                group.create_task(self._bus.run(self._hello, self._on_welcome, self.handle))
                if self._pulse is not None:
                    group.create_task(self._pulse.run(), name="pulse")
                group.create_task(self.reports.run(), name="report")
                group.create_task(self._send_changes(), name="changes")
                if self._tasks is not None:
                    group.create_task(self._tasks.run())
        except asyncio.CancelledError:
            if self._pulse is not None:
                self._pulse.leave()
            raise
        finally:
            self.end_work()
            if self._consoles is not None:
                await self._consoles.close()
            await self._hypervisor.close()
            await self._bus.close()

    # -- what it says -------------------------------------------------------------------------------------------------
    def _hello(self) -> Hello:
        return Hello(self._host, self._machine_boot_id, self._address)

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._pulse is not None:
            self._pulse.set_interval(welcome.report_interval_s)
        if welcome.accepted:
            self.reports.ask()

    def _on_connection(self, is_up: bool, reason: str) -> None:
        self.reports.connected = (is_up, reason)
        self.reports.ask()

    def _on_changed(self, instance_id: str) -> None:
        if instance_id in self._queued:
            return
        try:
            self._changed.put_nowait(instance_id)
            self._queued.add(instance_id)
        except asyncio.QueueFull:
            self.reports.ask()  # one full report says it all

    async def _send_changes(self) -> None:
        while True:
            instance_id = await self._changed.get()
            self._queued.discard(instance_id)
            try:
                guest = await self._hypervisor.guest(instance_id)
            except (HypervisorDown, HypervisorRefused):
                continue
            self._bus.notify(GuestChanged(self._host, self._boot_id, guest))

    # -- what it does -------------------------------------------------------------------------------------------------
    async def handle(self, command: Command) -> Answer:
        """Carry the command out, once. Always answers."""
        if not isinstance(command.verb, ABOUT_HOST) and command.subject.kind is not SubjectKind.INSTANCE:
            return Refused(f"{type(command.verb).__name__} is done to an instance, not to {command.subject}")
        return await self.execute(command)

    def _trouble(self) -> str:
        """Of the instance store, which every command touches."""
        return self._hypervisor.store_trouble()

    def _progress(self, verb: Verb) -> str:
        progress = (
            self._hypervisor.progress(verb.spec) if isinstance(verb, (Prepare, PrepareDisk, PrepareArrival)) else ""
        )
        doing = MAKES_DISKS.get(type(verb), "")
        return progress or (f"its disk is being {doing}" if doing else "")

    async def _answer_again(self, command: Command, fence: Fence) -> Answer:
        try:
            guest = await self._hypervisor.guest(command.subject.id)
        except HypervisorDown as fault:
            return Unavailable(fault.reason)
        if fence.outcome == "refused":
            return Refused(fence.reason)
        if isinstance(command.verb, Admit):
            return GuestAdmitted(guest, self._hypervisor.endpoint(), self._boot_id)
        return GuestStatus(guest, self._boot_id)

    async def _act(self, command: Command) -> Answer:
        try:
            answer = await self._do(command.subject.id, command.verb)
            return answer if answer is not None else await self._as_it_stands(command.subject.id)
        except TicketWanted as fault:
            return ImageTicketNeeded(fault.reason, fault.challenge)
        except HypervisorRefused as fault:
            return Refused(fault.reason)
        except HypervisorDown as fault:
            return Unavailable(fault.reason)

    async def _as_it_stands(self, instance_id: str) -> Answer:
        return GuestStatus(await self._hypervisor.guest(instance_id), self._boot_id)

    async def _reach(self, verb: Reach) -> ReachResult:
        why_not = await self._hypervisor.reaches(verb.peer_uri, verb.within_s)
        if why_not and verb.reference_uri and await self._hypervisor.reaches(verb.reference_uri, verb.within_s):
            reason = f"this host reaches neither {verb.peer_uri} nor {verb.reference_uri}"
            return ReachResult(reached=False, reason=reason, is_cut_off=True)
        return ReachResult(not why_not, why_not)

    async def _do(self, instance_id: str, verb: Verb) -> Answer | None:
        """Answer, or None for `as it stands now`."""
        h = self._hypervisor
        match verb:
            case Inspect():
                pass
            case ListTasks():
                return Tasks(() if self._tasks is None else tuple(self._tasks.listing()))
            case ListGuests():
                return await self._belongings()
            case ListRootDisks():
                pool, disks = await h.root_disks()
                return RootDisks(pool, disks[:FILES_MAX])
            case Ping():
                return PingResult(self._boot_id)
            case Reach():
                return await self._reach(verb)
            case TryArrivals() | TryDepartures() | LookForProbes() | RemoveProbes() | BaselineCpu() | CompareCpu():
                return await move_trials.answer(h, verb)
            case OpenConsole():
                if self._consoles is None:
                    raise HypervisorRefused(f"Host {self._host} carries no consoles.")
                await self._consoles.open(instance_id, verb)
                return ConsoleOpened()
            case _:
                return await carry_out(h, self._boot_id, instance_id, verb)
        return None

    async def _belongings(self) -> HostInventory:
        h = self._hypervisor
        guests, admitted, files = await h.guests(), await h.admitted(), await h.files()
        return HostInventory(tuple(guests.values()), admitted, files[:FILES_MAX], self._boot_id)
