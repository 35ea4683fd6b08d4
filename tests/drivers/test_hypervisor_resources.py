"""What every hypervisor driver says of its host and its guests, and what it can hold a guest to."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from droveway.agents.move_trials import must_pass
from droveway.domain.model import GuestSpec, GuestState
from droveway.domain.placement import HeldCell
from droveway.domain.resources import validation_error, without_free_amounts
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import LabWorld, World, libvirt_of
from tests.drivers.test_hypervisor_contract import world

__all__ = ["world"]  # the fixture


def test_it_says_what_it_has_and_the_numbers_can_be_believed(world: World) -> None:
    async def story(w: World) -> None:
        has = await w.a.hypervisor.resources()
        measured = await w.a.hypervisor.measure()
        assert validation_error(has, (), measured) is None
        assert has.vcpus > 0 and has.hypervisor_type and has.machine_types
        assert sum(len(cell.cpus) for cell in has.cells) == has.vcpus
        assert without_free_amounts(await w.a.hypervisor.resources()) == without_free_amounts(has)
        assert measured.guests == () and measured.disk_free_gb >= measured.disk_available_least_gb

    world.run(story)


def test_what_a_running_guest_uses_is_measured(world: World) -> None:
    async def story(w: World) -> None:
        spec = await w.boot()
        await w.until_booted(spec)
        (use,) = (await w.a.hypervisor.measure()).guests
        assert (use.instance_id, use.memory_mb > 0) == (spec.instance_id, True)
        await asyncio.sleep(0.3)
        (later,) = (await w.a.hypervisor.measure()).guests
        assert later.cpu_time_ms > use.cpu_time_ms
        await w.a.hypervisor.stop(spec.instance_id, 0.0)
        assert (await w.a.hypervisor.measure()).guests == ()

    world.run(story)


@pytest.mark.parametrize("pinned", [False, True])
def test_a_guest_is_held_to_the_cells_it_was_given_and_stays_there(world: World, pinned: bool) -> None:
    async def story(w: World) -> None:
        a, plain = w.a.hypervisor, w.spec()
        (cell, *_) = (await a.resources()).cells
        held = HeldCell(cell.id, plain.vcpus, plain.ram_mb, cell.cpus[: plain.vcpus] if pinned else ())
        spec = msgspec.structs.replace(plain, cells=(held,), machine_type="q35")
        await a.prepare(spec)
        await a.start(spec)
        await w.until_booted(spec)
        assert (await a.guest(spec.instance_id)).state is GuestState.RUNNING
        if isinstance(w, LabWorld):
            floating = set(cell.cpus)
            assert w.cpus_of(spec) == [{cpu} if pinned else floating for cpu in cell.cpus[: spec.vcpus]]
        with pytest.raises(HypervisorRefused, match="cannot be moved while it runs"):
            must_pass(await w.b.hypervisor.check_incoming(spec, (await a.resources()).cpu_xml))
        await a.stop(spec.instance_id, 0.0)
        await a.start(spec)
        assert (await a.guest(spec.instance_id)).state is GuestState.RUNNING

    world.run(story)


def test_who_floats_is_kept_off_the_cpus_of_who_is_pinned_and_gets_them_back(world: World) -> None:
    async def story(w: Any) -> None:
        if not isinstance(w, LabWorld):
            return  # imagined CPUs bear any number of guests
        a = w.a.hypervisor
        (cell, *_) = (await a.resources()).cells
        mine, *others = cell.cpus

        async def floats_on(spec: GuestSpec, cpus: set[int]) -> None:
            async with asyncio.timeout(30):
                while w.cpus_of(spec) != [cpus] * spec.vcpus:
                    await asyncio.sleep(0.02)

        early = await w.boot()
        await floats_on(early, set(cell.cpus))
        plain = w.spec()
        held = HeldCell(cell.id, 1, plain.ram_mb, (mine,))
        pinned = msgspec.structs.replace(plain, vcpus=1, cells=(held,))
        await a.prepare(pinned)
        await a.start(pinned)
        assert w.cpus_of(early) == [set(others)] * early.vcpus  # before the pinned one ran
        late = await w.boot()
        assert w.cpus_of(late) == [set(others)] * late.vcpus
        assert w.cpus_of(pinned) == [{mine}]
        await w.b.hypervisor.admit(early)  # where nobody is pinned it floats everywhere again
        await a.begin_migration(early, w.b.hypervisor.endpoint())
        await w.a.until_moved(early.instance_id)
        assert (await w.b.hypervisor.guest(early.instance_id)).state is GuestState.RUNNING
        with libvirt_of(w.hosts["b"].outside_uri()) as connection:
            assert "vcpupin" not in connection.lookupByUUIDString(early.instance_id).XMLDesc()
        await a.admit(early)  # back: who arrives keeps off, too
        await w.b.hypervisor.begin_migration(early, a.endpoint())
        await w.b.until_moved(early.instance_id)
        await floats_on(early, set(others))
        await a.stop(pinned.instance_id, 0.0)
        await floats_on(early, set(cell.cpus))
        await floats_on(late, set(cell.cpus))

    world.run(story)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cells": (HeldCell(77, 1, 64),)}, "NUMA cell 77"),
        ({"cells": (HeldCell(0, 1, 64, (4000,)),)}, "CPU 4000"),
        ({"cells": (HeldCell(0, 5, 64),)}, "its cells hold 5"),
        ({"machine_type": "pdp-11"}, "'pdp-11'"),
    ],
)
def test_what_this_host_cannot_hold_a_guest_to_is_refused_and_leaves_nothing(
    world: World, values: dict[str, Any], words: str
) -> None:
    async def story(w: World) -> None:
        spec = msgspec.structs.replace(w.spec(), **values)
        await w.a.hypervisor.prepare(spec)
        with pytest.raises(HypervisorRefused, match=words):
            await w.a.hypervisor.start(spec)
        assert await w.a.hypervisor.guests() == {}
        await w.a.hypervisor.remove(spec.instance_id)

    world.run(story)
