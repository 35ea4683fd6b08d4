"""Volumes of real guests on lab hosts: on a real Ceph, and served by NBD with TLS; and root disks that are clones in
Ceph beside those that are files on an image of their host, in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.claims import Claim, median, progress
from benchmarks.volume_rows import guest_io
from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.demo import own_cloud
from lab.hosts import obstacle
from lab.processes import wait_for

ROWS = ("ceph", "lvm", "boots", "io")
NOVA, CINDER = "/compute/v2.1", "/volume/v3"
ATTACHMENTS, BOOTS, LOOK_S, BOOTED_S, WITHIN_S = 10, 8, 0.002, 120.0, 60.0
BARS_MS = {"ceph": 150.0, "lvm": 300.0}
CALLED = {"ceph": "RBD", "lvm": "NBD with TLS"}
BOOT_BAR_MS = 150.0


def measure(wanted: Sequence[str]) -> Iterator[Claim]:
    reason = obstacle()
    if wanted and reason is not None:
        progress(f"no real hosts here ({reason}): attaching to real guests is not measured")
        return
    for kind in BARS_MS:
        if kind in wanted:
            with _cloud(kind) as (cloud, compute):
                yield _attached(cloud, compute, kind)
    if "boots" in wanted:
        with _cloud("ceph", files_of="h2") as (_, compute):
            yield _boots(compute)
    if "io" in wanted:
        with _cloud("ceph") as (cloud, compute):
            yield from guest_io.measure(cloud, compute)


@contextmanager
def _cloud(kind: str, files_of: str = "") -> Iterator[tuple[Cloud, Compute]]:
    """`files_of`: the host whose root disks are files of its own."""
    progress(f"a cloud with --storage {kind}")
    with own_cloud() as cloud:
        cloud.choose(None, None, kind)
        cloud.storage.files_of = files_of
        cloud.up(simulated=False, foreground=False, quiet=True)
        compute = Compute(cloud.port, cloud.clouds_yaml)
        try:
            yield cloud, compute
        finally:
            compute.close()


def _boots(compute: Compute) -> Claim:
    """From POST to ACTIVE, on each host in turn; the first, which brings the image to where it is needed, does not
    count."""
    image, took_ms = compute.image_id(), {"h1": list[float](), "h2": list[float]()}
    for number in range(2 * BOOTS + 2):
        host = ("h1", "h2")[(number + number // 2) % 2]
        began_s = time.monotonic()
        server = compute.create(f"b{number}", image, availability_zone=f"nova:{host}")
        compute.wait(server, "ACTIVE", pause_s=LOOK_S)
        if number > 1:
            took_ms[host].append((time.monotonic() - began_s) * 1000)
        compute.delete(server)
    rbd, local = median(took_ms["h1"]), median(took_ms["h2"])
    note = f"{rbd:.0f} ms, and {local:.0f} ms on a qcow2 file of its host; medians of {BOOTS} in turn"
    return Claim("boot from an RBD clone, POST to ACTIVE, over a local qcow2", rbd - local, BOOT_BAR_MS, "ms", note)


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
    steps = _steps_ms(compute, "attach_volume")
    note = f"least {min(took_ms):.0f}, most {max(took_ms):.0f}, of {ATTACHMENTS}; {steps}"
    what = f"attach to a running guest on {CALLED[kind]}: POST until in use, p50"
    return Claim(what, median(took_ms), BARS_MS[kind], "ms", note)


def _steps_ms(compute: Compute, kind: str) -> str:
    """What each step that asks a host took, the median over all that were done."""
    took: dict[str, list[float]] = {}
    for one in compute.must("GET", "/droveway/v1/sagas?all=1&limit=100")["sagas"]:
        if one["kind"] != kind:
            continue
        for step in compute.must("GET", f"/droveway/v1/sagas/{one['id']}")["saga"]["steps"]:
            if step["mark"] == "+" and step["ms"] > 0:
                took.setdefault(step["step"], []).append(step["ms"])
    return ", ".join(f"{step} {median(found):.0f}" for step, found in took.items())


def _until(compute: Compute, volume: str, wanted: str) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while compute.must("GET", f"{CINDER}/volumes/{volume}")["volume"]["status"] != wanted:
        assert time.monotonic() < deadline_s, f"volume {volume} is not {wanted}"
        time.sleep(LOOK_S)
