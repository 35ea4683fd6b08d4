"""The Networking API of a control of its own, on SQLite, which forces to the disk what was answered: CPU of the process
a request, and how many a second for several clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, cpu_seconds, median, progress
from benchmarks.fleet_rows import clients
from benchmarks.liveness_rows.rig import end, start, tail, wait_for
from lab import servers
from lab.client import Client
from lab.compute import Compute

NET = "/network/v2.0"
READY_S = 60.0
REQUESTS, WARM, RUNS = 200, 20, 5
PORTS, CLIENTS, STORMS = 100, 16, 5
LISTED = (1_000, 10_000)
LIST_BARS_MS = {1_000: 25.0, 10_000: 250.0}
NEUTRON_LIST_MS = {1_000: 643, 10_000: 6_005}
STALL_MS, SAMPLE_S = 50.0, 0.002
LIMITS = ("network", "subnet", "port", "security_group", "security_group_rule")


class Cloud:
    """`droveway control` with a network service, and nobody else to be served."""

    def __init__(self, home: Path) -> None:
        (self.port,) = servers.free_ports(1)
        self.home, self.said = home, home / "said"
        unlimited = "\n".join(f"{name} = -1" for name in LIMITS)
        (home / "droveway.toml").write_text(
            f'state_path = "{home}"\nlog_level = "warning"\n'
            f'[network]\ndriver = "simulated"\n[network.quota]\n{unlimited}\n'
            f'[api]\nlisten = "127.0.0.1:{self.port}"\nclouds_yaml = "{home}/clouds.yaml"\n'
            "max_requests_per_s_per_address = 0\nmax_requests_per_s_per_project = 0\n"  # all clients are of one address
        )
        command = [sys.executable, "-m", "droveway.main", "control", "--config", f"{home}/droveway.toml"]
        self.process = start(command, self.said)
        wait_for(lambda: Client(self.port).answers(), READY_S, lambda: tail(self.said))
        wait_for((home / "clouds.yaml").exists, READY_S, lambda: tail(self.said))
        self.compute = Compute(self.port, home / "clouds.yaml")

    def make(self, path: str, **given: Any) -> dict[str, Any]:
        single = path.removesuffix("s").replace("-", "_")
        made: dict[str, Any] = self.compute.must("POST", f"{NET}/{path}", {single: given})[single]
        return made

    def cpu_ms(self, work: Callable[[], object], count: int = 1) -> float:
        """Of the process, for each of so many."""
        before = cpu_seconds([self.process.pid])
        work()
        return (cpu_seconds([self.process.pid]) - before) * 1000 / count


@contextlib.contextmanager
def _cloud() -> Iterator[Cloud]:
    with tempfile.TemporaryDirectory() as directory:
        cloud = Cloud(Path(directory))
        try:
            yield cloud
        finally:
            cloud.compute.close()
            end(cloud.process)


def measure() -> Iterator[Claim]:
    with _cloud() as cloud:
        yield from _posts(cloud)
        yield from _storm(cloud)
        yield from _lists(cloud)


# -- one after the other ----------------------------------------------------------------------------------------------
def _posts(cloud: Cloud) -> Iterator[Claim]:
    network = cloud.make("networks", name="n")["id"]
    cloud.make("subnets", network_id=network, cidr="10.0.0.0/16", ip_version=4)
    networks = [cloud.make("networks", name=str(number))["id"] for number in range(REQUESTS + WARM)]

    def subnet(number: int) -> None:
        cloud.make("subnets", network_id=networks[number], cidr="10.1.0.0/24", ip_version=4)

    def group(number: int) -> None:
        made = cloud.make("security-groups", name=str(number))["id"]
        rule = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
        cloud.make("security-group-rules", security_group_id=made, direction="ingress", **rule)

    rows: tuple[tuple[str, Callable[[int], object], float, str], ...] = (
        ("POST network", lambda number: cloud.make("networks", name=f"w{number}"), 2.0, "50"),
        ("POST subnet, with its DHCP port", subnet, 2.0, "63"),
        (
            "POST port, with an address and a group",
            lambda _: cloud.make("ports", network_id=network),
            3.0,
            "101 to 158",
        ),
        ("POST security group, and a rule", group, 4.0, "98"),
    )
    for what, post, bar, neutron in rows:
        progress(what)
        for number in range(WARM):
            post(number)
        began_s = time.monotonic()
        used = cloud.cpu_ms(lambda post=post: [post(number) for number in range(WARM, WARM + REQUESTS)], REQUESTS)
        took_ms = (time.monotonic() - began_s) * 1000 / REQUESTS
        yield Claim(
            f"{what}: CPU", used, bar, "ms", f"{took_ms:.1f} ms each to the answer; Neutron: {neutron} ms of CPU"
        )


# -- several at once --------------------------------------------------------------------------------------------------
class _Ports:
    """What the clients send: a port of that network each time."""

    def __init__(self, cloud: Cloud, network_id: str) -> None:
        self.port, self._made = cloud.port, clients.Api(cloud.port, cloud.compute.token, "")
        self._body = {"port": {"network_id": network_id}}

    def create(self, number: int, count: int = 1) -> bytes:
        return self._made.request("POST", f"{NET}/ports", self._body)


def _storm(cloud: Cloud) -> Iterator[Claim]:
    progress(f"{PORTS} ports by {CLIENTS} clients")
    rates = []
    for number in range(STORMS):
        network = cloud.make("networks", name=f"storm-{number}")["id"]
        cloud.make("subnets", network_id=network, cidr="10.0.0.0/22", ip_version=4)
        began_s = time.monotonic()
        posted = clients.storm(_Ports(cloud, network), PORTS, CLIENTS)  # type: ignore[arg-type] # as far as it is asked
        rates.append(PORTS / (time.monotonic() - began_s))
        bodies = [json.loads(one.body)["port"] for one in posted if one.status == 201]
        addresses = {one["fixed_ips"][0]["ip_address"] for one in bodies}
        assert len(bodies) == len(addresses) == PORTS, f"{len(bodies)} ports, {len(addresses)} addresses"
    note = f"best of {STORMS}, median {median(rates):.0f}; no address twice; Neutron: 8.5"
    yield Claim(f"{PORTS} ports by {CLIENTS} clients, each second", max(rates), 250.0, "/s", note, is_floor=True)


# -- lists ------------------------------------------------------------------------------------------------------------
def _lists(cloud: Cloud) -> Iterator[Claim]:
    network = cloud.make("networks", name="listed")["id"]
    cloud.make("subnets", network_id=network, cidr="10.64.0.0/16", ip_version=4)
    path, made = f"{NET}/ports?network_id={network}&device_owner=", 0
    for count in LISTED:
        progress(f"{count:,} ports")
        while made < count:
            some = min(500, count - made)
            cloud.compute.must("POST", f"{NET}/ports", {"ports": [{"network_id": network}] * some})
            made += some

        def listed(count: int = count) -> None:
            found = len(cloud.compute.must("GET", path)["ports"])
            assert found == count, f"{found} of {count} ports"

        listed()
        used = min(cloud.cpu_ms(listed) for _ in range(RUNS))
        note = f"best of {RUNS}; Neutron: {NEUTRON_LIST_MS[count]:,} ms"
        yield Claim(f"GET {count:,} ports: CPU", used, LIST_BARS_MS[count], "ms", note)
    stall_ms = min(asyncio.run(_stall_ms(cloud, path)) for _ in range(RUNS))
    yield Claim("... another client waits at worst, meanwhile", stall_ms, STALL_MS, "ms", f"best of {RUNS}")


async def _stall_ms(cloud: Cloud, path: str) -> float:
    """While the long list is made, small requests are sent one after the other: how long the slowest waited."""
    sender = clients.Api(cloud.port, cloud.compute.token, "")

    async def fetch() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", cloud.port, limit=1 << 26)
        writer.write(sender.request("GET", path))
        await clients._answer(reader)
        writer.close()

    reader, writer = await asyncio.open_connection("127.0.0.1", cloud.port)
    listing, worst_s = asyncio.ensure_future(fetch()), 0.0
    while not listing.done():
        began_s = time.monotonic()
        writer.write(sender.request("GET", "/identity/v3"))
        await clients._answer(reader)
        worst_s = max(worst_s, time.monotonic() - began_s)
        await asyncio.sleep(SAMPLE_S)
    await listing
    writer.close()
    return worst_s * 1000
