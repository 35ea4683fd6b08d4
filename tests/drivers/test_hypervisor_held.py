"""What every hypervisor driver guarantees of guests that are held: paused, or with their memory saved."""

from __future__ import annotations

import pytest

from droveway.domain.model import Guest, GuestState
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import World
from tests.drivers.test_hypervisor_contract import ABSENT_ID, world

__all__ = ["world"]


def test_a_guest_is_paused_and_goes_on_and_each_is_said_twice(world: World) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, await w.boot()
        for _ in range(2):
            await a.pause(spec.instance_id)
        held = Guest(spec.instance_id, GuestState.PAUSED, kept=True, suspended=True)
        assert await a.guest(spec.instance_id) == held
        assert await a.guests() == {spec.instance_id: held}
        for _ in range(2):
            await a.unpause(spec.instance_id)
        assert await a.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.RUNNING)
        await a.pause(spec.instance_id)
        await a.stop(spec.instance_id, 0.0)
        assert await a.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.SHUTOFF)
        for act in (a.pause, a.unpause, a.suspend, a.inject_nmi):
            for which in (spec.instance_id, ABSENT_ID):
                with pytest.raises(HypervisorRefused, match="does not run on this host"):
                    await act(which)
        await a.remove(spec.instance_id)

    world.run(story)


def test_memory_that_was_saved_is_gone_on_from_or_forgotten(world: World) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, await w.boot()
        await w.until_booted(spec)
        await a.inject_nmi(spec.instance_id)  # one without a handler for it runs on
        for _ in range(2):
            await a.suspend(spec.instance_id)
        saved = Guest(spec.instance_id, GuestState.SHUTOFF, saved=True)
        assert await a.guest(spec.instance_id) == saved
        assert await a.guests() == {spec.instance_id: saved}
        boots = (await a.console(spec.instance_id, None)).count("BOOTED")
        for _ in range(2):
            await a.start(spec)
        assert await a.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.RUNNING)
        assert (await a.console(spec.instance_id, None)).count("BOOTED") == boots, "it went on, and did not boot"
        await a.suspend(spec.instance_id)
        await a.stop(spec.instance_id, 0.0)
        assert await a.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.SHUTOFF), "nothing is saved now"
        await a.start(spec)
        await a.suspend(spec.instance_id)
        await a.remove(spec.instance_id)
        assert await a.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.ABSENT)
        assert not w.has_files(spec.instance_id)

    world.run(story)
