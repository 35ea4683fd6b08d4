"""What every hypervisor driver guarantees, told as stories of two hosts, for the simulated driver and for libvirt."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.agents.move_trials import must_pass
from droveway.domain.model import Guest, GuestJob, GuestState, ImageRef, MigrationEndpoint
from droveway.ports.hypervisor import Hypervisor, HypervisorDown, HypervisorRefused
from tests.drivers.hypervisor_worlds import GIB, LabWorld, SimulatedWorld, World

STOPS_S = 60.0  # after which a guest that has not obeyed is ended
ABSENT_ID = "00000000-1111-4222-8333-444444444444"


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "simulated":
        return SimulatedWorld(tmp_path)
    lab, image = request.getfixturevalue("lab_hosts")
    return LabWorld(tmp_path, lab, image)


# -- one host -------------------------------------------------------------------------------------------------------
def test_a_guest_that_is_not_there_is_absent_and_every_verb_about_it_is_harmless(world: World) -> None:
    async def story(w: World) -> None:
        a = w.a.hypervisor
        assert await a.guest(ABSENT_ID) == Guest(ABSENT_ID, GuestState.ABSENT)
        assert await a.guests() == {}
        await a.stop(ABSENT_ID, 1.0)
        await a.release(ABSENT_ID)
        await a.dismiss(ABSENT_ID)
        await a.abort_migration(ABSENT_ID)
        await a.begin_migration(msgspec.structs.replace(w.spec(), instance_id=ABSENT_ID), w.b.hypervisor.endpoint())
        await a.remove(ABSENT_ID)
        assert await a.console(ABSENT_ID, None) == ""
        assert (await a.guest(ABSENT_ID)).state is GuestState.ABSENT

    world.run(story)


def test_a_guest_s_life_every_verb_said_twice(world: World) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, w.spec()
        for _ in range(2):
            await a.prepare(spec)
        assert (await a.guest(spec.instance_id)).state is GuestState.ABSENT
        assert w.has_files(spec.instance_id)
        assert await a.files() == await w.b.hypervisor.files() == (spec.instance_id,), "they share their store"
        for _ in range(2):
            await a.start(spec)
        await w.a.until(lambda: spec.instance_id in w.a.changes)
        running = Guest(spec.instance_id, GuestState.RUNNING)
        assert await a.guest(spec.instance_id) == running
        assert await a.guests() == {spec.instance_id: running}
        assert await w.b.hypervisor.guests() == {}
        await w.until_booted(spec)
        assert len((await a.console(spec.instance_id, 1)).splitlines()) == 1
        for _ in range(2):
            await a.stop(spec.instance_id, 0.0)
        assert await a.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.SHUTOFF)
        assert w.has_files(spec.instance_id)
        await a.start(spec)
        assert (await a.guest(spec.instance_id)).state is GuestState.RUNNING
        for _ in range(2):
            await a.remove(spec.instance_id)
        assert (await a.guest(spec.instance_id)).state is GuestState.ABSENT
        assert await a.guests() == {}
        assert not w.has_files(spec.instance_id) and await a.files() == ()

    world.run(story)


def test_stop_asks_the_guest_first_and_comes_back_when_it_has_obeyed(world: World) -> None:
    async def story(w: World) -> None:
        spec = await w.boot()
        await w.until_booted(spec)
        await asyncio.sleep(1.0 if isinstance(w, LabWorld) else 0.0)  # its power button is loaded after BOOTED
        began_s = time.monotonic()
        await w.a.hypervisor.stop(spec.instance_id, STOPS_S)
        assert time.monotonic() - began_s < STOPS_S / 2
        assert await w.a.hypervisor.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.SHUTOFF)

    world.run(story)


def test_start_without_files_is_refused_and_leaves_nothing(world: World) -> None:
    async def story(w: World) -> None:
        with pytest.raises(HypervisorRefused, match="prepare"):
            await w.a.hypervisor.start(w.spec())
        assert await w.a.hypervisor.guests() == {}

    world.run(story)


def test_prepare_refuses_what_cannot_be_a_disk(world: World) -> None:
    async def story(w: World) -> None:
        a = w.a.hypervisor
        image = w.image()
        for bad, disk_gb in (
            (msgspec.structs.replace(image, disk_format="vmdk"), 1),
            (w.raw_image(size_bytes=GIB + 512), 1),
            (None, 0),
        ):
            spec = msgspec.structs.replace(w.spec(disk_gb), image=bad)
            with pytest.raises(HypervisorRefused):
                await a.prepare(spec)
            assert not w.has_files(spec.instance_id)
        await a.prepare(w.spec(0, image))  # no size of its own: as large as the image

    world.run(story)


def test_resources_are_those_of_a_real_machine(world: World) -> None:
    async def story(w: World) -> None:
        found = await w.a.hypervisor.resources()
        assert found.vcpus >= 1
        assert 0 < found.memory_free_mb <= found.memory_mb
        assert 0 <= found.disk_free_gb <= found.disk_gb
        assert found.cpu_xml
        assert found.host_ip
        must_pass(await w.b.hypervisor.check_incoming(w.spec(), found.cpu_xml))

    world.run(story)


def test_while_the_hypervisor_is_down_verbs_say_so_and_afterwards_all_is_as_it_was(world: World) -> None:
    async def story(w: World) -> None:
        spec = await w.boot()
        await w.lose_hypervisor("a")
        await w.a.until(lambda: not w.a.is_up)
        with pytest.raises(HypervisorDown):
            await w.a.hypervisor.guest(spec.instance_id)
        with pytest.raises(HypervisorDown):
            await w.a.hypervisor.start(spec)
        late = await w.client("a")  # an agent that starts now: it waits
        await late.until(lambda: late.connections != [])
        assert not late.is_up
        await w.return_hypervisor("a")
        await late.until(lambda: late.is_up)
        assert (await late.hypervisor.guest(spec.instance_id)).state is GuestState.RUNNING
        await late.hypervisor.remove(spec.instance_id)

    world.run(story)


# -- moving ---------------------------------------------------------------------------------------------------------
def test_a_probe_written_there_is_seen_here_until_it_is_removed(world: World) -> None:
    async def story(w: World) -> None:
        a, b = w.a.hypervisor, w.b.hypervisor
        assert not await a.sees_probe("probe-1")
        for _ in range(2):
            await b.write_probe("probe-1")
        assert await a.sees_probe("probe-1")
        for _ in range(2):
            await b.remove_probe("probe-1")
        assert not await a.sees_probe("probe-1")

    world.run(story)


def test_a_move_there_and_every_verb_of_its_end_twice(world: World) -> None:
    async def story(w: World) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        cpu_xml = (await a.resources()).cpu_xml

        async def arrived(host: Hypervisor) -> Any:  # some know for a while how much was copied
            return msgspec.structs.replace(await host.guest(spec.instance_id), progress=None)

        for _ in range(2):
            must_pass(await b.check_incoming(spec, cpu_xml))
            await b.admit(spec)
        for _ in range(2):
            await a.begin_migration(spec, b.endpoint())
            assert (await a.guest(spec.instance_id)).job is GuestJob.OUTGOING
        assert await w.a.until_moved(spec.instance_id) == Guest(spec.instance_id, GuestState.ABSENT)
        assert await arrived(b) == Guest(spec.instance_id, GuestState.RUNNING)
        for _ in range(2):
            await a.release(spec.instance_id)
            await b.dismiss(spec.instance_id)  # it runs: not half-arrived
            await b.release(spec.instance_id)  # it runs: not left behind
            await a.abort_migration(spec.instance_id)
            await a.begin_migration(spec, b.endpoint())  # no longer here
        assert await arrived(b) == Guest(spec.instance_id, GuestState.RUNNING)
        assert await a.guests() == {}
        await b.stop(spec.instance_id, 0.0)
        assert (await b.guest(spec.instance_id)).state is GuestState.SHUTOFF
        await b.remove(spec.instance_id)
        assert not w.has_files(spec.instance_id)

    world.run(story)


def test_a_guest_that_nobody_expects_is_ended_unrun_and_runs_on_at_its_source(world: World) -> None:
    async def story(w: World) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        await b.admit(spec)
        await b.dismiss(spec.instance_id)
        await a.begin_migration(spec, b.endpoint())
        after = await w.a.until_moved(spec.instance_id)
        assert (after.state, after.job) == (GuestState.RUNNING, GuestJob.NONE)
        assert after.copy_error
        assert (await b.guest(spec.instance_id)).state is GuestState.ABSENT
        assert (await w.move(spec)).state is GuestState.ABSENT  # expected, it goes, and the error is forgotten

    world.run(story)


def test_an_expectation_outlives_the_agent(world: World) -> None:
    async def story(w: World) -> None:
        spec = await w.boot()
        await w.b.hypervisor.admit(spec)
        await w.b.hypervisor.close()
        w.b = await w.client("b")
        await w.b.until(lambda: w.b.is_up)
        await w.a.hypervisor.begin_migration(spec, w.b.hypervisor.endpoint())
        assert (await w.a.until_moved(spec.instance_id)).state is GuestState.ABSENT
        assert (await w.b.hypervisor.guest(spec.instance_id)).state is GuestState.RUNNING

    world.run(story)


def test_an_aborted_copy_leaves_the_guest_where_it_was(world: World) -> None:
    async def story(w: World) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        w.slow_copies(spec)
        await b.admit(spec)
        await a.begin_migration(spec, b.endpoint())
        for _ in range(2):
            await a.abort_migration(spec.instance_id)
            after = await a.guest(spec.instance_id)
            assert (after.state, after.job) == (GuestState.RUNNING, GuestJob.NONE)
            assert after.copy_error
        for _ in range(2):
            await b.dismiss(spec.instance_id)
        assert (await b.guest(spec.instance_id)).state is GuestState.ABSENT
        assert w.has_files(spec.instance_id)

    world.run(story)


def test_dismissing_a_half_arrived_guest_ends_the_half_only(world: World) -> None:
    async def story(w: World) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        w.slow_copies(spec)
        await b.admit(spec)
        await a.begin_migration(spec, b.endpoint())
        half = await w.b.until_guest(spec.instance_id, lambda g: g.state is not GuestState.ABSENT)
        assert (half.state, half.job) == (GuestState.PAUSED, GuestJob.INCOMING)
        with pytest.raises(HypervisorRefused, match="on this host already"):
            must_pass(await b.check_incoming(spec, ""))
        await b.dismiss(spec.instance_id)
        assert (await b.guest(spec.instance_id)).state is GuestState.ABSENT
        after = await w.a.until_moved(spec.instance_id)
        assert (after.state, after.job) == (GuestState.RUNNING, GuestJob.NONE)
        assert after.copy_error

    world.run(story)


def test_a_copy_goes_on_when_its_agent_dies_and_the_next_agent_sees_it(world: World) -> None:
    async def story(w: World) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        w.slow_copies(spec)
        await b.admit(spec)
        await a.begin_migration(spec, b.endpoint())
        await a.close()
        w.a = await w.client("a")
        await w.a.until(lambda: w.a.is_up)
        adopted = await w.a.hypervisor.guest(spec.instance_id)
        assert adopted.job is GuestJob.OUTGOING
        assert adopted.progress is not None
        await w.a.hypervisor.begin_migration(spec, b.endpoint())  # under way already
        w.hurry(spec)
        assert (await w.a.until_moved(spec.instance_id)).state is GuestState.ABSENT
        assert (await b.guest(spec.instance_id)).state is GuestState.RUNNING

    world.run(story)


def test_a_copy_to_nowhere_is_refused_and_remembered(world: World) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, await w.boot()
        to = w.b.hypervisor.endpoint()
        await w.lose_hypervisor("b")
        nowhere = MigrationEndpoint("nowhere", to.peer_uri, to.data_uri)
        with contextlib.suppress(HypervisorRefused):  # at once, or only when the connection has been tried
            await a.begin_migration(spec, nowhere)
        after = await w.a.until_moved(spec.instance_id)
        assert (after.state, after.job) == (GuestState.RUNNING, GuestJob.NONE)
        assert after.copy_error
        await w.return_hypervisor("b")
        await w.b.until(lambda: w.b.is_up)

    world.run(story)


@pytest.mark.parametrize(
    "peer",
    ["qemu+ext://{}/system?command={}", "qemu+ssh://{}/system?netcat={}&command={}", "qemu+tcp://{}/system?x={}"],
)
def test_where_a_destination_says_it_is_makes_the_source_do_nothing_but_connect(world: World, peer: str) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, await w.boot()
        to = w.b.hypervisor.endpoint()
        where = to.peer_uri.partition("://")[2].removesuffix("/system")
        script, witness = w.tmp_path / "run-me", w.tmp_path / "was-run"
        script.write_text(f"#!/bin/sh\nid > {witness}\n")
        script.chmod(0o755)
        uri = peer.format(where, script, script)
        with pytest.raises(HypervisorRefused):
            await a.begin_migration(spec, MigrationEndpoint("h2", uri, to.data_uri))
        assert (await a.guest(spec.instance_id)).state is GuestState.RUNNING
        assert await a.reaches(uri, 0.5)
        assert not witness.exists()

    world.run(story)


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_hypervisor_lost_in_the_middle_of_a_copy_leaves_the_guest_at_its_source(world: World, which: str) -> None:
    async def story(w: World) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        w.slow_copies(spec)
        await b.admit(spec)
        await a.begin_migration(spec, b.endpoint())
        await w.b.until_guest(spec.instance_id, lambda g: g.job is GuestJob.INCOMING)
        await w.lose_hypervisor(which)
        client = w.a if which == "a" else w.b
        await client.until(lambda: not client.is_up)
        await w.return_hypervisor(which)
        await client.until(lambda: client.is_up)
        after = await w.a.until_moved(spec.instance_id)
        assert (after.state, after.job) == (GuestState.RUNNING, GuestJob.NONE)
        assert after.copy_error
        await b.dismiss(spec.instance_id)
        assert (await b.guest(spec.instance_id)).state is GuestState.ABSENT

    world.run(story)


def test_what_a_lost_end_leaves_at_the_source_does_not_read_as_running_and_can_be_released(world: World) -> None:
    async def story(w: World) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        await w.copy_with_lost_end(spec)
        husk = await a.guest(spec.instance_id)
        # Paused; or only its definition, when the end was lost a moment later.
        assert husk.state in (GuestState.PAUSED, GuestState.SHUTOFF)
        assert husk.job is GuestJob.NONE
        assert (await b.guest(spec.instance_id)).state is GuestState.RUNNING
        with pytest.raises(HypervisorRefused):
            await a.begin_migration(spec, b.endpoint())
        for _ in range(2):
            await a.release(spec.instance_id)
        assert (await a.guest(spec.instance_id)).state is GuestState.ABSENT
        assert (await b.guest(spec.instance_id)).state is GuestState.RUNNING
        assert w.has_files(spec.instance_id)

    world.run(story)


def test_a_definition_left_by_an_earlier_stay_is_forgotten_when_the_guest_is_expected(world: World) -> None:
    async def story(w: World) -> None:
        b, spec = w.b.hypervisor, w.spec()
        await b.prepare(spec)
        await b.start(spec)
        await b.stop(spec.instance_id, 0.0)
        assert (await b.guest(spec.instance_id)).state is GuestState.SHUTOFF
        await b.admit(spec)
        assert (await b.guest(spec.instance_id)).state is GuestState.ABSENT
        assert w.has_files(spec.instance_id)

    world.run(story)


@pytest.mark.lab
def test_calls_to_a_libvirtd_that_hangs_end(lab_hosts: tuple[Any, ImageRef], tmp_path: Path) -> None:
    """Several at once: on one connection they would take the process with them when the keepalive gives up."""
    lab, image = lab_hosts

    async def story(w: LabWorld) -> None:
        libvirtd = w.hosts["a"].libvirtd
        libvirtd.send(signal.SIGSTOP)
        try:
            calls = [asyncio.create_task(w.a.hypervisor.guest(ABSENT_ID)) for _ in range(8)]
            assert {type(end) for end in await asyncio.gather(*calls, return_exceptions=True)} == {HypervisorDown}
        finally:
            libvirtd.send(signal.SIGCONT)
        await w.a.until(lambda: w.a.is_up)
        assert await w.a.hypervisor.guests() == {}

    LabWorld(tmp_path, lab, image).run(story)
