"""Volumes that are served to other hosts: to those that were admitted, and to no other, whatever certificate it has."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from droveway.domain.volume.disks import NbdSource, are_same_bytes
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.storage import state_file
from droveway.drivers.storage.exports.nbdkit import Export, NbdExports
from droveway.drivers.storage.lvm.volume_group import Part, has_mapper
from droveway.ports.storage import StorageRefused
from lab import processes
from tests.drivers.storage_server_worlds import LvmWorld
from tests.drivers.storage_world import S1, V1, V2
from tests.drivers.storage_worlds import MARKS, play

pytestmark = MARKS["lvm"]
ONE, OTHER = VolumeSpec(V1, 1), VolumeSpec(V2, 1)
MIB = 1024**2


def exports_of(world: LvmWorld) -> NbdExports:
    found: NbdExports = world.storage._exports  # type: ignore[attr-defined]
    return found


def export(world: LvmWorld, volume_id: str = V1, host: str = "h1") -> Export:
    found = exports_of(world).find(volume_id, host)
    assert found is not None
    return found


async def opens(world: LvmWorld, source: Any, host: str) -> bool:
    try:
        async with world.guest(source, host) as guest:
            await guest.write(0, 0x41)
    except AssertionError as refused:
        assert "TLS" in str(refused) or "tls" in str(refused), refused
        return False
    return True


def test_another_hosts_valid_certificate_is_refused(tmp_path: Path) -> None:
    """Both certificates are what their hosts open disks with; only one of the two was admitted."""

    async def story(world: LvmWorld) -> None:
        await world.storage.create(ONE)
        await world.storage.create(OTHER)
        source, other = await world.admit(ONE, "h1"), await world.admit(OTHER, "h2")
        assert isinstance(source, NbdSource) and isinstance(other, NbdSource) and source.port != other.port
        assert (await opens(world, source, "h1"), await opens(world, source, "h2")) == (True, False)
        assert (await opens(world, other, "h1"), await opens(world, other, "h2")) == (False, True)
        there = await world.admit(ONE, "h2")  # as in a migration
        assert there != source and are_same_bytes(there, source)
        assert (await opens(world, there, "h1"), await opens(world, there, "h2")) == (False, True)
        await world.storage.withdraw(V1, "h1")
        assert (await opens(world, there, "h1"), await opens(world, there, "h2")) == (False, True)
        await world.storage.withdraw(V1, "h2")
        assert exports_of(world).known() == [V2]

    play("lvm", tmp_path, story)


def test_no_plain_connection_and_no_unnamed_host(tmp_path: Path) -> None:
    async def story(world: LvmWorld) -> None:
        await world.storage.create(ONE)
        with pytest.raises(StorageRefused, match="Host h1 has not said by which certificate"):
            await world.storage.admit(ONE, "h1")
        with pytest.raises(StorageRefused, match="Host h1 has not said by which certificate"):
            await world.storage.admit(ONE, "h1", identity="no certificate")
        assert exports_of(world).known() == []
        source = await world.admit(ONE, "h1")
        assert isinstance(source, NbdSource)
        plain = f"driver=raw,file.driver=nbd,file.host={source.address},file.port={source.port}"
        process = await asyncio.create_subprocess_exec(
            *("qemu-img", "info", "--image-opts", plain), stderr=asyncio.subprocess.PIPE
        )
        _, words = await process.communicate()
        assert b"TLS negotiation required" in words

    play("lvm", tmp_path, story)


def test_a_server_that_is_killed_is_begun_anew_under_its_guest(tmp_path: Path) -> None:
    async def story(world: LvmWorld) -> None:
        await world.storage.create(ONE)
        async with world.guest(await world.admit(ONE, "h1")) as guest:
            await guest.write(0, 0x41)
            first = export(world)
            killed = processes.Process(first.pid, first.started_ticks)
            killed.send(signal.SIGKILL)
            assert await guest.reads(0, 0x41)
            await guest.write(MIB, 0x42)
            assert export(world).pid != first.pid and export(world).port == first.port
            await world.storage.close()
            processes.Process(export(world).pid, export(world).started_ticks).send(signal.SIGKILL)
            await world.restart()
            assert await guest.reads(MIB, 0x42)

    play("lvm", tmp_path, story)


def test_a_renewed_certificate_is_shown_without_an_end(tmp_path: Path) -> None:
    async def story(world: LvmWorld) -> None:
        await world.storage.create(ONE)
        async with world.guest(await world.admit(ONE, "h1")) as guest:
            await guest.write(0, 0x41)
            first = export(world)
            world.pki.sign("2")
            for _ in range(300):
                if export(world).pid not in (0, first.pid):
                    break
                await asyncio.sleep(0.05)
            assert export(world).pid not in (0, first.pid)
            assert await guest.reads(0, 0x41)

    play("lvm", tmp_path, story)


def test_a_host_that_is_cut_off_writes_no_more(tmp_path: Path) -> None:
    async def story(world: LvmWorld) -> None:
        await world.storage.create(ONE)
        source = await world.admit(ONE, "h1")
        async with world.guest(source) as guest:
            await guest.write(0, 0x41)
            served = export(world)
            there = await world.admit(ONE, "h2")
            assert export(world).pid == served.pid, "its guest is not disturbed"
            with pytest.raises(StorageRefused, match="open on host h1"):
                await world.storage.withdraw(V1, "h1")
            await world.storage.withdraw(V1, "h1", force=True)
            async with world.guest(there, "h2") as next_guest:
                assert await next_guest.reads(0, 0x41)
                await next_guest.write(0, 0x42)
                with pytest.raises(StorageRefused, match="open on host h2"):
                    await world.storage.withdraw(V1, "h2")
                write = asyncio.create_task(guest.ask("write -f -P 67 0 4096"))
                await asyncio.sleep(1.5)
                assert await next_guest.reads(0, 0x42)
                write.cancel()
                await guest.kill()
            assert exports_of(world).hosts(V1) == ["h2"]
        await world.storage.withdraw(V1, "h2", force=True)
        assert not processes.Process(served.pid, served.started_ticks).is_alive()
        assert (await world.storage.inventory())[0].holders == ()

    play("lvm", tmp_path, story)


@pytest.mark.skipif(has_mapper(), reason="this kernel maps devices")
def test_without_device_mapper_it_says_what_it_cannot(tmp_path: Path) -> None:
    async def story(world: LvmWorld) -> None:
        guarantees = world.storage.guarantees
        assert not (guarantees.snapshots or guarantees.thin or guarantees.reverts)
        await world.storage.create(ONE)
        with pytest.raises(StorageRefused, match="has linear volumes, which have no snapshots"):
            await world.storage.snapshot(V1, S1)
        with pytest.raises(StorageRefused, match="need the kernel's device-mapper"):
            await world.make(thin_pool="thin").open()

    play("lvm", tmp_path, story)


def test_a_volume_that_was_half_replaced_is_whole_again(tmp_path: Path) -> None:
    async def story(world: LvmWorld) -> None:
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"mine")
        group = world.storage._group  # type: ignore[attr-defined]
        await group.create(f"new-{V2}", 4 * MIB)
        await group.rename(f"volume-{V1}", f"old-{V1}")
        await world.restart()
        assert [one.volume_id for one in await world.storage.inventory()] == [V1]
        assert await world.bytes_of(ONE, 0, 4) == b"mine"
        assert {one.name for one in await group.volumes()} == {f"volume-{V1}"}

    play("lvm", tmp_path, story)


def test_what_is_admitted_to_read_alone_is_served_so(tmp_path: Path) -> None:
    """Also to a host that wrote to it before."""

    async def story(world: LvmWorld) -> None:
        await world.storage.create(ONE)
        source, first = await world.admit(ONE, "h1"), export(world)
        assert (await world.admit(ONE, "h1"), export(world)) == (source, first), "nothing is begun anew for nothing"
        identity = (exports_of(world)._home(V1, "h1") / "admitted.pem").read_text()
        await world.storage.admit(ONE, "h1", read_only=True, identity=identity)
        command = processes.Process(export(world).pid, export(world).started_ticks).command()
        assert export(world).read_only and "-r" in command and export(world).pid != first.pid

    play("lvm", tmp_path, story)


class Unserved(NbdExports):
    """It takes its time to look for ports, and begins no server."""

    def _is_free(self, port: int) -> bool:
        time.sleep(0.005)
        return True

    def _begin(self, export: Export, *, is_kept: bool = False) -> Export:
        return export


def test_volumes_that_are_admitted_to_side_by_side_have_ports_of_their_own(tmp_path: Path) -> None:
    """Others are withdrawn meanwhile."""
    exports = Unserved(tmp_path / "exports", "127.0.0.1", tmp_path)
    part = Part("/dev/null", 0, MIB, is_whole=True)
    names = [f"00000000-0000-4000-8000-{number:012d}" for number in range(24)]
    for name in names[:8]:
        exports.admit(name, part, "h1", "it", read_only=False)

    def play(number: int) -> None:
        exports.withdraw(names[number], "h1")
        exports.admit(names[number + 8], part, "h1", "it", read_only=False)
        exports.admit(names[number + 16], part, "h1", "it", read_only=False)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(play, range(8)))
    found = [one.port for name in names if (one := exports.find(name, "h1")) is not None]
    assert len(found) == len(set(found)) == 16


def test_what_the_machines_power_takes_leaves_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not waited for may be empty then, on XFS, or not there: the server that is begun next has the port
    that its guest knows."""
    passing: set[Path] = set()
    write = state_file.write

    def noted(path: Path, text: str, *, is_lasting: bool = True) -> None:
        write(path, text, is_lasting=is_lasting)
        (passing.discard if is_lasting else passing.add)(path)

    def run(export: Export, pid_file: Path) -> None:
        server = subprocess.Popen(("sleep", "60"))
        servers.append(server)
        pid_file.write_text(str(server.pid))

    servers: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(state_file, "write", noted)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text(name)
    exports = NbdExports(tmp_path / "exports", "127.0.0.1", tmp_path)
    monkeypatch.setattr(exports, "_run", run)
    try:
        before = exports.admit(V1, Part("/dev/a", 0, MIB, is_whole=True), "h1", "its certificate", read_only=False)
        assert exports.find(V1, "h1") == before and before.process.is_alive()
        before.process.end()
        for empty in (True, False):
            for path in passing:
                path.write_text("") if empty else path.unlink()
            found = exports.find(V1, "h1")
            assert found is not None and (found.part, found.port, found.pid) == (before.part, before.port, 0)
        exports.look(V1)
        after = exports.find(V1, "h1")
        assert after is not None and after.process.is_alive() and after.port == before.port
        exports.renew(V1, Part("/dev/b", 0, MIB, is_whole=True))
        found = exports.find(V1, "h1")
        assert found is not None and found.part.device == "/dev/b" and not after.process.is_alive()
    finally:
        for server in servers:
            server.kill()
            server.wait()
