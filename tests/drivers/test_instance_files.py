"""Disks and base images on a store that several hosts share: whole or not there, checked, never made twice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import GuestSpec, ImageRef
from droveway.drivers.clock import SystemNames
from droveway.drivers.hypervisor import bases
from droveway.drivers.hypervisor.console import KEPT_BYTES, last_lines
from droveway.drivers.hypervisor.libvirt.instance_files import GIB, InstanceFiles
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.ports.hypervisor import HypervisorRefused
from droveway.ports.images import TicketWanted

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def image(tmp_path: Path, fmt: str = "qcow2", size: str = "64M", *more: str) -> ImageRef:
    path = tmp_path / f"image.{fmt}"
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, *more, str(path), size], check=True)
    data = path.read_bytes()
    return ImageRef("an-image", fmt, len(data), hashlib.sha512(data).hexdigest(), str(path))


def spec(image_ref: ImageRef | None, disk_gb: int = 1) -> GuestSpec:
    return GuestSpec(SystemNames().uuid(), "g", 1, 128, disk_gb, image_ref)


def on_hosts(tmp_path: Path, count: int, story: Callable[..., Awaitable[None]]) -> None:
    async def run() -> None:
        hosts = [InstanceFiles(str(tmp_path / "store"), f"h{n}", SharedPathImages(f"h{n}")) for n in range(count)]
        try:
            await story(*hosts)
        finally:
            for host in hosts:
                host.close()

    asyncio.run(run())


def info(path: Path) -> dict[str, Any]:
    found = subprocess.run(["qemu-img", "info", "--output=json", str(path)], check=True, capture_output=True)
    return dict(json.loads(found.stdout))


@pytest.mark.parametrize(("disk_gb", "virtual_bytes"), [(1, GIB), (0, 64 * 1024**2)])
def test_a_disk_is_an_overlay_as_large_as_asked_for(tmp_path: Path, disk_gb: int, virtual_bytes: int) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(image(tmp_path), disk_gb)
        await files.prepare(guest)
        disk = info(tmp_path / "store" / guest.instance_id / "disk")
        assert disk["virtual-size"] == virtual_bytes
        assert disk["backing-filename"].startswith(str(tmp_path / "store" / "_base"))
        assert disk["backing-filename-format"] == "qcow2"

    on_hosts(tmp_path, 1, story)


def test_disks_for_swap_and_more_are_made_once_and_ready(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(image(tmp_path))
        await files.prepare(guest)  # by an earlier release, or of a flavor without
        more = msgspec.structs.replace(guest, ephemeral_gb=1, swap_mb=64)
        directory = tmp_path / "store" / guest.instance_id
        for _ in range(2):
            await files.make_local_disks(more)
            sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
            assert (sizes["disk.eph0"], sizes["disk.swap"]) == (GIB, 64 * 1024**2)
            assert set(sizes) == {"disk", "disk.eph0", "disk.swap"}
            swap, ephemeral = directory / "disk.swap", directory / "disk.eph0"
            assert swap.read_bytes()[4086:4096] == b"SWAPSPACE2"
            with ephemeral.open("r+b") as file:
                file.seek(1024 + 56)
                assert file.read(2) == b"\x53\xef"  # ext4
                file.seek(GIB - 4)
                assert file.read(4) in (b"\0" * 4, b"mine")  # nobody makes it a second time
                file.seek(GIB - 4)
                file.write(b"mine")
            assert stat.S_IMODE(swap.stat().st_mode) == stat.S_IMODE(ephemeral.stat().st_mode) == 0o600

    on_hosts(tmp_path, 1, story)


def test_a_blank_disk_needs_no_image(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(None)
        await files.prepare(guest)
        assert "backing-filename" not in info(tmp_path / "store" / guest.instance_id / "disk")

    on_hosts(tmp_path, 1, story)


def test_nobody_else_may_read_a_disk_or_an_image(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(image(tmp_path))
        await files.prepare(guest)
        store = tmp_path / "store"
        (base,) = (store / "_base").iterdir()
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (store / guest.instance_id, store / "_base", base)}
        assert list(modes.values()) == [0o700, 0o700, 0o400]
        assert stat.S_IMODE((store / guest.instance_id / "disk").stat().st_mode) == 0o600

    on_hosts(tmp_path, 1, story)


def test_a_disk_that_is_there_is_never_touched(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(image(tmp_path))
        await files.prepare(guest)
        disk = tmp_path / "store" / guest.instance_id / "disk"
        disk.write_bytes(b"somebody's data")
        await files.prepare(guest)
        assert disk.read_bytes() == b"somebody's data"

    on_hosts(tmp_path, 1, story)


def test_a_disk_beside_its_own_is_known_by_its_image(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(image(tmp_path))
        other = msgspec.structs.replace(guest, image=image(tmp_path, "raw", "32M"))
        assert not await files.has_disk_of_another(guest, "disk.rebuild")
        await files.prepare(guest)
        await files.prepare_disk(guest, "disk.rebuild", None)
        assert not await files.has_disk_of_another(guest, "disk.rebuild")
        assert await files.has_disk_of_another(other, "disk.rebuild")

    on_hosts(tmp_path, 1, story)


def test_two_hosts_at_once_make_one_base_and_leave_nothing_half_made(tmp_path: Path) -> None:
    async def story(one: InstanceFiles, other: InstanceFiles) -> None:
        ref = image(tmp_path)
        await asyncio.gather(*(files.prepare(spec(ref)) for files in (one, other) * 4))
        names = [path.name for path in (tmp_path / "store" / "_base").iterdir()]
        assert names == [f"{ref.sha512[:32]}.qcow2"]
        assert len([path for path in (tmp_path / "store").iterdir() if path.name != "_base"]) == 8

    on_hosts(tmp_path, 2, story)


def test_an_image_that_was_deleted_is_not_needed_again(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        ref = image(tmp_path)
        await files.prepare(spec(ref))
        os.unlink(ref.path)
        await files.prepare(spec(ref))

    on_hosts(tmp_path, 1, story)


def test_bytes_that_are_not_those_of_the_checksum_are_refused(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        ref = image(tmp_path)
        with pytest.raises(HypervisorRefused, match="damaged"):
            await files.prepare(spec(msgspec.structs.replace(ref, sha512="0" * 128)))
        assert list((tmp_path / "store" / "_base").iterdir()) == []

    on_hosts(tmp_path, 1, story)


@pytest.mark.parametrize("sha512", ["", "../../../etc/passwd", "0" * 127, "G" * 128])
def test_a_checksum_that_is_none_never_becomes_a_path(tmp_path: Path, sha512: str) -> None:
    async def story(files: InstanceFiles) -> None:
        with pytest.raises(HypervisorRefused, match="sha512"):
            await files.prepare(spec(msgspec.structs.replace(image(tmp_path), sha512=sha512)))

    on_hosts(tmp_path, 1, story)


def test_an_image_with_a_backing_file_is_refused(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        secret = image(tmp_path, "raw", "1M")
        ref = image(tmp_path, "qcow2", "64M", "-b", secret.path, "-F", "raw")
        with pytest.raises(HypervisorRefused, match="backing file"):
            await files.prepare(spec(ref))

    on_hosts(tmp_path, 1, story)


def test_an_image_larger_than_the_disk_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        with pytest.raises(HypervisorRefused, match="larger flavor"):
            await files.prepare(spec(image(tmp_path, "qcow2", "2G")))
        assert not (tmp_path / "store").exists()

    on_hosts(tmp_path, 1, story)


def test_an_image_that_is_gone_is_the_store_s_refusal(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        ref = image(tmp_path)
        os.unlink(ref.path)
        with pytest.raises(HypervisorRefused, match="No such file"):
            await files.prepare(spec(ref))

    on_hosts(tmp_path, 1, story)


def test_the_sweep_takes_this_host_s_leftovers_only(tmp_path: Path) -> None:
    async def story(one: InstanceFiles, other: InstanceFiles) -> None:
        del other
        base = tmp_path / "store" / "_base"
        base.mkdir(parents=True)
        for name in (".new-h0@x", ".new-h0-b@x", ".new-h1@x", "whole.qcow2"):
            (base / name).touch()
        await one.sweep()
        assert sorted(path.name for path in base.iterdir()) == [".new-h0-b@x", ".new-h1@x", "whole.qcow2"]

    on_hosts(tmp_path, 2, story)


@pytest.mark.parametrize("instance_id", ["", ".", "..", "_base", "../_base", "/etc"])
def test_what_is_no_id_is_no_path(tmp_path: Path, instance_id: str) -> None:
    async def story(files: InstanceFiles) -> None:
        with pytest.raises(HypervisorRefused):
            files.delete(instance_id)
        with pytest.raises(HypervisorRefused):
            await files.write_probe(f"../{instance_id}")

    on_hosts(tmp_path, 1, story)


def test_a_console_is_cut_at_its_bound_and_whatever_is_in_it_is_text(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(None)
        await files.prepare(guest)
        log = tmp_path / "store" / guest.instance_id / "console.log"
        assert await files.console(guest.instance_id) == ""
        log.write_bytes(b"old\n" + "é".encode() * KEPT_BYTES + b"\xff\x00\n")
        text = await files.console(guest.instance_id)
        assert len(text.encode()) <= KEPT_BYTES + 8
        assert text.endswith("é\ufffd\x00\n")
        assert "old" not in text

    on_hosts(tmp_path, 1, story)


@pytest.mark.parametrize(
    ("text", "length_lines", "expected"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\n", 5, "a\nb\n"),
        ("a\r\nb\x0b\x85\n", 1, "b\x0b\x85\n"),
        ("a\n", 0, ""),
        ("a\n", -1, ""),
        ("", 3, ""),
        ("a\nb", None, "a\nb"),
    ],
)
def test_last_lines(text: str, length_lines: int | None, expected: str) -> None:
    assert last_lines(text, length_lines) == expected


def test_a_console_is_cut_when_it_has_grown_and_goes_on_at_its_new_end(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = spec(None)
        console = tmp_path / "store" / guest.instance_id / "console.log"
        console.parent.mkdir(parents=True)
        lines = "".join(f"tick {number} ok\n" for number in range(100_000))
        with console.open("ab") as qemu:  # which appends, and keeps its file open
            qemu.write(lines.encode())
            qemu.flush()
            await files.trim_consoles([guest.instance_id, SystemNames().uuid()])
            assert console.stat().st_size == KEPT_BYTES
            qemu.write(b"tick 100000 ok\n")
        text = console.read_text()
        assert text.endswith("tick 99999 ok\ntick 100000 ok\n")
        before = console.stat().st_size
        await files.trim_consoles([guest.instance_id])
        assert console.stat().st_size == before

    on_hosts(tmp_path, 1, story)


def test_an_old_test_file_is_swept_and_a_new_one_is_not(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        for name, age_s in (("old", 4000), ("new", 10)):
            await files.write_probe(name)
            path = tmp_path / "store" / f".probe-{name}"
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))
        await files.sweep_probes()
        assert [await files.sees_probe(name) for name in ("old", "new")] == [False, True]

    on_hosts(tmp_path, 1, story)


class Fetched(SharedPathImages):
    """As if it came over HTTP: the spec names no path, and the first ask is without a ticket."""

    def __init__(self, source: Path) -> None:
        super().__init__("h1")
        self._source = source
        self.fetches = 0

    async def fetch(self, image: ImageRef, target: Path, ticket: ImageTicket | None) -> None:
        if ticket is None:
            raise TicketWanted("image an-image is to be fetched", "a challenge")
        self.fetches += 1
        await super().fetch(msgspec.structs.replace(image, path=str(self._source)), target, ticket)


TICKET = ImageTicket("a-token", ("http://api.example:8774",))


@contextlib.asynccontextmanager
async def fetching(tmp_path: Path, size: str = "64M") -> AsyncIterator[tuple[InstanceFiles, Fetched, ImageRef]]:
    ref = image(tmp_path, "qcow2", size)
    source = Path(ref.path)
    images = Fetched(source)
    files = InstanceFiles(str(tmp_path / "store"), "h1", images)
    try:
        yield (files, images, msgspec.structs.replace(ref, path=""))
    finally:
        files.close()


async def test_an_image_that_no_host_sees_is_fetched_once_with_a_ticket(tmp_path: Path) -> None:
    async with fetching(tmp_path) as (files, images, ref):
        guests = [spec(ref) for _ in range(3)]
        with pytest.raises(TicketWanted):
            await files.prepare(guests[0])
        await asyncio.gather(*(files.prepare(guest, TICKET) for guest in guests))
        assert images.fetches == 1
        await files.prepare(spec(ref))  # the base is there: no ticket is wanted
        os.unlink(images._source)
        await files.prepare(spec(ref))


async def test_a_fetched_image_is_held_to_the_flavor_too(tmp_path: Path) -> None:
    async with fetching(tmp_path, "3G") as (files, _images, ref):
        with pytest.raises(HypervisorRefused, match=r"describes a disk of 3.00 GiB"):
            await files.prepare(spec(ref), TICKET)


async def test_an_image_without_room_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    async with fetching(tmp_path) as (files, images, ref):
        huge = msgspec.structs.replace(ref, size_bytes=1 << 50)
        with pytest.raises(HypervisorRefused, match=r"Host h1 has no room for image an-image: it needs 107374182"):
            await files.prepare(spec(huge), TICKET)
        assert images.fetches == 0


async def test_what_is_in_the_way_of_an_image_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases that no disk needs, which the bounds would still keep."""
    async with fetching(tmp_path) as (files, _images, ref):
        unneeded = tmp_path / "store" / "_base" / f"{'a' * 32}.raw"
        unneeded.parent.mkdir(parents=True)
        unneeded.write_bytes(bytes(512))
        an_hour_ago = unneeded.stat().st_mtime - 3600
        os.utime(unneeded, (an_hour_ago, an_hour_ago))
        monkeypatch.setattr(bases, "free_bytes", lambda _: 0 if unneeded.exists() else 1 << 40)
        await files.prepare(spec(ref), TICKET)
        assert not unneeded.exists()
