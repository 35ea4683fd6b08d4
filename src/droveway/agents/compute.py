"""The agent of one host: obeys fenced commands about guests, and says what its hypervisor says.

Commands about one guest run one after the other. A newer generation waits for the older call in flight and goes on
from what it left; an older one is refused; the same one again is answered from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from droveway.agents.fences import Fence, Fences
from droveway.agents.pulse import Pulse
from droveway.agents.reports import Reports
from droveway.domain.model import Guest, GuestState
from droveway.periodic.tasks import PeriodicTasks
from droveway.ports.bus import (
    ASKS,
    FILES_MAX,
    AbortCopy,
    Admit,
    AgentBus,
    Answer,
    BeginCopy,
    Belongings,
    CheckDestination,
    CheckSource,
    Command,
    Dismiss,
    GuestChanged,
    Hello,
    Inspect,
    ListGuests,
    ListTasks,
    Ping,
    PowerCycle,
    Prepare,
    Reach,
    ReadConsole,
    Release,
    Remove,
    RemoveProbe,
    Start,
    Stop,
    Verb,
    Welcome,
)
from droveway.ports.clock import Clock
from droveway.ports.hypervisor import Hypervisor, HypervisorDown, HypervisorRefused
from droveway.ports.images import TicketWanted

log = structlog.get_logger("droveway.agent")
ANSWER_S = 3.0  # a command that takes longer is answered with `working`
WORKS_MAX_S = 3600.0  # one that takes longer is as good as unanswered: an image is copied in that time
# A repeated one of these is carried out again: they only look, and their answer carries what they saw.
LOOKS = (CheckDestination, CheckSource)

OffLoop = Callable[[Callable[[], None]], Awaitable[None]]


async def in_thread(call: Callable[[], None]) -> None:
    await asyncio.to_thread(call)


class ComputeAgent:
    """One host's agent. `off_loop` runs a short blocking call (an fsync) where it does not stall the loop; `pulse`
    makes its life known to its host's heart. `guests_boot_id`: where guests end sooner than their machine does, the
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
    ) -> None:
        self._host, self._machine_boot_id, self._address = host, boot_id, address
        self._boot_id = boot_id = guests_boot_id or boot_id
        self._hypervisor, self._bus, self._fences, self._clock = hypervisor, bus, fences, clock
        self._off_loop, self._tasks = off_loop, tasks
        self._pulse = pulse
        self._turns: dict[str, _Turn] = {}
        # Commands being carried out, by instance, and since when.
        self._working: dict[str, tuple[asyncio.Task[Answer], float]] = {}
        self.reports = Reports(host, boot_id, hypervisor, fences, clock, off_loop, tasks, bus.tell)
        self._changed: asyncio.Queue[str] = asyncio.Queue(1024)
        self._queued: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._hypervisor.open(self._on_changed, self._on_connection)
                group.create_task(self._bus.run(self._hello, self._on_welcome, self.obey))
                if self._pulse is not None:
                    group.create_task(self._pulse.run(), name="pulse")
                group.create_task(self.reports.run(), name="report")
                group.create_task(self._tell_changes(), name="changes")
                if self._tasks is not None:
                    group.create_task(self._tasks.run())
        except asyncio.CancelledError:
            if self._pulse is not None:
                self._pulse.leave()
            raise
        finally:
            for task, _ in self._working.values():
                task.cancel()
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

    def _on_connection(self, is_up: bool, sentence: str) -> None:
        self.reports.connected = (is_up, sentence)
        self.reports.ask()

    def _on_changed(self, instance_id: str) -> None:
        if instance_id in self._queued:
            return
        try:
            self._changed.put_nowait(instance_id)
            self._queued.add(instance_id)
        except asyncio.QueueFull:
            self.reports.ask()  # one full report says it all

    async def _tell_changes(self) -> None:
        while True:
            instance_id = await self._changed.get()
            self._queued.discard(instance_id)
            try:
                guest = await self._hypervisor.guest(instance_id)
            except (HypervisorDown, HypervisorRefused):
                continue
            self._bus.tell(GuestChanged(self._host, self._boot_id, guest))

    # -- what it does -------------------------------------------------------------------------------------------------
    async def obey(self, command: Command) -> Answer:
        """Carry the command out, once. Always answers."""
        if isinstance(command.verb, ASKS):
            return await self._act(command)
        async with self._turn(command.instance_id):
            return await self._obey_in_turn(command)

    async def _obey_in_turn(self, command: Command) -> Answer:
        instance_id, verb = command.instance_id, type(command.verb).__name__
        fence = self._fences.read(instance_id)
        if self._is_stale(command, fence):
            sentence = f"generation {command.generation} is older than {fence.generation}"
            return Answer("stale", sentence, generation=fence.generation)
        working = self._working.get(instance_id)
        if working is not None and (command.generation, verb) != (fence.generation, fence.verb):
            # Of an older generation: it is adopted, not raced with. Its caller has gone; so has its outcome.
            _, pending = await asyncio.wait({working[0]}, timeout=ANSWER_S)
            if pending:
                return self._hung(instance_id) or Answer("working", "an earlier command about this guest is at work")
        again = command.generation == fence.generation and fence.verb == verb and fence.outcome != ""
        if again and not isinstance(command.verb, LOOKS):
            return await self._answer_again(command, fence)
        if command.generation > fence.generation or fence.verb != verb:
            begun = Fence(command.generation, verb)
            try:
                await self._off_loop(lambda: self._fences.write(instance_id, begun))
            except OSError as error:  # what is not on the disk must not be acted on
                return Answer("down", f"the fence cannot be written ({error.strerror}): nothing was done")
        return await self._wait_for(command)

    async def _wait_for(self, command: Command) -> Answer:
        """The command is carried out however long it takes, and whoever asks again joins it; the answer waits no longer
        than a disk takes to be made, or than the instance store answers."""
        instance_id = command.instance_id
        task, _ = self._working.get(instance_id, (None, 0.0))
        if task is None or task.done():
            task = asyncio.create_task(self._carry_out(command))
            self._working[instance_id] = task, self._clock.monotonic_s()
            task.add_done_callback(lambda done: self._worked(instance_id, done))
        while True:
            await asyncio.wait({task}, timeout=ANSWER_S)
            if task.done():
                return task.result()
            hung = self._hung(instance_id)
            if hung is not None:
                return hung
            if isinstance(command.verb, Prepare):
                return Answer("working", self._hypervisor.progress(command.verb.spec) or "its disk is being made")

    def _hung(self, instance_id: str) -> Answer | None:
        """Why nobody should wait for what is carried out there."""
        trouble = self._hypervisor.store_trouble()
        _, since_s = self._working[instance_id]
        if not trouble and self._clock.monotonic_s() - since_s > WORKS_MAX_S:
            trouble = f"a command about this guest has been at work for more than {WORKS_MAX_S / 60:.0f} minutes"
        return Answer("down", trouble) if trouble else None

    def _worked(self, instance_id: str, task: asyncio.Task[Answer]) -> None:
        if instance_id in self._working and self._working[instance_id][0] is task:
            del self._working[instance_id]
        if not task.cancelled():
            task.exception()  # retrieved: whoever waits has it too

    async def _carry_out(self, command: Command) -> Answer:
        """What came of it is kept for whoever asks again: nobody may be waiting any more."""
        instance_id, answer = command.instance_id, await self._act(command)
        if answer.outcome in {"ok", "refused"}:
            done = Fence(command.generation, type(command.verb).__name__, answer.outcome, answer.sentence)
            if isinstance(command.verb, Remove) and answer.outcome == "ok":
                return await self._removed(instance_id, done, answer)
            with contextlib.suppress(OSError):  # only a repeat would miss it, and carries out an idempotent verb again
                self._fences.note(instance_id, done)
        return answer

    async def _removed(self, instance_id: str, done: Fence, answer: Answer) -> Answer:
        """Once this is answered the guest may be made on another host, with a disk of the same name on the same store.
        A doubled message that comes late must not delete that one, whatever happened here meanwhile."""
        try:
            await self._off_loop(lambda: self._fences.write(instance_id, done))
        except OSError as error:
            return Answer("down", f"it was removed, but the fence cannot be written ({error.strerror})")
        return answer

    def _is_stale(self, command: Command, fence: Fence) -> bool:
        """The fence: whoever sends a generation below the highest that was seen has been replaced."""
        return command.generation < fence.generation

    async def _answer_again(self, command: Command, fence: Fence) -> Answer:
        try:
            guest = await self._hypervisor.guest(command.instance_id)
        except HypervisorDown as fault:
            return Answer("down", fault.sentence)
        endpoint = self._hypervisor.endpoint() if isinstance(command.verb, Admit) else None
        return Answer(fence.outcome, fence.sentence, guest=guest, endpoint=endpoint, boot_id=self._boot_id)

    async def _act(self, command: Command) -> Answer:
        try:
            answer = await self._do(command.instance_id, command.verb)
            return answer if answer is not None else await self._as_it_stands(command.instance_id)
        except TicketWanted as fault:
            return Answer("working", fault.sentence, challenge=fault.challenge)
        except HypervisorRefused as fault:
            return Answer("refused", fault.sentence)
        except HypervisorDown as fault:
            return Answer("down", fault.sentence)

    async def _as_it_stands(self, instance_id: str) -> Answer:
        return Answer("ok", guest=await self._hypervisor.guest(instance_id), boot_id=self._boot_id)

    async def _reach(self, verb: Reach) -> Answer:
        why_not = await self._hypervisor.reaches(verb.peer_uri, verb.within_s)
        if why_not and verb.reference_uri and await self._hypervisor.reaches(verb.reference_uri, verb.within_s):
            return Answer("down", f"this host reaches neither {verb.peer_uri} nor {verb.reference_uri}")
        return Answer("refused" if why_not else "ok", why_not)

    async def _do(self, instance_id: str, verb: Verb) -> Answer | None:
        """Answer, or None for `as it stands now`."""
        h = self._hypervisor
        match verb:
            case Inspect():
                pass
            case ListTasks():
                return Answer("ok", text="[]" if self._tasks is None else self._tasks.json())
            case ListGuests():
                return Answer("ok", boot_id=self._boot_id, text=(await self._belongings()).decode())
            case Ping():
                return Answer("ok", boot_id=self._boot_id)
            case Reach():
                return await self._reach(verb)
            case ReadConsole(length_lines):
                return Answer("ok", text=await h.console(instance_id, length_lines))
            case Prepare(spec, ticket):
                await h.prepare(spec, ticket)
            case Start(spec):
                await h.start(spec)
            case Stop(grace_s):
                await h.stop(instance_id, grace_s)
            case PowerCycle(spec, grace_s):
                await h.stop(instance_id, grace_s)
                await h.start(spec)
            case Remove():
                await h.remove(instance_id)
                return Answer("ok", guest=Guest(instance_id, GuestState.ABSENT), boot_id=self._boot_id)
            case CheckDestination(spec, source_cpu_xml, probe):
                await h.check_incoming(spec, source_cpu_xml)
                await h.write_probe(probe)
            case CheckSource(probe):
                seen = await h.sees_probe(probe)
                return Answer("ok", guest=await h.guest(instance_id), shared_store=seen, boot_id=self._boot_id)
            case RemoveProbe(probe):
                await h.remove_probe(probe)
            case Admit(spec):
                if (await h.guest(instance_id)).state is not GuestState.RUNNING:  # or a late message meets the arrived
                    await h.admit(spec)
                return Answer("ok", guest=await h.guest(instance_id), endpoint=h.endpoint(), boot_id=self._boot_id)
            case Dismiss():
                await h.dismiss(instance_id)
            case BeginCopy(spec, to):
                await h.begin_migration(spec, to)
            case AbortCopy():
                await h.abort_migration(instance_id)
            case Release():
                await h.release(instance_id)
        return None

    async def _belongings(self) -> bytes:
        h = self._hypervisor
        guests, admitted, files = await h.guests(), await h.admitted(), await h.files()
        return msgspec.json.encode(Belongings(tuple(guests.values()), admitted, files[:FILES_MAX]))

    def _turn(self, instance_id: str) -> _Turn:
        turn = self._turns.get(instance_id)
        if turn is None:
            turn = self._turns[instance_id] = _Turn(self._turns, instance_id)
        return turn


class _Turn:
    """A lock a guest, kept only while somebody holds it or waits."""

    def __init__(self, turns: dict[str, _Turn], instance_id: str) -> None:
        self._turns, self._instance_id = turns, instance_id
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
            del self._turns[self._instance_id]
