"""From when a guest's own network is up, as its console says, until somebody outside has the first answer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from benchmarks.claims import Claim, median, progress
from benchmarks.network_rows.simulated_ports import network_id
from lab import network
from lab.cloud import Cloud
from lab.compute import Compute
from lab.quickstart import NETWORK, OUTSIDE
from lab.visitor import ANSWER

GUESTS = 5
UP_S, LOOK_S = 60.0, 0.005


def measure(cloud: Cloud) -> Iterator[Claim]:
    compute = Compute(cloud.port, cloud.clouds_yaml)
    after_s = []
    for number in range(GUESTS):
        progress(f"first ping of guest {number + 1} of {GUESTS}")
        after_s.append(_first_answer(cloud, compute))
    note = f"worst of {GUESTS}, through a floating IP, pinged every 20 ms; median {median(after_s) * 1000:.0f} ms"
    yield Claim("first ping from outside after the guest's network is up", max(after_s), 1.0, "s", note)


def _first_answer(cloud: Cloud, compute: Compute) -> float:
    inside = network_id(compute)
    outside = compute.must("GET", f"{NETWORK}/networks?name={OUTSIDE}")["networks"][0]["id"]
    port = compute.must("POST", f"{NETWORK}/ports", {"port": {"network_id": inside}})["port"]["id"]
    wanted = {"floatingip": {"floating_network_id": outside, "port_id": port}}
    floating = compute.must("POST", f"{NETWORK}/floatingips", wanted)["floatingip"]
    server = compute.create("reached", compute.image_id(), networks=[{"port": port}])
    heard = cloud.home / "first.pings"
    enter = ["nsenter", f"--net={network.path(cloud.lab.outside)}", "--"]
    command = [*enter, "ping", "-D", "-n", "-i", "0.02", floating["floating_ip_address"]]
    with heard.open("wb") as out:
        pinging = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, cwd="/")
    try:
        console = cloud.lab.shared / "instances" / server / "console.log"
        deadline = time.monotonic() + UP_S
        while not console.exists() or "LEASED" not in console.read_text(errors="replace"):
            assert time.monotonic() < deadline, f"server {server} has no address after {UP_S:.0f} s"
            time.sleep(LOOK_S)
        up_s = time.time()
        while (found := ANSWER.search(heard.read_text())) is None:
            assert time.monotonic() < deadline, f"server {server} answers no ping after {UP_S:.0f} s"
            time.sleep(LOOK_S)
    finally:
        pinging.kill()
        pinging.wait()
    compute.delete(server)
    compute.must("DELETE", f"{NETWORK}/floatingips/{floating['id']}")
    compute.must("DELETE", f"{NETWORK}/ports/{port}")
    return max(0.0, float(found[1]) - up_s)
