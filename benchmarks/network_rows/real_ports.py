"""On real hosts: a create with a port beside one without, in turn; and a rule, from its answer to both hosts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.claims import Claim, median, progress
from benchmarks.network_rows.simulated_ports import network_id
from lab.cloud import Cloud
from lab.compute import Compute
from lab.processes import wait_for
from lab.quickstart import NETWORK

PAIRS = 8
PORTS, RULES = 100, 60
IN_FORCE_S = 20.0


def measure(cloud: Cloud) -> Iterator[Claim]:
    compute = Compute(cloud.port, cloud.clouds_yaml)
    yield _creates(compute)
    yield _rules(cloud, compute)


def _creates(compute: Compute) -> Claim:
    progress("creates on real hosts, with a port and without")
    image, with_port = compute.image_id(), [{"uuid": network_id(compute)}]
    took_ms: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(PAIRS):
        for has_port in (True, False) if pair % 2 else (False, True):
            began = time.monotonic()
            server = compute.create("one", image, networks=with_port if has_port else "none")
            compute.wait(server, "ACTIVE", pause_s=0.01)
            took_ms[has_port].append((time.monotonic() - began) * 1000)
            compute.delete(server)
    more_ms = median(took_ms[True]) - median(took_ms[False])
    note = f"medians of {PAIRS} pairs in turn: {median(took_ms[True]):.0f} and {median(took_ms[False]):.0f} ms"
    return Claim("create on real hosts: what a port adds", more_ms, 300, "ms", note)


def _rules(cloud: Cloud, compute: Compute) -> Claim:
    """Ports of the group are bound to both hosts in turn; nftables of each is asked until it has the rule."""
    progress(f"{RULES} rules of a group with {PORTS} ports on two hosts")
    network = network_id(compute)
    group = compute.must("POST", f"{NETWORK}/security-groups", {"security_group": {"name": "measured"}})
    group_id = str(group["security_group"]["id"])
    hosts = cloud.lab.hosts[:2]
    ports = [
        {"network_id": network, "security_groups": [group_id], "binding:host_id": hosts[number % 2].name}
        for number in range(PORTS)
    ]
    made = compute.must("POST", f"{NETWORK}/ports", {"ports": ports})["ports"]
    took_s = []
    for number in range(RULES):
        port = 20_000 + 2 * number
        rule = {"security_group_id": group_id, "direction": "ingress", "protocol": "tcp"}
        rule |= {"port_range_min": port, "port_range_max": port}
        compute.must("POST", f"{NETWORK}/security-group-rules", {"security_group_rule": rule})
        began = time.monotonic()
        for host in hosts:
            chain = host.command("nft", "list", "chain", "inet", "droveway", f"gin_{group_id}")
            reason = f"{host.name} has no rule for port {port} after {IN_FORCE_S:.0f} s"
            assert wait_for(partial(_has, chain, str(port)), IN_FORCE_S), reason
        took_s.append(time.monotonic() - began)
    for one in made:
        compute.must("DELETE", f"{NETWORK}/ports/{one['id']}")
    compute.must("DELETE", f"{NETWORK}/security-groups/{group_id}")
    took_s.sort()
    note = f"{RULES} times, {PORTS} ports on two hosts; median {median(took_s) * 1000:.0f} ms, looks included"
    return Claim("a rule answered, in force on every host: p99", took_s[int(len(took_s) * 0.99)], 1.0, "s", note)


def _has(command: list[str], text: str) -> bool:
    return text in subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=30).stdout
