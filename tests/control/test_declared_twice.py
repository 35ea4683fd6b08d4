"""What both ends of a move say one after the other: hosts declared gone in turn, halves that settle, hosts let in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from droveway.control.engine.nudges import Nudges
from droveway.control.engine.saga import Context, ControlSettings
from droveway.control.liveness.admission import Admission
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.sagas.whereabouts import MoveNotes, look
from droveway.domain.faults import Unreachable
from droveway.domain.migration import Verdict
from droveway.domain.model import Guest, GuestJob, GuestState, SagaKind, Subject, of_instance
from droveway.ports.bus import Beat, Command, ListGuests, Stop
from droveway.ports.replies import Answer, ConsoleText, GuestStatus, HostInventory
from droveway.store.compute import instances
from droveway.store.fleet import declared
from tests.control.test_declared_gone import claims, declare, is_up, move_of, moving, off, row, until
from tests.control.world import world

R, P, A = GuestState.RUNNING, GuestState.PAUSED, GuestState.ABSENT


async def test_a_deletion_ends_although_the_other_host_is_declared_gone_in_the_middle_of_it() -> None:
    """The destination is gone and may have the guest; the source falls silent before it has ended its half."""
    async with moving(P, P) as (w, instance_id, at, to):
        agent = w.agents[at]
        handle = agent.handle

        async def silent_from_stop_on(command: Command) -> Answer:
            if isinstance(command.verb, Stop):
                off(w, at)
                raise Unreachable(f"{at} is not connected")
            return await handle(command)

        agent.handle = silent_from_stop_on  # type: ignore[method-assign]
        off(w, to)
        await w.store.run(declare, to)
        await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})

        async def blocked() -> bool:
            return "check_source waits" in ((await move_of(w, instance_id))["blocked"] or "")

        await until(blocked)
        await w.store.run(declare, at)
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["deleted"], found["host"]) == (True, to)
        assert await claims(w) == []
        agent.handle = handle  # type: ignore[method-assign]
        await w.store.run(declared.readmit, at)
        await until(lambda: is_up(w, at))
        assert instance_id not in w.fleet.hosts[at].domains, "ended where it does not belong; its disk is the other's"
        assert instance_id in w.fleet.stores["shared"].disks


async def test_a_guest_that_only_a_gone_destination_has_stays_its_own_when_the_source_goes_too() -> None:
    async with moving(A, R, kept=True) as (w, instance_id, at, to):
        off(w, to)
        agent = w.agents[at]
        handle = agent.handle
        asked = 0

        async def silent_once_it_has_said_that_it_has_not_got_it(command: Command) -> Answer:
            nonlocal asked
            move = await move_of(w, instance_id)
            if move["status"] == "backward" and move["step"] != "begin_copy":
                asked += 1
                raise Unreachable(f"{at} is not connected")
            return await handle(command)

        agent.handle = silent_once_it_has_said_that_it_has_not_got_it  # type: ignore[method-assign]
        await w.store.run(declare, to)

        async def has_been_asked() -> bool:
            return asked > 0

        await until(has_been_asked)
        await w.store.run(declare, at)
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["host"], found["vm_state"]) == (to, "error")


@pytest.mark.parametrize(
    "answer",
    [ConsoleText("no list"), HostInventory(admitted=("a\0b",))],
    ids=["no list", "no name"],
)
async def test_a_returning_host_that_answers_nonsense_ends_no_loop_and_is_not_up(answer: Answer) -> None:
    async with world() as w:
        agent = w.agents["h1"]
        handle = agent.handle
        asked = 0

        async def lies(command: Command) -> Answer:
            nonlocal asked
            if isinstance(command.verb, ListGuests):
                asked += 1
                return answer
            return await handle(command)

        agent.handle = lies  # type: ignore[method-assign]
        await w.store.run(declare, "h1")
        await w.store.run(declared.readmit, "h1")

        async def has_lied() -> bool:
            return asked > 0

        await until(has_lied)
        assert not await is_up(w, "h1")
        agent.handle = handle  # type: ignore[method-assign]
        w.control.nudges.call("guests")
        await until(lambda: is_up(w, "h1"))


async def test_a_control_that_hears_only_hosts_that_are_not_let_in_does_hear() -> None:
    async with world() as w:
        await w.store.run(declare, "h1")
        observer = Observer(w.clock, Nudges(), LivenessSettings())
        admission = Admission(w.store, Nudges(), observer, 1.0)
        await admission.look()
        assert not observer.has_heard
        admission.on_notice(Beat("h1", "boot", 10**6))
        assert observer.has_heard


def test_what_is_said_while_a_copy_goes_on_is_no_part_of_having_said_the_same_for_long() -> None:
    """Paused at both ends, then a copy again, then paused as before: that has lasted for a moment only."""
    said = [GuestJob.NONE, GuestJob.OUTGOING, GuestJob.NONE, GuestJob.NONE]

    async def play() -> list[Verdict]:
        async def send(
            host: str, subject: Subject, _generation: int, _verb: Any, _timeout_s: float, _service: str
        ) -> Answer:
            job = said[0] if host == "h1" else GuestJob.NONE
            return GuestStatus(Guest(subject.id, GuestState.PAUSED, job, kept=True))

        settings = ControlSettings("", settle_s=0.05)
        about, move = of_instance("i"), MoveNotes("h1", "h2")
        ctx = Context("s", SagaKind.LIVE_MIGRATION, about, "p", 1, {}, move, settings, None, None, send)  # type: ignore[arg-type]
        found = []
        while said:
            found.append((await look(ctx)).verdict)
            await asyncio.sleep(0.06)
            said.pop(0)
        return found

    assert asyncio.run(play()) == [Verdict.COPYING, Verdict.COPYING, Verdict.COPYING, Verdict.SWITCHED]
