"""Volumes of real guests on lab hosts: on a real Ceph, and served by NBD with TLS; and root disks that are clones in
Ceph beside those that are files on an image of their host."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.claims import Claim, median, progress
from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.demo import own_cloud
from lab.hosts import obstacle
from lab.processes import wait_for

NOVA, CINDER = "/compute/v2.1", "/volume/v3"
ATTACHMENTS, BOOTS, LOOK_S, BOOTED_S, WITHIN_S = 8, 6, 0.002, 120.0, 60.0
BARS_MS = {"ceph": 150.0, "lvm": 300.0}
CALLED = {"ceph": "RBD", "lvm": "NBD with TLS"}
BOOT_BAR_MS = 150.0


def measure() -> Iterator[Claim]:
    reason = obstacle()
    if reason is not None:
        progress(f"no real hosts here ({reason}): attaching to real guests is not measured")
        return
    booted_ms: dict[str, list[float]] = {}
    for kind in BARS_MS:
        progress(f"a cloud with --storage {kind}")
        with own_cloud() as cloud:
            cloud.choose(None, None, kind)
            cloud.up(simulated=False, foreground=False, quiet=True)
            compute = Compute(cloud.port, cloud.clouds_yaml)
            try:
                booted_ms[kind] = _boots(compute)
                yield _attached(cloud, compute, kind)
            finally:
                compute.close()
    rbd, local = median(booted_ms["ceph"]), median(booted_ms["lvm"])
    note = f"{rbd:.0f} ms, and {local:.0f} ms on a qcow2 file of its host; medians of {BOOTS}"
    yield Claim("boot from an RBD clone, POST to ACTIVE, over a local qcow2", rbd - local, BOOT_BAR_MS, "ms", note)


def _boots(compute: Compute) -> list[float]:
    """From POST to ACTIVE, in milliseconds; the first, which brings the image to its host, does not count."""
    image, took_ms = compute.image_id(), list[float]()
    for number in range(BOOTS + 2):  # two hosts
        began_s = time.monotonic()
        server = compute.create(f"b{number}", image)
        compute.wait(server, "ACTIVE", pause_s=LOOK_S)
        took_ms.append((time.monotonic() - began_s) * 1000)
        compute.delete(server)
    return took_ms[2:]


def _attached(cloud: Cloud, compute: Compute, kind: str) -> Claim:
    server = compute.create("runs", compute.image_id())
    compute.wait(server, "ACTIVE")

    def said() -> int:
        body = {"os-getConsoleOutput": {"length": None}}
        return len(ticks(compute.must("POST", f"{NOVA}/servers/{server}/action", body)["output"]))

    assert wait_for(lambda: said() > 2, BOOTED_S), f"its guest has not booted; see {cloud.log}"
    volume = str(compute.must("POST", f"{CINDER}/volumes", {"volume": {"size": 1}})["volume"]["id"])
    _until(compute, volume, "available")
    path, took_ms = f"{NOVA}/servers/{server}/os-volume_attachments", list[float]()
    for _ in range(ATTACHMENTS):
        began_s = time.monotonic()
        compute.must("POST", path, {"volumeAttachment": {"volumeId": volume}})
        _until(compute, volume, "in-use")
        took_ms.append((time.monotonic() - began_s) * 1000)
        compute.must("DELETE", f"{path}/{volume}")
        _until(compute, volume, "available")
    compute.delete(server)
    note = f"least {min(took_ms):.0f}, most {max(took_ms):.0f}, of {ATTACHMENTS}"
    what = f"attach to a running guest on {CALLED[kind]}: POST until in use, p50"
    return Claim(what, median(took_ms), BARS_MS[kind], "ms", note)


def _until(compute: Compute, volume: str, wanted: str) -> None:
    def is_so() -> bool:
        return bool(compute.must("GET", f"{CINDER}/volumes/{volume}")["volume"]["status"] == wanted)

    assert wait_for(is_so, WITHIN_S), f"volume {volume} is not {wanted}"
