"""Runs every saga to its end. Safe to kill at any point: the control that adopts the row goes on from its cursor.

More than 400 lines because every way in which a step can end stands beside the others.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from droveway.control.engine.changes import Changes
from droveway.control.engine.commands import send
from droveway.control.engine.nudges import Nudges, Through, wait
from droveway.control.engine.pools_seen import PoolsSeen
from droveway.control.engine.reading import RunReader
from droveway.control.engine.run import CANCEL_LOOK_S, Run, record
from droveway.control.engine.saga import Context, ControlSettings, NotYet, NoValidHost, Saga, TooLate, Undecided
from droveway.control.liveness.admission import Admission, DeclaredGone
from droveway.control.scheduling.placer import Placer
from droveway.domain.faults import Busy, Conflict, NotFound, Stale, StepFailed, Unreachable
from droveway.domain.model import ENDED_SAGA, SagaKind, SagaStatus, Subject
from droveway.ports.bus import ControlBus
from droveway.ports.clock import Clock
from droveway.ports.verb import VerbWithReply
from droveway.store.engine.transaction import Store, Tx
from droveway.store.rows import SagaRow
from droveway.store.work import sagas

log = structlog.get_logger("droveway.saga")
R = TypeVar("R")
RUNNING_MAX = 512
CAPACITY_LOOK_S, CAPACITY_CANCEL_LOOK_S = (
    60.0,
    10.0,
)  # of a request that waits for room; it is nudged, and nudges may be lost
TASKS_MAX = 20_000  # those that are blocked included
SCAN_S = 5.0
Change = Callable[..., tuple[int, SagaStatus]]  # of changes.py
WAY_OUT = (
    "; it needs that host back, or the word that it will not come back: droveway host declare-gone HOST --because ..."
)
SOON_AGAIN = 2  # more tries at the shortest pause, of a host that may just be connecting again


class Runner(Changes):
    """Adopts sagas that no control runs and runs each in a task of its own, at most RUNNING_MAX at once."""

    def __init__(
        self,
        store: Store,
        bus: ControlBus,
        clock: Clock,
        nudges: Nudges,
        stories: dict[SagaKind, Saga],
        settings: ControlSettings,
        placer: Placer,
        owner: str,
        epoch: int,
        admission: Admission,
    ) -> None:
        self._store, self._bus, self._clock, self._nudges = store, bus, clock, nudges
        self._placer, self._admission = placer, admission
        self._stories, self._settings = stories, settings
        self._owner, self._epoch = owner, epoch
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._blocked: set[str] = set()
        self._dropped: set[str] = set()  # ours by their row, but a newer owner was met: to be adopted again
        self._pools = PoolsSeen(clock)
        self._reader = RunReader(store, clock, self._run_of)
        self.dead_owners: Sequence[str] = ()  # kept by the lease loop

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def run(self) -> None:
        """Until cancelled. Woken by nudges; the interval is the fallback."""
        await self._reader.look_at_broken()
        with self._nudges.listen("sagas") as woken:
            while True:
                await self._adopt()
                await wait(woken, SCAN_S)

    async def close(self) -> None:
        """Stop, and leave every saga where it stands."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def steal(self, saga_id: str) -> None:
        """Take that saga over, whichever control runs it."""
        rows = await self._store.run(
            lambda tx: [
                r for old in [sagas.get(tx, saga_id)] if (r := sagas.take_over(tx, old, self._owner, self._epoch))
            ]
        )
        for row in rows:
            self._spawn(self._run_of(row))

    async def _adopt(self) -> None:
        # One that is blocked waits for a host and costs nothing: it must not keep the others from being run.
        free = min(RUNNING_MAX - (len(self._tasks) - len(self._blocked)), TASKS_MAX - len(self._tasks))
        if free <= 0:
            return
        held, passed_over = frozenset(self._tasks), self._reader.passed_over()
        try:
            found = await self._store.read(sagas.unheld, self._owner, self.dead_owners, held, passed_over, most=free)
            runs = {row["id"]: run for row in found if (run := self._reader.read(row)) is not None}
            others = [row for row in found if row["id"] in runs and not self._is_ours(row)]
            taken = await self._store.run(sagas.adopt, others, self._owner, self._epoch) if others else []
            await self._reader.save_reasons(found)
        except Busy as fault:
            log.warning("adoption of sagas postponed: the store is busy", because=fault.reason)
            return
        for row in others:
            del runs[row["id"]]
        for run in (*runs.values(), *(self._run_of(row) for row in taken)):
            self._spawn(run)

    def _is_ours(self, row: SagaRow) -> bool:
        """Written for this very process, and never dropped by it: no other has sent a command for it."""
        return (row["owner"], row["owner_epoch"]) == (self._owner, self._epoch) and row["id"] not in self._dropped

    def _spawn(self, run: Run) -> None:
        self._dropped.discard(run.id)
        old = self._tasks.get(run.id)
        if old is not None:
            old.cancel()  # this process adopted it again: the row has a newer generation than that task
        task = asyncio.create_task(self._carry(run), name=f"saga {run.story.kind} {run.id}")
        self._tasks[run.id] = task
        task.add_done_callback(lambda t, i=run.id: self._forget(i, t))  # type: ignore[misc]

    def _run_of(self, row: SagaRow) -> Run:
        story = self._stories[SagaKind(row["kind"])]
        context = Context(
            id=row["id"],
            kind=story.kind,
            subject=sagas.subject_of(row),
            project_id=row["project_id"],
            generation=row["generation"],
            params=row["params"],
            notes=msgspec.convert(row["notes"], story.notes),
            settings=self._settings,
            store=self._store,
            placer=self._placer,
            send=self._send,
            pools=self._pools,
            error=row["error"],
        )
        return Run(row, story, context)

    def _forget(self, saga_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(saga_id) is task:
            del self._tasks[saga_id]
            self._blocked.discard(saga_id)

    async def _send(
        self, host: str, subject: Subject, generation: int, verb: VerbWithReply[R], timeout_s: float, service: str
    ) -> R:
        await self._admission.check(host)
        return await send(self._bus, host, subject, generation, verb, timeout_s, service)

    # -- one saga -----------------------------------------------------------------------------------------------------
    async def _carry(self, run: Run) -> None:
        with self._nudges.listen(f"saga:{run.id}", str(run.subject)) as woken:
            try:
                while run.status not in ENDED_SAGA and run.status is not SagaStatus.BROKEN:
                    run.began_s = self._clock.monotonic_s()
                    woken.clear()
                    try:
                        if run.status is SagaStatus.FORWARD:
                            await self._forward(run, woken)
                        else:
                            await self._backward(run, woken)
                    except Busy:  # says nothing of the step, which is taken again
                        await self._clock.sleep(self._settings.retry_s)
                    except Stale as fault:
                        await self._catch_up(run, fault)
                self._nudges.call("guests")  # what its hosts said meanwhile was not looked at
            except Stale as fault:
                self._dropped.add(run.id)
                log.info("saga dropped", **run.log_keys, because=fault.reason)
            except Exception as bug:  # noqa: BLE001 - quarantine: this saga stops, visibly; the others go on
                await self._break(run, bug)

    async def _forward(self, run: Run, woken: asyncio.Event) -> None:
        if run.cancel is not None and run.position <= run.story.pivot:
            await self._turn_back(run, f"cancelled: {run.cancel}")
            return
        marks: list[dict[str, Any]] = []
        if run.position == len(run.story.steps):  # an older release had more of them
            await self._save(run, self._advance, marks)
            return
        step = run.step
        if step.do is not None:
            try:
                await step.do(run.context)
            except NotYet as later:
                await self._not_yet(run, woken, later)
                return
            except Unreachable as fault:
                await self._silent(run, woken, fault)
                return
            except StepFailed as fault:
                if run.position > run.story.pivot:
                    await self._deferred(run, woken, fault.reason)
                else:
                    await self._turn_back(run, fault.reason, by_host=True)
                return
            marks.append(self._mark(run, step.name, "+"))
        try:
            try:
                await self._save(run, self._advance, marks)
            except (StepFailed, Conflict, NotFound):
                if run.writes_once:
                    raise
                # One of the merged writes failed and none is kept: go one step at a time, up to the one that fails.
                await self._save(run, self._advance, marks, merge=False)
        except NoValidHost as fault:
            run.context.decision = fault.decision
            await self._no_valid_host(run, woken, fault)
        except (StepFailed, Conflict, NotFound) as fault:
            await self._turn_back(run, fault.reason)

    async def _backward(self, run: Run, woken: asyncio.Event) -> None:
        if not run.undoes:
            await self._save(run, self._pass_over, [])
            return
        step = run.step
        assert step.undo is not None, "it undoes"
        try:
            await step.undo(run.context)
        except NotYet as later:
            await self._not_yet(run, woken, later)
        except Unreachable as fault:
            await self._silent(run, woken, fault)
        except StepFailed as fault:
            await self._deferred(run, woken, fault.reason)
        except TooLate:
            await self._save(run, self._turn_forward, [self._mark(run, step.name, "^")])
        else:
            await self._save(run, self._retreat, [self._mark(run, step.name, "-")])

    async def _turn_back(self, run: Run, reason: str, *, by_host: bool = False) -> None:
        """`by_host`: the host refused, or did not answer; another one may do."""
        assert run.position <= run.story.pivot, f"{run.step.name} failed after the point of no return: {reason}"
        run.context.error, run.context.host_failed = reason, by_host
        await self._save(run, self._fail, [self._mark(run, run.step.name, "!", reason)])
        run.context.host_failed = False

    async def _no_valid_host(self, run: Run, woken: asyncio.Event, fault: NoValidHost) -> None:
        """Wait for room as long as such a request may, visibly; then it has failed."""
        wait_s = self._settings.placement.wait_for_capacity_s if fault.may_wait else 0.0
        left_s = run.left_to_wait_s(wait_s, self._clock)
        if left_s <= 0:
            await self._turn_back(run, fault.reason + (f" (it waited {wait_s:.0f} s for room)" if wait_s else ""))
            return
        blocked = f"{run.step.name} waits for room: {fault.reason}"
        if blocked != run.blocked:
            marks = [self._mark(run, run.step.name, "?", blocked)] if run.blocked is None else []  # its numbers change
            await self._save(run, self._stand, marks, blocked=blocked)
        run.context.decision = None  # kept already, or the same as the last one
        self._blocked.add(run.id)
        began_s = self._clock.monotonic_s()
        # One woken in vain backs off: there is capacity, but not for it, and every change would wake it again.
        rests_until_s, until_s = began_s + self._delay_s(run), began_s + min(left_s, CAPACITY_LOOK_S)
        self._placer.wait_for_capacity(run.id, fault.decision, in_vain=run.was_woken)
        try:
            while run.cancel is None and (left_s := until_s - self._clock.monotonic_s()) > 0:
                rest_s = rests_until_s - self._clock.monotonic_s()
                if self._placer.has_capacity(run.id) and rest_s <= 0:
                    break
                look_s = CAPACITY_CANCEL_LOOK_S if rest_s <= 0 else min(rest_s, CAPACITY_CANCEL_LOOK_S)
                await self._pause(run, woken, min(left_s, look_s))
        finally:
            run.was_woken = self._placer.has_capacity(run.id)
            self._placer.stop_waiting(run.id)
        run.retries += 1

    async def _pause(self, run: Run, woken: asyncio.Event, after_s: float, awaited: Through | None = None) -> None:
        """`awaited`: a nudge of what it waits for says nothing of a wish to cancel."""
        nudged = await wait(woken, after_s) and (awaited is None or not awaited.was_called)
        # A wish to cancel nudges; one written by another process is found within CANCEL_LOOK_S.
        now_s = self._clock.monotonic_s()
        due = nudged or now_s - run.cancel_looked_s >= CANCEL_LOOK_S
        if due and run.status is SagaStatus.FORWARD and run.position <= run.story.pivot:
            run.cancel_looked_s = now_s
            run.cancel = await self._store.read(sagas.cancel_asked, run.id)

    async def _not_yet(self, run: Run, woken: asyncio.Event, later: NotYet) -> None:
        """Nothing is wrong; yet a long wait is recorded with its reason, and with how it may be ended."""
        now_s = self._clock.monotonic_s()
        run.silent_since_s = None
        run.waits_since_s = now_s if run.waits_since_s is None else run.waits_since_s
        if now_s - run.waits_since_s >= self._settings.patience_s:
            is_ahead = run.status is SagaStatus.FORWARD and run.position <= run.story.pivot
            way_out = f"; 'droveway saga cancel {run.id}' ends it" if is_ahead else ""
            await self._save_blocked(
                run, f"{run.step.name} waits: {later.reason}{way_out}", "waits", woken, self._stand
            )
        awaited = Through(woken)
        with self._nudges.called(awaited, *filter(None, (later.topic,))):
            await self._pause(run, woken, later.after_s, awaited)

    async def _save_blocked(self, run: Run, reason: str, kind: str, woken: asyncio.Event, change: Change) -> None:
        """Once for each kind of wait: the same host may not answer in many words."""
        if run.blocked_by != kind:
            await self._save(run, change, [self._mark(run, run.step.name, "?", reason)], blocked=reason)
            run.blocked_by = kind
            woken.clear()  # that was our own save

    async def _silent(self, run: Run, woken: asyncio.Event, fault: Unreachable) -> None:
        """A host did not answer: ask again; when patience ends unwind, or say what is needed and go on asking. For one
        that was declared gone is not waited for."""
        now_s, reason = self._clock.monotonic_s(), fault.reason
        run.silent_since_s = now_s if run.silent_since_s is None else run.silent_since_s
        run.waits_since_s = None
        run.retries += 1
        silent_s, is_gone = now_s - run.silent_since_s, isinstance(fault, DeclaredGone)
        is_ahead = run.status is SagaStatus.FORWARD and run.position < run.story.pivot
        cleans_up = run.status is SagaStatus.BACKWARD or run.position > run.story.pivot
        if (
            run.step.deferred_cleanup
            and cleans_up
            and (is_gone or silent_s >= self._settings.deferred_cleanup_patience_s)
        ):
            await self._defer_cleanup(run, reason)
            return
        if is_gone and not cleans_up:
            await self._turn_back(run, reason, by_host=True)
            return
        if silent_s >= self._settings.patience_s:
            if is_ahead:
                await self._turn_back(run, f"{reason} (asked for {self._settings.patience_s:.0f} s)", by_host=True)
                return
            is_undecided = isinstance(fault, Undecided)
            kind = "undecided" if is_undecided else f"silence of {run.context.asked}"
            needs = "" if is_undecided else WAY_OUT
            run.context.waits_for = reason
            await self._save_blocked(run, f"{run.step.name} waits: {reason}{needs}", kind, woken, self._record_wait)
        no_input = bool(self._bus.trouble)
        with self._nudges.listen(f"host:{run.context.asked}", "broker", event=woken):  # back: no need to wait longer
            await self._pause(run, woken, max(self._settings.retry_s, self._delay_s(run)))
        if (
            no_input and not self._bus.trouble
        ):  # not the fault of this host, which may be a moment later than the broker
            run.retries = -SOON_AGAIN

    async def _catch_up(self, run: Run, fault: Stale) -> None:
        """A host has seen a higher generation. Either a newer owner has this saga, and then its row says so too; or
        the row was restored from a backup, and goes on above what was done before. Once for each host: what one repeats
        is not trusted."""
        if fault.generation <= run.generation or run.context.asked in run.caught_up:
            raise fault
        run.caught_up.add(run.context.asked)
        reason = (
            f"{run.context.asked} has obeyed generation {fault.generation} of {run.subject}, and the database "
            f"knows of {run.generation}: it is older (restored from a backup?); it goes on above"
        )
        keys = run.log_keys | {"host": run.context.asked}
        log.warning("the database is older than a host", **keys, because=reason)
        await self._save(
            run,
            self._stand,
            [self._mark(run, run.step.name, "?", reason)],
            blocked=run.blocked,
            above=fault.generation,
        )

    async def _defer_cleanup(self, run: Run, reason: str) -> None:
        """Go on without that host: the guests loop cleans up when it reports again."""
        change = self._advance if run.status is SagaStatus.FORWARD else self._retreat
        await self._save(run, change, [self._mark(run, run.step.name, "~", f"left for later: {reason}")])

    async def _deferred(self, run: Run, woken: asyncio.Event, reason: str) -> None:
        """An undo, or a step after the pivot, was refused, and must be done. Sent again under a new generation: a host
        replies to the same one from memory. An event is recorded for the user once that takes long."""
        now_s = self._clock.monotonic_s()
        run.silent_since_s = None
        run.waits_since_s = now_s if run.waits_since_s is None else run.waits_since_s
        run.retries += 1
        blocked = f"{run.step.name} was refused: {reason}; it is asked again"
        marks = [] if blocked == run.blocked else [self._mark(run, run.step.name, "?", blocked)]
        is_long = now_s - run.waits_since_s >= self._settings.patience_s and run.blocked_by != "refused"
        run.context.waits_for = reason
        await self._save(run, self._record_wait if is_long else self._stand, marks, blocked=blocked)
        run.blocked_by = "refused" if is_long else run.blocked_by
        woken.clear()  # that was our own save
        await self._pause(run, woken, max(self._settings.retry_s, self._delay_s(run)))

    def _delay_s(self, run: Run) -> float:
        return min(self._settings.retry_s * run.retries, self._settings.retry_max_s)

    async def _save(
        self,
        run: Run,
        change: Change,
        marks: list[dict[str, Any]],
        *,
        merge: bool = True,
        blocked: str | None = None,
        above: int = 0,
    ) -> None:
        """Compare-and-swap; the store being busy is waited out. Nothing of `run` changes unless it was written.
        `above`: a generation that a host has seen."""
        context = run.context
        before, error, decision = msgspec.to_builtins(context.notes), context.error, context.decision

        def commit(tx: Tx) -> tuple[sagas.Saved, int, SagaStatus]:
            ticks = list(marks)
            context.notes, context.decision = msgspec.convert(before, run.story.notes), decision
            context.above = 0
            position, status = change(tx, run, ticks, merge)
            if context.decision is not None:
                record(tx, run, context.decision, self._settings.placement)
            notes = msgspec.to_builtins(context.notes)
            saved = self._write(
                tx,
                run,
                step=run.story.name_of(position),
                status=status,
                notes=notes,
                error=context.error,
                blocked=blocked,
                ticks=ticks,
                above=max(above, context.above),
            )
            return saved, position, status

        while True:
            try:
                saved, run.position, run.status = await self._store.run(commit)
                break
            except Busy:
                await self._clock.sleep(self._settings.retry_s)
            except (StepFailed, Conflict, NotFound):
                context.notes, context.error = msgspec.convert(before, run.story.notes), error
                context.decision = decision
                raise
        if context.decision is not None:
            self._placer.kept(context.decision)
            context.decision = None
        run.generation = context.generation = saved.generation
        run.cancel = None if change == self._turn_forward else saved.cancel
        run.cancel_looked_s = self._clock.monotonic_s()
        run.blocked = blocked
        if blocked is None:
            self._blocked.discard(run.id)
            run.blocked_by = ""
            run.silent_since_s, run.waits_since_s, run.retries = None, None, 0
        elif run.id in self._tasks:
            self._blocked.add(run.id)

    async def _break(self, run: Run, bug: Exception) -> None:
        log.error("saga broken", **run.log_keys, step=run.at, exc_info=bug)
        trace = "".join(traceback.format_exception(bug)[-3:])
        run.context.error = f"{run.at}: {type(bug).__name__}: {bug}"
        try:
            await self._save(run, self._stop_broken, [self._mark(run, run.at, "X", trace)])
        except Stale:
            log.info("saga dropped: another control has taken it over", **run.log_keys)
