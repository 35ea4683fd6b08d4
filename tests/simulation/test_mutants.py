"""Programs with one law taken out: the simulation must catch each. One that no mutant fails would be decoration.

More than 400 lines because each law has its mutant here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any, cast

import msgspec
import pytest
from sqlalchemy import Select

from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import Fence
from droveway.agents.reports import Reports
from droveway.control.control import Control
from droveway.control.engine.run import Run
from droveway.control.engine.runner import Runner
from droveway.control.engine.saga import Context, NotYet, Saga
from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.input_check import InputCheck
from droveway.control.liveness.observer import Observer
from droveway.control.sagas import STORIES
from droveway.control.sagas.live_migration import LIVE_MIGRATION, await_switch
from droveway.control.sagas.whereabouts import POLL_S
from droveway.control.scheduling.placer import Decision, Placer
from droveway.domain.faults import StepFailed
from droveway.domain.liveness import HostObservation, Signal, State
from droveway.domain.model import GuestJob, GuestState, ImageRef, SagaKind, SagaStatus, Subject
from droveway.domain.placement import HostFacts, PlacementRequest
from droveway.drivers.images.simulated import SimulatedImages
from droveway.ports.bus import AbortCopy, AgentDisconnected, BeginCopy, Command, Dismiss, Inspect, Prepare, Report
from droveway.simulation import other_release
from droveway.simulation.hearts import HeartProcess
from droveway.simulation.machines import LIVENESS
from droveway.simulation.world import Parts
from droveway.store.engine.in_list import one_of
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import SagaRow
from droveway.store.schema import sagas as sagas_table
from droveway.store.work import sagas, subjects
from tests.simulation.caught import caught_by


def story(**changed: dict[str, Any]) -> dict[SagaKind, Saga]:
    """All stories, with some steps of live migration changed."""
    steps = tuple(dataclasses.replace(step, **changed.get(step.name, {})) for step in LIVE_MIGRATION.steps)
    return STORIES | {SagaKind.LIVE_MIGRATION: dataclasses.replace(LIVE_MIGRATION, steps=steps)}


class NoCompareAndSwap(Runner):
    """Saves over whatever has been written since it read the row."""

    def _write(self, tx: Tx, run: Run, **new: Any) -> sagas.Saved:
        run.generation = sagas.get(tx, run.id)["generation"]
        return super()._write(tx, run, **new)


class ClaimsWithoutLooking(Placer):
    """Claims what the columns say is free, whatever has been claimed there since."""

    def _swap(self, tx: Tx, seen: HostFacts) -> bool:
        hosts.touch(tx, seen.name)
        return True


class ForgetsGroups(Placer):
    """Places members of a server group as if they were in none."""

    def choose(self, tx: Tx, ask: PlacementRequest) -> Decision:
        return super().choose(tx, msgspec.structs.replace(ask, group=None))


class TrustsHungStores(Placer):
    """What a host says of its instance store is not looked at."""

    def _put(self, facts: HostFacts) -> None:
        super()._put(msgspec.structs.replace(facts, store_trouble=""))


class WaitsForItsStore(Reports):
    """A report waits for whatever the hypervisor waits for."""

    async def _make(self, is_full: bool) -> Report | None:
        while self._hypervisor.store_trouble():
            await self._clock.sleep(1.0)
        return await super()._make(is_full)


class SilentAboutItsStore(ComputeAgent):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        made = self.reports
        self.reports = WaitsForItsStore(
            made._host,
            made._boot_id,
            made._hypervisor,
            made._fences,
            made._clock,
            made._off_loop,
            made._tasks,
            made._notify,
        )


class TakesAnyBytes(SimulatedImages):
    """What has arrived is taken for the image."""

    def _is_whole(self, image: ImageRef, data: bytearray) -> bool:
        return True


class ReadsWhatItCannot(Runner):
    """A saga of another release is taken to stand at its start."""

    def _run_of(self, row: SagaRow) -> Run:
        if row["request_id"] == other_release.REQUEST:
            row = cast(SagaRow, dict(row) | {"kind": SagaKind.HARD_REBOOT.value, "step": "", "notes": {}})
        return super()._run_of(row)


class FailedStepNotUndone(Runner):
    """Turns back at the step before the one that failed, as if a failed step had done nothing."""

    def _fail(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> tuple[int, SagaStatus]:
        run.story.failed(tx, run.context)
        return self._unwind(tx, run, marks, run.position - 1)


class NoFence(ComputeAgent):
    """Obeys whoever speaks last."""

    def _is_stale(self, command: Command, fence: Fence) -> bool:
        return False


class WallClock:
    """What is asked for a monotonic time and looks at the clock on the wall."""

    def __init__(self, clock: Any) -> None:
        self.now_us, self.sleep = clock.now_us, clock.sleep

    def monotonic_s(self) -> float:
        return self.now_us() / 1e6


class WallClockObserver(Observer):
    def __init__(self, clock: Any, *args: Any) -> None:
        super().__init__(WallClock(clock), *args)


class WallClockDetector(FailureDetector):
    def __init__(self, observer: Observer, bus: Any, clock: Any, *args: Any) -> None:
        super().__init__(observer, bus, WallClock(clock), *args)


class WallClockControl(Control):
    """Silence is measured by the machine's wall clock."""

    observer_type, detector_type = WallClockObserver, WallClockDetector


