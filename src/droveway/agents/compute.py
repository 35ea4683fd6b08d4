"""The agent of one host: obeys fenced commands about guests, and says what its hypervisor says.

Commands about one guest run one after the other. A newer generation waits for the older call in flight and goes on
from what it left; an older one is refused; the same one again is answered from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from droveway.agents.consoles import Consoles
from droveway.agents.fences import Fence, Fences
from droveway.agents.guest_verbs import carry_out
from droveway.agents.pulse import Pulse
from droveway.agents.reports import Reports
from droveway.domain.model import Subject, SubjectKind
from droveway.periodic.tasks import PeriodicTasks
from droveway.ports.bus import (
    ABOUT_HOST,
    READ_ONLY,
    Admit,
    AgentBus,
    CheckDestination,
    CheckSource,
    Command,
    CopyDisk,
    DropFiles,
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
    SendCopy,
    Verb,
    Welcome,
)
from droveway.ports.clock import Clock
from droveway.ports.hypervisor import Hypervisor, HypervisorDown, HypervisorRefused
from droveway.ports.images import TicketWanted
from droveway.ports.replies import (
    FAILURES,
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
    StaleFence,
    Tasks,
    Unavailable,
    Working,
)

log = structlog.get_logger("droveway.agent")
ANSWER_S = 3.0  # a command that takes longer is answered with `working`
WORKS_MAX_S = 3600.0  # one that takes longer is as good as unanswered: an image is copied in that time
# A repeated one of these is carried out again: they look, or find it done, and their answer carries what they saw.
LOOKS = (CheckDestination, CheckSource, CopyDisk)
DELETES = (Remove, DropFiles)
MAKES_DISKS = {  # and answers `working` as long as that takes
    Prepare: "made",
    PrepareDisk: "made",
    PrepareArrival: "made",
    CopyDisk: "copied",
    SendCopy: "sent",
}

OffLoop = Callable[[Callable[[], None]], Awaitable[None]]


async def in_thread(call: Callable[[], None]) -> None:
    await asyncio.to_thread(call)


class ComputeAgent:
    """One host's agent. `off_loop` runs a short blocking call (an fsync) where it does not stall the loop; `pulse`
    reports its progress to its host's heart. `guests_boot_id`: where guests end sooner than their machine does, the
    boot that they live in (simulated ones end with this process)."""

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
        self._host, self._machine_boot_id, self._address = host, boot_id, address
        self._boot_id = boot_id = guests_boot_id or boot_id
        self._hypervisor, self._bus, self._fences, self._clock = hypervisor, bus, fences, clock
        self._off_loop, self._tasks, self._consoles = off_loop, tasks, consoles
        self._pulse = pulse
        self._turns: dict[Subject, _SubjectLock] = {}
        # Commands being carried out, by subject, and since when.
        self._working: dict[Subject, tuple[asyncio.Task[Answer], float]] = {}
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
            for task, _ in self._working.values():
                task.cancel()
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
        if isinstance(command.verb, READ_ONLY):
            return await self._act(command)
        async with self._turn(command.subject):
            return await self._execute_in_turn(command)

    async def _execute_in_turn(self, command: Command) -> Answer:
        subject, verb = command.subject, type(command.verb).__name__
        fence = self._fences.read(subject)
        if self._is_stale(command, fence):
            reason = f"generation {command.generation} is older than {fence.generation}"
            return StaleFence(reason, fence.generation)
        working = self._working.get(subject)
        if working is not None and (command.generation, verb) != (fence.generation, fence.verb):
            # Of an older generation: it is adopted, not raced with. Its caller has gone; so has its outcome.
            _, pending = await asyncio.wait({working[0]}, timeout=ANSWER_S)
            if pending:
                return self._hung(subject) or Working("an earlier command about this guest is at work")
        again = command.generation == fence.generation and fence.verb == verb and fence.outcome != ""
        if again and not isinstance(command.verb, LOOKS):
            return await self._answer_again(command, fence)
        if command.generation > fence.generation or fence.verb != verb:
            begun = Fence(command.generation, verb)
            try:
                await self._off_loop(lambda: self._fences.write(subject, begun))
            except OSError as error:  # what is not on the disk must not be acted on
                return Unavailable(f"the fence cannot be written ({error.strerror}): nothing was done")
        return await self._wait_for(command)

    async def _wait_for(self, command: Command) -> Answer:
        """The command is carried out however long it takes, and a repeated command joins it; the answer waits no longer
        than a disk takes to be made, or than the instance store answers."""
        subject = command.subject
        task, _ = self._working.get(subject, (None, 0.0))
        if task is None or task.done():
            task = asyncio.create_task(self._carry_out(command))
            self._working[subject] = task, self._clock.monotonic_s()
            task.add_done_callback(lambda done: self._worked(subject, done))
        while True:
            await asyncio.wait({task}, timeout=ANSWER_S)
            if task.done():
                return task.result()
            hung = self._hung(subject)
            if hung is not None:
                return hung
            if (doing := MAKES_DISKS.get(type(command.verb))) is not None:
                is_made = isinstance(command.verb, (Prepare, PrepareDisk, PrepareArrival))
                progress = self._hypervisor.progress(command.verb.spec) if is_made else ""  # type: ignore[union-attr]
                return Working(progress or f"its disk is being {doing}")

    def _hung(self, subject: Subject) -> Answer | None:
        """Why control should not wait for what is carried out there."""
        trouble = self._hypervisor.store_trouble()
        _, since_s = self._working[subject]
        if not trouble and self._clock.monotonic_s() - since_s > WORKS_MAX_S:
            trouble = f"a command about this guest has been at work for more than {WORKS_MAX_S / 60:.0f} minutes"
        return Unavailable(trouble) if trouble else None

    def _worked(self, subject: Subject, task: asyncio.Task[Answer]) -> None:
        if subject in self._working and self._working[subject][0] is task:
            del self._working[subject]
        if not task.cancelled():
            task.exception()  # retrieved: the waiters have it too

    async def _carry_out(self, command: Command) -> Answer:
        """The result is kept for a repeated command: there may be no waiter left."""
        subject, answer = command.subject, await self._act(command)
        outcome = "refused" if isinstance(answer, Refused) else "" if isinstance(answer, FAILURES) else "ok"
        if outcome:
            reason = answer.reason if isinstance(answer, Refused) else ""
            done = Fence(command.generation, type(command.verb).__name__, outcome, reason)
            if isinstance(command.verb, DELETES) and outcome == "ok":
                return await self._removed(subject, done, answer)
            with contextlib.suppress(OSError):  # only a repeat would miss it, and carries out an idempotent verb again
                self._fences.note(subject, done)
        return answer

    async def _removed(self, subject: Subject, done: Fence, answer: Answer) -> Answer:
        """Once this is answered the guest may be made on another host, with a disk of the same name on the same store.
        A doubled message that comes late must not delete that one, whatever happened here meanwhile."""
        try:
            await self._off_loop(lambda: self._fences.write(subject, done))
        except OSError as error:
            return Unavailable(f"it was removed, but the fence cannot be written ({error.strerror})")
        return answer

    def _is_stale(self, command: Command, fence: Fence) -> bool:
        """The fence: a command below the highest generation seen is of a replaced owner."""
        return command.generation < fence.generation

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
            case Ping():
                return PingResult(self._boot_id)
            case Reach():
                return await self._reach(verb)
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

    def _turn(self, subject: Subject) -> _SubjectLock:
        turn = self._turns.get(subject)
        if turn is None:
            turn = self._turns[subject] = _SubjectLock(self._turns, subject)
        return turn


class _SubjectLock:
    """A lock a subject, kept only while it is held or waited for."""

    def __init__(self, turns: dict[Subject, _SubjectLock], subject: Subject) -> None:
        self._turns, self._subject = turns, subject
        self._lock = asyncio.Lock()
        self._users = 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except asyncio.CancelledError:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            del self._turns[self._subject]
