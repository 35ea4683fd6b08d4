"""What every hypervisor driver says of its host and its guests, and what it can hold a guest to."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from droveway.domain.model import GuestState
from droveway.domain.placement import HeldCell
from droveway.domain.resources import doubts, settled
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import LabWorld, World
from tests.drivers.test_hypervisor_contract import world

__all__ = ["world"]  # the fixture


def test_it_says_what_it_has_and_the_numbers_can_be_believed(world: World) -> None:
    async def story(w: World) -> None:
        has = await w.a.hypervisor.resources()
        measured = await w.a.hypervisor.measure()
        assert doubts(has, (), measured) is None
        assert has.vcpus > 0 and has.hypervisor_type and has.machine_types
        assert sum(len(cell.cpus) for cell in has.cells) == has.vcpus
        assert settled(await w.a.hypervisor.resources()) == settled(has)
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
            await w.b.hypervisor.check_incoming(spec, (await a.resources()).cpu_xml)
        await a.stop(spec.instance_id, 0.0)
        await a.start(spec)
        assert (await a.guest(spec.instance_id)).state is GuestState.RUNNING

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