class GrantsNothing(Observer):
    def grant(self, heard_within_s: float = math.inf, *, undecided: bool = False) -> None:
        super().grant(heard_within_s, undecided=undecided)
        for seen in self.observations():
            seen.quiet_from_s -= 3 * LIVENESS.service_down_time_s


class NoStartGrace(Control):
    """Whoever begins to judge takes what it has not heard for silence since long ago."""

    observer_type = GrantsNothing


class HoldsNobody(FailureDetector):
    def _find_storms(self, now_s: float) -> None:
        pass


class NoStormHold(Control):
    """However many fall silent at once, each is judged alone."""

    detector_type = HoldsNobody


class HearsNoEcho(FailureDetector):
    def __init__(self, observer: Observer, bus: Any, clock: Any, *args: Any) -> None:
        super().__init__(observer, bus, clock, *args)
        self.input = Unchecked(bus, observer, clock, self.timing)


class NoEcho(Control):
    """A broker that does not complain is taken for one that carries everything."""

    detector_type = HearsNoEcho


class Unchecked(InputCheck):
    async def confirm(self) -> bool:
        self._returned_s = self._observer.now_s()
        return True


class TurningDetector(FailureDetector):
    def _read(self, seen: HostObservation, binary: str, now_s: float) -> tuple[Signal, str]:
        found = super()._read(seen, binary, now_s)
        is_gone = found[0] is Signal.GONE and seen.services[binary].state is State.HOST_GONE
        return (Signal.REACHED, found[1]) if is_gone else found


class ReadsByState(Control):
    """What the facts say depends on the verdict that was made of them: it turns round and round."""

    detector_type = TurningDetector


class HeartInTheLoop(HeartProcess):
    """The heart shares the loop of what it watches: it hangs with it."""

    def beat(self) -> None:
        if not any(agent.is_stopped for agent in self.host.agents.values()):
            super().beat()


class DeafToTheOperator(Control):
    """What an operator says of hosts is not read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

        async def look() -> None:
            pass

        self.admission.look = look


class OneEndsAll(Control):
    """A host has one agent: when a connection of its services ends, all that runs there has ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gone, self.observer._on_gone = self.observer._on_gone, self._all_gone

    def _all_gone(self, gone: AgentDisconnected) -> None:
        seen = self.observer.observation(gone.host)
        for service in () if seen is None else list(seen.services):
            self._gone(msgspec.structs.replace(gone, service=service))


async def await_switch_for_ever(ctx: Context) -> None:
    """Paused at both ends is taken for the moment of the switch, however long it lasts."""
    ctx.same_since_s = (None, 0.0)
    await await_switch(ctx)


async def begin_copy_believing_the_error(ctx: Context) -> None:
    """A refused command is taken to have done nothing: the story goes back as if there had never been a copy."""
    try:
        await ctx.ask(ctx.notes.source, BeginCopy(ctx.notes.spec, ctx.notes.endpoint))
    except StepFailed:
        ctx.notes.endpoint = None
        raise


async def abort_unless_the_error_was_believed(ctx: Context) -> None:
    if ctx.notes.endpoint is not None:
        await ctx.ask(ctx.notes.source, AbortCopy())


async def switched_because_the_source_says_so(ctx: Context) -> None:
    """The switch is recorded from the source's answer; the destination is never asked."""
    guest = (await ctx.ask(ctx.notes.source, Inspect())).guest
    if guest.job is GuestJob.OUTGOING:
        raise NotYet(POLL_S, "it is copied")
    if guest.state is GuestState.RUNNING:
        raise StepFailed("the guest stayed")


async def aborted_because_nothing_was_refused(ctx: Context) -> None:
    """The copy is taken to have been aborted because the command did not fail; nobody looks where the guest is."""
    await ctx.ask(ctx.notes.source, AbortCopy(), ctx.settings.long_command_timeout_s)


async def dismissed_without_looking(ctx: Context) -> None:
    """The destination is released; that the guest may run there is not looked at either."""
    await ctx.ask(ctx.notes.destination, Dismiss())


async def prepare_without_tickets(ctx: Context) -> None:
    """A host that has to fetch its image is asked again and again, and given nothing to fetch it with."""
    await ctx.ask(ctx.notes.host, Prepare(ctx.notes.spec), ctx.settings.long_command_timeout_s)


