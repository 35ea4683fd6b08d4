"""Bases that nobody needs are deleted; one that somebody needs, or is about to, never."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from droveway.domain.image_format import backing_file
from droveway.drivers.hypervisor.libvirt import base_sweep
from droveway.drivers.hypervisor.libvirt.base_sweep import KEPT_S, sweep, want
from droveway.drivers.hypervisor.libvirt.instance_files import InstanceFiles
from tests.drivers.test_instance_files import image, on_hosts, spec

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")

LONG_AGO_S = 1_000_000_000
A, B = f"{'a' * 32}.raw", f"{'b' * 32}.raw"


class Store:
    """A store with bases A and B, both old, and a guest's disk on A."""

    def __init__(self, root: Path) -> None:
        self.root, self.bases = root, root / "_base"
        self.bases.mkdir(parents=True)
        (root / ".probe-x").touch()
        for name in (A, B):
            path = self.bases / name
            path.write_bytes(bytes(512))
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))
        self.disk(self.bases / A)

    def disk(self, base: Path, guest: str = "guest") -> Path:
        directory = self.root / guest
        directory.mkdir()
        (directory / "console.log").write_text("BOOTED\n")
        disk = str(directory / "disk")
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", disk, "1M"]
        subprocess.run(command, check=True)
        return directory / "disk"

    def sweep(self, host: str = "h1", later_s: float = 0.0) -> list[str]:
        """What is left after it."""
        (self.root / "now").touch()
        now_s = (self.root / "now").stat().st_mtime
        sweep(self.root, self.bases, host, now_s + later_s)
        return sorted(path.name for path in self.bases.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_only_what_no_disk_names_goes(store: Store) -> None:
    assert store.sweep() == [A]
    (store.root / "guest" / "disk").unlink()
    assert store.sweep() == []


def test_a_disk_that_is_not_finished_counts_too(store: Store) -> None:
    store.disk(store.bases / B, "other").rename(store.root / "other" / ".new-h2@disk")
    assert store.sweep() == [A, B]


def test_what_was_wanted_today_stays(store: Store) -> None:
    assert want(store.bases / B)
    assert store.sweep() == store.sweep(later_s=KEPT_S - 60) == [A, B]
    assert store.sweep(later_s=KEPT_S + 60) == [A]
    assert not want(store.bases / B)


def test_what_no_disk_needs_is_bounded_and_the_oldest_goes_first(store: Store) -> None:
    """Not within ten minutes of being wanted: a disk may be about to name it. What a disk names does not count."""
    (store.root / "now").touch()
    now_s = (store.root / "now").stat().st_mtime
    names = [f"{letter * 32}.raw" for letter in "cdef"]
    for age_s, name in zip((4000, 3000, 2000, base_sweep.SAFE_S - 60), names, strict=True):
        path = store.bases / name
        path.write_bytes(os.urandom(1 << 20))
        os.utime(path, (now_s - age_s, now_s - age_s))
    (store.bases / B).unlink()
    kept = [A, *names]
    for most_mib, gone in ((5, 0), (2, 1), (1, 2), (0, 3)):
        sweep(store.root, store.bases, "h1", now_s, base_sweep.Bounds(max_bytes=most_mib << 20))
        assert sorted(path.name for path in store.bases.iterdir()) == [A, *kept[1 + gone :]]


def test_a_base_that_a_disk_of_another_host_names_stays(store: Store) -> None:
    """On a store that hosts share, whoever sweeps: the guest's directory is all that tells."""
    store.disk(store.bases / B, "a-guest-of-h2")
    for host in ("h1", "h2"):
        sweep(store.root, store.bases, host, 1e12, base_sweep.Bounds(max_bytes=0))
    assert sorted(path.name for path in store.bases.iterdir()) == [A, B]


def test_what_is_wanted_while_the_sweep_looks_elsewhere_gets_its_name_back(store: Store) -> None:
    base = store.bases / B
    seen_ns = base.stat().st_mtime_ns
    assert want(base)
    base_sweep._delete(base, store.bases / f".old-h1@{B}", seen_ns)
    assert sorted(path.name for path in store.bases.iterdir()) == [A, B]


def test_a_sweep_that_was_cut_short_is_put_right_by_the_next_of_that_host(store: Store) -> None:
    (store.bases / A).rename(store.bases / f".old-h1@{A}")
    (store.bases / B).rename(store.bases / f".old-h1-b@{B}")
    assert store.sweep("h2") == [f".old-h1-b@{B}", f".old-h1@{A}"]
    assert store.sweep("h1") == [f".old-h1-b@{B}", A]


def test_what_was_made_anew_meanwhile_is_kept(store: Store) -> None:
    (store.bases / B).rename(store.bases / f".old-h1@{B}")
    (store.bases / B).write_bytes(b"the same bytes")
    want(store.bases / B)
    assert store.sweep() == [A, B]
    assert (store.bases / B).read_bytes() == b"the same bytes"


def test_two_sweeps_of_the_same_base(store: Store) -> None:
    base = store.bases / B
    seen_ns = base.stat().st_mtime_ns
    for host in ("h1", "h2"):
        base_sweep._delete(base, store.bases / f".old-{host}@{B}", seen_ns)
    assert sorted(path.name for path in store.bases.iterdir()) == [A]


def test_nothing_goes_when_a_disk_cannot_be_understood(store: Store) -> None:
    disk = store.root / "guest" / "disk"
    disk.write_bytes(disk.read_bytes()[:40])
    assert store.sweep() == [A, B]


@pytest.mark.parametrize("name", ["console.log", "disk.eph0", "disk.swap", "nvram.fd"])
def test_what_a_guest_writes_itself_keeps_no_base(store: Store, name: str) -> None:
    for head in (
        b"QFI\xfb" + b"\xff" * 200,
        b"QFI\xfb\0\0\0\3" + (72).to_bytes(8, "big") + (99).to_bytes(4, "big") + bytes(52) + bytes(store.bases / B),
    ):
        (store.root / "guest" / name).write_bytes(head + bytes(4096))
        assert store.sweep() == [A]


def test_a_base_that_was_swept_is_made_anew(tmp_path: Path) -> None:
    async def story(one: InstanceFiles, other: InstanceFiles) -> None:
        ref = image(tmp_path)
        guest = spec(ref)
        await one.prepare(guest)
        (base,) = (tmp_path / "store" / "_base").iterdir()
        os.utime(base, (LONG_AGO_S, LONG_AGO_S))
        await other.sweep_bases()
        assert base.exists()  # its disk is there
        one.delete(guest.instance_id)
        await other.sweep_bases()
        assert not base.exists()
        await asyncio.gather(*(files.prepare(spec(ref)) for files in (one, other)))
        await other.sweep_bases()
        assert base.exists()

    on_hosts(tmp_path, 2, story)


def test_an_empty_store_has_nothing_to_sweep(tmp_path: Path) -> None:
    on_hosts(tmp_path, 1, lambda files: files.sweep_bases())


def test_the_backing_file_is_read_from_the_head_of_a_disk(store: Store) -> None:
    head = (store.root / "guest" / "disk").read_bytes()[:4096]
    assert backing_file(head) == str(store.bases / A)
    assert backing_file(b"anything else") == backing_file(b"") == ""
    for cut in (10, 80, 110):
        with pytest.raises(ValueError, match="head"):
            backing_file(head[:cut])
