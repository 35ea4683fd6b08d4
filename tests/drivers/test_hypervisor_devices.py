"""What every hypervisor driver guarantees of a guest's interfaces and of its config drive."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from droveway.domain.guest_data import Document
from droveway.domain.model import GuestSpec, GuestState, Nic
from droveway.domain.network_plan import bridge_of, device_of
from droveway.drivers.clock import SystemNames
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import LabWorld, SimulatedWorld, World, until

RED, BLUE = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
LETS_GO_S = 30.0
SCRIPT = b"#!/bin/sh\necho THE SCRIPT HAS RUN in $(hostname)\n"
TOLD = (
    Document(("openstack/latest/meta_data.json",), b'{"hostname":"configured"}'),
    Document(("openstack/latest/user_data", "ec2/latest/user-data"), SCRIPT),
)


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "simulated":
        return SimulatedWorld(tmp_path)
    lab, image = request.getfixturevalue("lab_hosts")
    return LabWorld(tmp_path, lab, image)


def nic(network_id: str, number: int) -> Nic:
    return Nic(SystemNames().uuid(), network_id, f"fa:16:3e:00:00:0{number}", 1450)


def plugged(spec: GuestSpec) -> list[tuple[str, str, str]]:
    return [(device_of(one.port_id), bridge_of(one.network_id), one.mac) for one in spec.nics]


def test_interfaces_and_the_drive_stay_through_power_cycles_and_a_move(world: World) -> None:
    async def story(w: World) -> None:
        a, b = w.a.hypervisor, w.b.hypervisor
        for network_id in (RED, BLUE):
            await w.make_bridge(network_id)
        spec = replace(w.spec(), nics=(nic(BLUE, 1), nic(RED, 2), nic(RED, 3)), config_drive=True)
        for _ in range(2):
            await a.prepare(spec, None, TOLD)
        await a.start(spec)
        assert w.nics_of("a", spec.instance_id) == plugged(spec), "all of them, in their order"
        drive = w.drive_of(spec.instance_id)
        assert b"user_data" in drive or b"USER_DAT" in drive
        await a.stop(spec.instance_id, 0.0)
        await a.prepare(spec, None, (Document(("openstack/latest/user_data",), b"another"),))
        await a.start(spec)
        assert w.drive_of(spec.instance_id) == drive, "a guest's drive never changes"
        await w.until_booted(spec)
        await w.move(spec)
        assert (await b.guest(spec.instance_id)).state is GuestState.RUNNING
        assert w.nics_of("b", spec.instance_id) == plugged(spec)
        await a.release(spec.instance_id)
        await b.stop(spec.instance_id, 0.0)
        await b.start(spec)
        assert w.nics_of("b", spec.instance_id) == plugged(spec) and w.drive_of(spec.instance_id) == drive
        await b.remove(spec.instance_id)
        assert w.drive_of(spec.instance_id) in (b"", b"[]")

    world.run(story)


def test_a_guest_whose_drive_is_missing_is_not_started_without(world: World) -> None:
    async def story(w: World) -> None:
        spec = w.spec()
        await w.a.hypervisor.prepare(spec)
        with pytest.raises(HypervisorRefused, match="no config drive here: prepare it first"):
            await w.a.hypervisor.start(replace(spec, config_drive=True))
        assert (await w.a.hypervisor.guest(spec.instance_id)).state is GuestState.ABSENT

    world.run(story)


@pytest.mark.lab
def test_a_real_guest_reads_its_drive_and_runs_its_user_data(
    lab_hosts: tuple[object, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab, image = request.getfixturevalue("lab_hosts")

    async def story(w: World) -> None:
        spec = replace(w.spec(), config_drive=True)
        await w.a.hypervisor.prepare(spec, None, TOLD)
        await w.a.hypervisor.start(spec)

        async def told() -> bool:
            return "THE SCRIPT HAS RUN in configured" in await w.a.hypervisor.console(spec.instance_id, None)

        await until(told)
        await w.a.hypervisor.remove(spec.instance_id)

    LabWorld(tmp_path, lab, image).run(story)


@pytest.mark.lab
def test_a_guest_whose_network_this_host_has_not_is_refused_and_leaves_nothing(
    lab_hosts: tuple[object, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab, image = request.getfixturevalue("lab_hosts")

    async def story(w: World) -> None:
        spec = replace(w.spec(), nics=(nic("cccccccc-0000-4000-8000-000000000003", 1),))
        await w.a.hypervisor.prepare(spec)
        with pytest.raises(HypervisorRefused, match="dwbcccccccc000"):
            await w.a.hypervisor.start(spec)
        assert (await w.a.hypervisor.guest(spec.instance_id)).state in (GuestState.ABSENT, GuestState.SHUTOFF)
        await w.a.hypervisor.remove(spec.instance_id)

    LabWorld(tmp_path, lab, image).run(story)


def test_interfaces_come_to_a_guest_that_runs_and_go_from_it(world: World) -> None:
    async def story(w: World) -> None:
        a, b = w.a.hypervisor, w.b.hypervisor
        for network_id in (RED, BLUE):
            await w.make_bridge(network_id)
        one, two, three = nic(RED, 1), nic(BLUE, 1), nic(RED, 3)  # a MAC address is of one network alone
        spec = replace(w.spec(), nics=(one,))
        await a.plug(spec.instance_id, two, "virtio")
        assert (await a.guest(spec.instance_id)).state is GuestState.ABSENT, "nothing to do for one that does not run"
        await a.unplug(spec.instance_id, two, 1.0)
        await a.prepare(spec)
        await a.start(spec)
        for _ in range(2):
            await a.plug(spec.instance_id, two, "virtio")
        await a.plug(spec.instance_id, three, "virtio")
        await w.a.hypervisor.unpause(spec.instance_id)  # one that runs stays as it is
        assert w.nics_of("a", spec.instance_id) == plugged(replace(spec, nics=(one, two, three)))
        await w.until_booted(spec)
        for _ in range(2):
            await a.unplug(spec.instance_id, one, LETS_GO_S)
        assert w.nics_of("a", spec.instance_id) == plugged(replace(spec, nics=(two, three)))
        await w.move(spec)
        assert w.nics_of("b", spec.instance_id) == plugged(replace(spec, nics=(two, three))), "a move takes them along"
        await a.release(spec.instance_id)
        await b.unplug(spec.instance_id, three, LETS_GO_S)
        await b.stop(spec.instance_id, 0.0)
        await b.unplug(spec.instance_id, two, 1.0)
        await b.start(replace(spec, nics=(one, three)))
        assert w.nics_of("b", spec.instance_id) == plugged(replace(spec, nics=(one, three))), "those of its spec"
        await b.remove(spec.instance_id)

    world.run(story)


def test_a_guest_that_does_not_let_go_keeps_its_interface(world: World) -> None:
    async def story(w: World) -> None:
        await w.make_bridge(RED)
        spec = replace(w.deaf(), nics=(nic(RED, 1),))
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        with pytest.raises(HypervisorRefused, match=r"has not let go of the interface fa:16:3e:00:00:01 \(port .* 1 s"):
            await w.a.hypervisor.unplug(spec.instance_id, spec.nics[0], 1.0)
        assert w.nics_of("a", spec.instance_id) == plugged(spec)
        assert (await w.a.hypervisor.guest(spec.instance_id)).state is GuestState.RUNNING
        await w.a.hypervisor.remove(spec.instance_id)

    world.run(story)


def test_a_machine_whose_bus_has_no_free_slots_is_begun_with_some(world: World) -> None:
    async def story(w: World) -> None:
        await w.make_bridge(RED)
        spec = replace(w.spec(), machine_type="q35")
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        several = tuple(nic(RED, number) for number in range(1, 9))
        for one in several:
            await w.a.hypervisor.plug(spec.instance_id, one, "virtio")
        assert w.nics_of("a", spec.instance_id) == plugged(replace(spec, nics=several))
        await w.a.hypervisor.remove(spec.instance_id)

    world.run(story)