def boot(**changed: Any) -> dict[SagaKind, Saga]:
    """All stories, with the making of a guest's files changed."""
    old = STORIES[SagaKind.BOOT]
    steps = tuple(dataclasses.replace(one, **changed) if one.name == "prepare_guest" else one for one in old.steps)
    return STORIES | {SagaKind.BOOT: dataclasses.replace(old, steps=steps)}


DISMISS = {"undo": dismissed_without_looking}
ERROR_BELIEVED = {"do": begin_copy_believing_the_error, "undo": abort_unless_the_error_was_believed}
MUTANTS = {
    "no compare-and-swap": Parts(runner=NoCompareAndSwap),
    "no compare-and-swap of claims": Parts(placer=ClaimsWithoutLooking),
    "no rule of groups": Parts(placer=ForgetsGroups),
    "hung stores are trusted": Parts(placer=TrustsHungStores),
    "a report without a deadline": Parts(agent=SilentAboutItsStore),
    "no fence": Parts(agent=NoFence),
    "another release's saga is carried on": Parts(runner=ReadsWhatItCannot),
    "failed step not undone": Parts(runner=FailedStepNotUndone),
    "an error taken for a verdict": Parts(stories=story(begin_copy=ERROR_BELIEVED, admit_guest=DISMISS)),
    "a boot waits without a word": Parts(
        stories=STORIES | {SagaKind.BOOT: dataclasses.replace(STORIES[SagaKind.BOOT], blocked=None)}
    ),
    "an answer taken for a switch": Parts(stories=story(await_switch={"do": switched_because_the_source_says_so})),
    "an answer taken for an abort": Parts(
        stories=story(begin_copy={"undo": aborted_because_nothing_was_refused}, admit_guest=DISMISS)
    ),
    "an image is not checked": Parts(images=TakesAnyBytes),
    "no tickets": Parts(stories=boot(do=prepare_without_tickets)),
    "paused for ever": Parts(stories=story(await_switch={"do": await_switch_for_ever})),
    "the operator's word is not heard": Parts(control=DeafToTheOperator),
    "wall clock in the judge": Parts(control=WallClockControl),
    "no start grace": Parts(control=NoStartGrace),
    "no storm hold": Parts(control=NoStormHold),
    "a service's death is its host's": Parts(control=OneEndsAll),
    "no echo": Parts(control=NoEcho),
    "a reading that depends on the verdict": Parts(control=ReadsByState),
    "heart inside the worker's loop": Parts(heart=HeartInTheLoop),
}

_FOUND_LATE = {  # where it is not the first one
    2: (
        "no compare-and-swap of claims",
        "no rule of groups",
        "the operator's word is not heard",
        "a reading that depends on the verdict",
    ),
    4: ("an error taken for a verdict", "an answer taken for an abort", "heart inside the worker's loop"),
    5: ("wall clock in the judge",),
    6: ("paused for ever",),
    7: ("another release's saga is carried on",),
    8: ("no fence",),
    16: ("no storm hold",),
    18: ("an answer taken for a switch",),
    51: ("no echo",),
}
CAUGHT_BY = {name: seed for seed, names in _FOUND_LATE.items() for name in names}


@pytest.mark.matrix
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    seed, reason = caught_by(MUTANTS[name], CAUGHT_BY.get(name, 1))
    print(f"{name}: caught by seed {seed}: {reason}")


def test_a_hold_that_is_not_looked_at_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants a subject asks only whether somebody is about it."""

    def about(query: Select[Any], tx: Tx, wanted: Iterable[Subject]) -> SagaRow | None:
        return subjects._first(tx, query.where(subjects._ABOUT), wanted)

    active = subjects._FIRST.where(one_of(sagas_table.c.status, subjects.ACTIVE))
    monkeypatch.setattr(subjects, "in_the_way", functools.partial(about, subjects._FIRST))
    monkeypatch.setattr(subjects, "last_in_line", functools.partial(about, subjects._FIRST))
    monkeypatch.setattr(subjects, "at_work", lambda tx, subject: about(active, tx, (subject,)))
    seed, reason = caught_by(Parts(), 7)
    print(f"a hold is not looked at: caught by seed {seed}: {reason}")


def test_a_hold_that_outlives_its_holder_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "release", lambda _tx, _saga_id: None)
    seed, reason = caught_by(Parts(), 3)
    print(f"a hold outlives its holder: caught by seed {seed}: {reason}")


def test_turns_in_the_order_of_clocks_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits stands where its own clock says, before those that it waits for."""
    add = sagas._add

    def by_its_clock(tx: Tx, *args: Any, after: SagaRow | None = None, **more: Any) -> str:
        early = after and cast(SagaRow, dict(after) | {"created_at_us": 0})
        return add(tx, *args, after=early, **more)

    monkeypatch.setattr(sagas, "_add", by_its_clock)
    seed, reason = caught_by(Parts(), 6)
    print(f"turns in the order of clocks: caught by seed {seed}: {reason}")
