"""The statements about networks, on each database: addresses, what a host needs, bindings, the default group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from droveway.domain.network.addresses import digits_of
from droveway.domain.network.quota import NO_NETWORK_LIMITS
from droveway.domain.network.refusals import IpAddressGenerationFailure, NoNetworkAvailable
from droveway.domain.network.rules import RuleSpec
from droveway.domain.network.subnets import Asked, checked
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.network import (
    bindings,
    changes,
    floating,
    groups,
    networks,
    planning,
    ports,
    routers,
    subnets,
    tables,
)
from droveway.store.network.addressing import AddressRequest
from droveway.store.network.floating import NewFloatingIp
from droveway.store.network.networks import NewNetwork
from droveway.store.network.ports import NewPort
from droveway.store.network.routers import Gateway, NewRouter
from droveway.store.network.rows import Port
from droveway.store.network.tables import port_addresses
from droveway.store.work.counters import next_numbers
from tests.store import databases

FREE = NO_NETWORK_LIMITS
TUNNELS = {"h1": "192.0.2.1", "h2": "192.0.2.2"}


@pytest.fixture
async def store(kind: str, tmp_path: Path) -> AsyncIterator[DiskStore]:
    made = DiskStore(databases.fresh(kind, tmp_path), SystemClock(), SystemNames())
    yield made
    await made.close()


def make_network(tx: Tx, cidr: str = "10.0.0.0/24", **more: Any) -> str:
    row = networks.create(tx, NewNetwork("red", 1450, **more), FREE)
    asked = Asked(6 if ":" in cidr else 4, cidr, ipv6_address_mode=None)
    subnets.create(tx, row, checked(asked), FREE)
    return row["id"]


def make_port(tx: Tx, network_id: str, **more: Any) -> Port:
    return ports.create(tx, networks.row_of(tx, network_id), NewPort("red", **more), FREE)


def claimed(subnet_id: str, number: int) -> dict[str, Any]:
    return {
        "subnet_id": subnet_id,
        "number": digits_of(number),
        "port_id": f"p{number}",
        "place": 0,
        "address": str(number),
    }


class Counting(Tx):
    """Counts the statements that are run."""

    statements = 0

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        self.statements += 1
        return super().execute(statement, parameters)


def counted(tx: Tx, fn: Callable[..., Any], *given: Any) -> tuple[Any, int]:
    """What it answers, and in how many statements."""
    counting = Counting(tx._connection, tx.now_us, tx.names)
    return fn(counting, *given), counting.statements


async def test_sixteen_at_once_get_an_address_each(store: DiskStore) -> None:
    network_id = await store.run(make_network)
    made = await asyncio.gather(*(store.run(make_port, network_id) for _ in range(16 * 10)))
    addresses = [port["addresses"][0][1] for port in made]
    assert len(set(addresses)) == 160 and len({port["mac"] for port in made}) == 160


async def test_the_row_itself_keeps_an_address_from_being_given_twice(store: DiskStore) -> None:
    network_id = await store.run(make_network)
    port = await store.run(make_port, network_id)
    subnet_id = port["addresses"][0][0]

    def write(tx: Tx) -> None:
        row = {
            "subnet_id": subnet_id,
            "number": digits_of(0x0A000003),
            "port_id": "x",
            "place": 0,
            "address": "10.0.0.3",
        }
        tx.execute(insert(port_addresses), row)

    with pytest.raises(Exception) as caught:
        await store.run(write)
    assert isinstance(caught.value.__cause__, IntegrityError) or isinstance(caught.value, IntegrityError)


async def test_one_of_65000_is_found_in_a_few_statements(store: DiskStore) -> None:
    network_id = await store.run(make_network, "10.0.0.0/16")

    def full(tx: Tx) -> str:
        subnet_id = networks.get(tx, network_id)["subnets"][0]
        first = 0x0A000003
        rows = [
            {
                "subnet_id": subnet_id,
                "number": digits_of(number),
                "port_id": f"p{number}",
                "place": 0,
                "address": str(number),
            }
            for number in range(first, 0x0A00FFFF)
            if number != 0x0A008765
        ]
        tx.execute(insert(port_addresses), rows)
        return subnet_id

    await store.run(full)
    port, statements = await store.run(counted, make_port, network_id)
    assert port["addresses"][0][1] == "10.0.135.101"
    assert 15 < statements < 40
    with pytest.raises(IpAddressGenerationFailure, match=r"10\.0\.0\.0/16.*are used up"):
        await store.run(make_port, network_id)


async def test_a_given_address_and_one_given_back(store: DiskStore) -> None:
    network_id = await store.run(make_network, "10.0.0.0/29")  # 2 is DHCP's; 3 to 6
    wanted = (AddressRequest(address="10.0.0.6"), AddressRequest(address="10.0.0.4"))
    two = await store.run(make_port, network_id, fixed_ips=wanted)
    assert [address for _, address in two["addresses"]] == ["10.0.0.6", "10.0.0.4"]
    rest = [(await store.run(make_port, network_id))["addresses"][0][1] for _ in range(2)]
    assert sorted(rest) == ["10.0.0.3", "10.0.0.5"]
    await store.run(ports.remove, two["id"])
    again = await store.run(make_port, network_id)
    assert again["addresses"][0][1] == "10.0.0.6"


async def test_ipv6_by_slaac_and_by_dhcp(store: DiskStore) -> None:
    def make(tx: Tx) -> str:
        row = networks.create(tx, NewNetwork("red", 1450), FREE)
        for asked in (
            Asked(4, "10.0.0.0/24"),
            Asked(6, "2001:db8:1::/64", ipv6_address_mode="slaac", ipv6_ra_mode="slaac"),
            Asked(6, "2001:db8:2::/64", ipv6_address_mode="dhcpv6-stateful", ipv6_ra_mode="dhcpv6-stateful"),
        ):
            subnets.create(tx, row, checked(asked), FREE)
        return row["id"]

    network_id = await store.run(make)
    port = await store.run(make_port, network_id, mac="34:56:78:9a:bc:de")
    assert [address for _, address in port["addresses"]] == [
        "10.0.0.3",
        "2001:db8:1:0:3656:78ff:fe9a:bcde",
        "2001:db8:2::3",
    ]


async def test_what_a_host_is_told_of_the_rows(store: DiskStore) -> None:
    def make(tx: Tx) -> dict[str, str]:
        network_id = make_network(tx)
        out = make_network(tx, "203.0.113.0/24", external=True, physical_network="physnet1")
        group = groups.create(tx, "red", "web", "", FREE)["id"]
        rule = RuleSpec("ingress", protocol="tcp", port_min=80, port_max=80, remote_group_id=group)
        groups.add_rule(tx, group, rule, "red", FREE)
        a = make_port(tx, network_id, host="h1", groups=(group,), device_id="vm", device_owner="compute:nova")
        b = make_port(tx, network_id, host="h2", groups=(group,), pairs=(("10.0.0.77", ""),))
        router = routers.create(tx, NewRouter("red", gateway=Gateway(out)), FREE, "red")["id"]
        inside = networks.get(tx, network_id)["subnets"][0]
        routers.add_interface(tx, router, {"subnet_id": inside}, FREE, "red")
        changes.touch(tx, routers.routers, router, host="h2")
        new = NewFloatingIp("red", out, port_id=a["id"])
        address = floating.create(tx, new, FREE, "red")["address"]
        return {
            "net": network_id,
            "out": out,
            "group": group,
            "a": a["id"],
            "b": b["id"],
            "router": router,
            "ip": address,
        }

    made = await store.run(make)
    here = await store.read(planning.of_host, "h1", TUNNELS)
    assert [port.id for port in here.ports] == [made["a"]] and here.revision == await store.read(changes.revision)
    (network,) = here.networks
    assert network.id == made["net"] and network.vni > 0 and network.subnets[0].dhcp_address == "10.0.0.2"
    assert {remote.addresses for remote in network.remote_ports} == {("10.0.0.4",), ("10.0.0.1",)}
    assert network.tunnel_addresses == ("192.0.2.2",)
    (group,) = here.groups
    assert (group.id, group.members) == (made["group"], ("10.0.0.3", "10.0.0.4", "10.0.0.77"))
    assert len(group.rules) == 3
    there = await store.read(planning.of_host, "h2", TUNNELS)
    (router,) = there.routers
    assert router.id == made["router"] and router.floating == ((made["ip"], "10.0.0.3"),)
    assert router.gateway is not None and router.gateway.next_hops == ("203.0.113.1",)
    assert sorted(one.id for one in there.networks) == sorted((made["net"], made["out"]))
    told = await store.read(planning.of_instance, "vm")
    assert [(port.id, net.id, net.mtu_bytes) for port, net in told] == [(made["a"], made["net"], 1450)]
    await store.run(ports.remove, made["a"])
    gone = await store.read(planning.of_host, "h1", TUNNELS)
    assert (gone.ports, gone.networks, gone.groups) == ((), (), ()) and gone.revision > here.revision


async def test_the_statements_for_a_host_do_not_grow_with_its_ports(store: DiskStore) -> None:
    network_id = await store.run(make_network)
    found = []
    for number in (1, 20):
        for _ in range(number):
            await store.run(make_port, network_id, host="h1")
        plan, statements = await store.read(counted, planning.of_host, "h1", TUNNELS)
        found.append((len(plan.ports), statements))
    assert [ports_there for ports_there, _ in found] == [1, 21]
    assert 10 < found[0][1] == found[1][1] <= 16


async def test_a_port_is_bound_moved_and_arrives(store: DiskStore) -> None:
    network_id = await store.run(make_network)
    port = (await store.run(make_port, network_id))["id"]

    async def where() -> tuple[str, str]:
        row = await store.read(ports.row_of, port)
        return row["host"], row["moving_to"]

    before = await store.read(changes.revision)
    assert await store.run(bindings.bind, port, "h1") and await where() == ("h1", "")
    assert await store.read(changes.revision) > before
    assert await store.run(bindings.bind, port, "h1")
    assert not await store.run(bindings.bind, port, "h2")
    assert not await store.run(bindings.move, port, "h2", "h3")
    assert await store.run(bindings.move, port, "h1", "h2") and await where() == ("h1", "h2")
    assert not await store.run(bindings.move, port, "h1", "h3")
    assert not await store.run(bindings.unbind, port, "h1")
    assert not await store.run(bindings.arrived, port, "h3")
    assert await store.run(bindings.arrived, port, "h2") and await where() == ("h2", "")
    assert await store.run(bindings.move, port, "h2", "h1")
    assert await store.run(bindings.stayed, port, "h2") and await where() == ("h2", "")
    assert await store.run(bindings.set_status, port, "h2", "DOWN")
    assert not await store.run(bindings.set_status, port, "h2", "DOWN")
    assert not await store.run(bindings.unbind, port, "h1")
    assert await store.run(bindings.unbind, port, "h2") and await where() == ("", "")


async def test_a_project_has_one_default_group(store: DiskStore) -> None:
    made = await asyncio.gather(*(store.run(groups.default_of, "red") for _ in range(16)))
    assert len(set(made)) == 1
    rows = await store.read(groups.get, made[0])
    assert sorted((rule["direction"], rule["remote_group_id"] or "") for rule in rows["rules"]) == [
        ("egress", ""),
        ("egress", ""),
        ("ingress", made[0]),
        ("ingress", made[0]),
    ]


async def test_when_no_number_is_left_a_network_is_refused(store: DiskStore) -> None:
    def spend(tx: Tx) -> None:
        next_numbers(tx, "vni", networks.VNI_MAX - 1)

    await store.run(spend)
    last = await store.run(make_network)
    assert (await store.read(networks.row_of, last))["vni"] == networks.VNI_MAX
    with pytest.raises(NoNetworkAvailable):
        await store.run(make_network)


async def test_of_a_deleted_network_no_row_is_left(store: DiskStore) -> None:
    network_id = await store.run(make_network)
    port = await store.run(make_port, network_id)
    await store.run(ports.remove, port["id"])
    await store.run(networks.remove, network_id)

    def read(tx: Tx) -> dict[str, int]:
        kept = (tables.networks, tables.subnets, tables.ports, port_addresses, tables.port_groups)
        return {table.name: len(tx.execute(select(table)).all()) for table in kept}

    assert set((await store.read(read)).values()) == {0}
