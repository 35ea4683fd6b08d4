"""An image is made of a server that runs on: how long its guest is silent meanwhile, and how long it takes.

The guest has written most of a disk of 1 GiB and writes on while it is copied; it is pinged from outside every 20 ms.
The silence of a time in which nothing is done to it stands beside: that is the machine's own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from itertools import count

from benchmarks.claims import Claim, progress
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud
from lab.login import Login, command
from lab.quickstart import INSIDE, KEY
from lab.visitor import Visitor

SILENCE_MAX_MS = 100.0
FILLED_MIB = 800
FIRST_MIB = 200  # behind the partitions of the tiny image
QUIET_S, WITHIN_S = 20.0, 600.0
IMAGES, NETWORKS = "/image/v2/images", "/network/v2.0/networks"
NEEDS = ("hosts",)
WRITES_ON = f"while :; do dd if=/dev/urandom of=/dev/vda bs=64k seek={FIRST_MIB * 16} count=64 conv=notrunc; done"


def measure() -> Iterator[Claim]:
    with own_cloud() as cloud:
        cloud.up(simulated=False, foreground=False, quiet=True)
        yield from _of_one(cloud)


def _of_one(cloud: Cloud) -> Iterator[Claim]:
    compute = Compute(cloud.port, cloud.clouds_yaml)
    inside = compute.must("GET", f"{NETWORKS}?name={INSIDE}")["networks"][0]["id"]
    server = compute.create("imaged", compute.image_id(), networks=[{"uuid": inside}], key_name=KEY)
    compute.wait(server, "ACTIVE")
    login = Login(cloud)
    address = login.address(login.server("imaged"))
    login.wait_for_sshd("imaged", address)
    progress(f"{FILLED_MIB} MiB are written in it")
    fill = f"dd if=/dev/urandom of=/dev/vda bs=1M seek={FIRST_MIB} count={FILLED_MIB} conv=notrunc"
    subprocess.run(command(cloud, address, fill), check=True, timeout=WITHIN_S, capture_output=True)
    visitor = Visitor(cloud, address)
    writer = subprocess.Popen(command(cloud, address, WRITES_ON), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        visitor.look()
        time.sleep(QUIET_S)
        quiet = visitor.look()
        silence_ms, took_s, size_mib = _imaged(compute, server, visitor)
    finally:
        writer.terminate()
        visitor.leave()
    beside = f"the longest in {QUIET_S:.0f} s without: {quiet.gap_ms:.0f} ms; {size_mib:.0f} MiB were copied and sent"
    yield Claim("createImage of a running 1 GiB guest: longest silence", silence_ms, SILENCE_MAX_MS, "ms", beside)
    yield Claim("... from the request until the image is active", took_s, 60.0, "s", "while the guest writes on")


def _imaged(compute: Compute, server: str, visitor: Visitor) -> tuple[float, float, float]:
    began = time.monotonic()
    status, body = compute.act(server, {"createImage": {"name": "made"}})
    assert status == 202, body
    for _ in count():
        image = compute.must("GET", f"{IMAGES}/{body['image_id']}")
        if image["status"] == "active":
            break
        if time.monotonic() - began > WITHIN_S:
            raise TimeoutError(f"the image is {image['status']} after {WITHIN_S:.0f} s")
        time.sleep(0.1)
    took_s = time.monotonic() - began
    return visitor.look().gap_ms, took_s, image["size"] / 2**20
