"""Guests whose disks go along, and guests whose disk lies in Ceph, beside bare libvirt with the same disks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.claims import Claim, median
from benchmarks.cloud_rows.bare_guest import BARE_ID, BareGuest
from benchmarks.migration_rows import moves
from lab.hosts import Host
from lab.storage import ROOTS

PAIRS = 10
DISK_GB, DATA_MIB, BEHIND_MIB = 3, 1024, 512  # of data, behind the image


def block(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud(apart=True) as (cloud, compute):
        server = compute.create("heavy", compute.image_id(), moves.flavor(compute, 128, DISK_GB))
        compute.wait(server, "ACTIVE")
        moves.move(compute, server)  # the image is on both from now on
        compute.must("POST", f"/compute/v2.1/servers/{server}/action", {"os-stop": None})
        compute.wait(server, "SHUTOFF", moves.ENDS_S)
        _fill(cloud.lab.host(compute.host_of(server)), cloud.instances / server / "disk")
        compute.must("POST", f"/compute/v2.1/servers/{server}/action", {"os-start": None})
        compute.wait(server, "ACTIVE")
        bare = BareGuest(cloud, server, disk_gb=DISK_GB, filled=_fill)
        what = f"128 MiB and {DATA_MIB} MiB of disk, stores apart"
        yield _claim(what, *moves.side_by_side(compute, server, bare, max(2, PAIRS // fewer), what))
        compute.delete(server)


def rbd(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud(storage="ceph") as (cloud, compute):
        server = compute.create("pooled", compute.image_id())
        compute.wait(server, "ACTIVE")
        pool = ("-p", ROOTS)
        cloud.storage.ceph().ask("rbd", *pool, "cp", f"{ROOTS}/{server}_disk", f"{ROOTS}/{BARE_ID}_disk")
        bare = BareGuest(cloud, server)
        what = "128 MiB, root disk in Ceph"
        yield _claim(what, *moves.side_by_side(compute, server, bare, max(2, PAIRS // fewer), what))
        compute.delete(server)


def _fill(host: Host, disk: Path) -> None:
    """Bytes that are no zeros, which would not be sent."""
    written = f"write -P 0xab {BEHIND_MIB}M {DATA_MIB}M"
    done = host.run("qemu-io", "-f", "qcow2", "-c", written, str(disk), timeout_s=120)
    assert done.returncode == 0 and "wrote" in done.stdout, f"{done.stdout}{done.stderr}"


def _claim(what: str, ours: list[float], bare: list[float]) -> Claim:
    floor = median(bare)
    note = f"{len(ours)} pairs in turn; bare libvirt {floor:.0f} ms, ratio {median(ours) / floor:.2f}"
    return Claim(f"{what}, POST to completed", median(ours), floor * 1.15 + 150, "ms", note)
