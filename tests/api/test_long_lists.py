"""Law 6 of the listings that grow with the hosts: 10,000 of them are read, rendered and encoded beside the loop."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import insert, select

from droveway.api.wiring import NetworkSettings
from droveway.domain.liveness import State
from droveway.domain.network.quota import NO_NETWORK_LIMITS
from droveway.domain.network.subnets import Asked, checked
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.engine import results
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import host_reports, hosts, services
from droveway.store.network import groups, networks, subnets
from droveway.store.network.networks import NewNetwork
from droveway.store.network.rows import PortRow
from droveway.store.network.tables import port_addresses, port_groups, ports
from droveway.store.schema import aggregate_hosts
from tests.api.world import NOVA, RESOURCES, World
from tests.store import databases

PORTS = 9_999  # and that of DHCP
HOSTS, LAG_MAX_S, SAMPLE_S, ATTEMPTS = 10_000, 0.05, 0.005, 8
PLACEMENT, COMPUTE = "placement 1.39", "compute 2.50"
LISTS = (
    ("/droveway/v1/hosts", COMPUTE),
    ("/placement/resource_providers?resources=VCPU:1", PLACEMENT),
    ("/placement/allocation_candidates?resources=VCPU:1", PLACEMENT),
    ("/placement/traits?associated=true", PLACEMENT),
    (f"{NOVA}/os-aggregates", COMPUTE),
    (f"{NOVA}/os-availability-zone/detail", COMPUTE),
    (f"{NOVA}/os-hypervisors/detail", COMPUTE),
    (f"{NOVA}/os-hypervisors/statistics", COMPUTE),
    (f"{NOVA}/os-hypervisors/c/servers", COMPUTE),
)


def fill(tx: Tx) -> None:
    names = [f"c{number}" for number in range(HOSTS)]
    hosts.join_all(tx, names, "nova")
    services.register_all(tx, dict.fromkeys(names, (hosts.COMPUTE,)), "nova")
    services.record_verdicts(tx, [services.Verdict(name, hosts.COMPUTE, State.ALIVE, "", tx.now_us) for name in names])
    for name in names:
        said = msgspec.structs.replace(RESOURCES, hypervisor_hostname=name)
        host_reports.report(tx, name, msgspec.to_builtins(said), True, "")
    tx.execute(insert(aggregate_hosts), [{"aggregate_id": 1, "host": name} for name in names])


def fill_ports(tx: Tx) -> None:
    """Each with an address and in a group."""
    network = networks.create(tx, NewNetwork("red", 1450), NO_NETWORK_LIMITS)
    group = groups.default_of(tx, "red")
    subnet = subnets.create(tx, network, checked(Asked(4, "10.0.0.0/16")), NO_NETWORK_LIMITS)
    like = dict(results.every(PortRow, tx.execute(select(ports)))[0])
    names = [f"00000000-0000-0000-0000-{number:012x}" for number in range(PORTS)]
    macs = [f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}" for number in range(PORTS)]
    tx.execute(insert(ports), [like | {"id": name, "mac": mac} for name, mac in zip(names, macs, strict=True)])
    addresses = [
        {"subnet_id": subnet["id"], "number": f"{number + 10:032x}", "port_id": name, "place": 0, "address": "10.0.0.9"}
        for number, name in enumerate(names)
    ]
    tx.execute(insert(port_addresses), addresses)
    tx.execute(insert(port_groups), [{"port_id": name, "group_id": group} for name in names])


async def worst_lag_s(world: World, token: str, path: str, version: str) -> float:
    """How late the loop was at worst while that was asked for."""
    loop, worst = asyncio.get_running_loop(), 0.0
    headers = {"OpenStack-API-Version": version}
    asked = asyncio.ensure_future(world.ask("GET", path, token=token, headers=headers))
    while not asked.done():
        before_s = loop.time()
        await asyncio.sleep(SAMPLE_S)
        worst = max(worst, loop.time() - before_s - SAMPLE_S)
    reply = await asked
    assert reply.status_code == 200, reply.text[:300]
    return worst


@pytest.mark.alone
async def test_no_listing_of_ten_thousand_hosts_holds_the_loop(tmp_path: Path) -> None:
    """A noisy machine lags by itself, so the best of a few runs counts: how long we held the loop is in all of them."""
    store = DiskStore(databases.fresh("sqlite", tmp_path), SystemClock(), SystemNames())
    world = World(tmp_path, store=store)
    try:
        await world.seed()
        token = await world.token()
        made = await world.ask("POST", f"{NOVA}/os-aggregates", token=token, json={"aggregate": {"name": "all"}})
        assert made.json()["aggregate"]["id"] == 1
        await store.run(fill)
        gc.collect()
        gc.freeze()  # what the tests before this one left is not walked through again and again
        for path, version in LISTS:
            lags = []
            while len(lags) < ATTEMPTS and min(lags, default=1.0) > LAG_MAX_S:
                lags.append(await worst_lag_s(world, token, path, version))
            assert min(lags) <= LAG_MAX_S, f"{path} held the loop for {lags} s"
    finally:
        gc.unfreeze()
        await world.close()


@pytest.mark.alone
async def test_no_listing_of_ten_thousand_ports_holds_the_loop(tmp_path: Path) -> None:
    store = DiskStore(databases.fresh("sqlite", tmp_path), SystemClock(), SystemNames())
    world = World(tmp_path, store=store, network=NetworkSettings(is_on=True))
    try:
        await world.seed()
        token = await world.token()
        await store.run(fill_ports)
        gc.collect()
        gc.freeze()
        lags: list[float] = []
        while len(lags) < ATTEMPTS and min(lags, default=1.0) > LAG_MAX_S:
            lags.append(await worst_lag_s(world, token, "/network/v2.0/ports", COMPUTE))
        assert min(lags) <= LAG_MAX_S, f"the ports held the loop for {lags} s"
        whole = (await world.ask("GET", "/network/v2.0/ports", token=token)).json()["ports"]
        assert len(whole) == PORTS + 1 and whole[0]["security_groups"] and whole[0]["fixed_ips"]  # the last is DHCP's
    finally:
        gc.unfreeze()
        await world.close()
