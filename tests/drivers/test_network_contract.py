"""What every driver of the port `network` guarantees, over real packets and over imagined ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec
import pytest

from droveway.domain.network_plan import HostNetworks, NotInForce, PlannedPort, bridge_of
from droveway.drivers.network.simulated import SimulatedNetwork, SimulatedPlace
from droveway.ports.network import Network, NetworkRefused
from tests.drivers import network_worlds as w

KINDS = (pytest.param("bridge", marks=[pytest.mark.lab, w.NEEDS_REAL_NETWORKS]), "simulated")
EACH = pytest.mark.parametrize("kind", KINDS)
HOST, OTHER = "192.0.2.1", "192.0.2.2"


class World(Protocol):
    """One host."""

    driver: Network

    def appear(self, port: PlannedPort) -> None:
        """The device of that port, as a hypervisor makes it: attached to the network's bridge where there is one."""

    def reaches(self, source: PlannedPort, destination: PlannedPort, number: int = 0, version: int = 4) -> bool:
        """By TCP, or by an echo request where `number` is 0."""

    async def restart(self) -> None:
        """The process of the driver ends without a word, and another begins."""


class BridgeWorld:
    def __init__(self, rig: w.Rig) -> None:
        self._rig, self._host = rig, rig.hosts[0]
        self._guests: dict[str, w.Guest] = {}

    @property
    def driver(self) -> Network:
        return self._host.driver

    def appear(self, port: PlannedPort) -> None:
        guest = self._guests[port.id] = self._rig.guest(self._host, port)
        if bridge_of(port.network_id) in self._host.links():
            guest.plug()

    def reaches(self, source: PlannedPort, destination: PlannedPort, number: int = 0, version: int = 4) -> bool:
        address = next(ip.address for ip in destination.fixed_ips if (":" in ip.address) == (version == 6))
        guest = self._guests[source.id]
        if not number:
            return guest.pings(address, wait_s=1.0)
        with self._guests[destination.id].serving(number):
            return guest.connects(address, number, wait_s=1.0)

    async def restart(self) -> None:
        await self._host.begin_anew()


class SimulatedWorld:
    def __init__(self) -> None:
        self._place = SimulatedPlace("h1")
        self.driver: Network = SimulatedNetwork(self._place)

    def appear(self, port: PlannedPort) -> None:
        self._place.devices.add(port.device)

    def reaches(self, source: PlannedPort, destination: PlannedPort, number: int = 0, version: int = 4) -> bool:
        address = next(ip.address for ip in destination.fixed_ips if (":" in ip.address) == (version == 6))
        icmp = 1 if version == 4 else 58
        return self._place.passes(source, destination, address, 6 if number else icmp, number or -1)

    async def restart(self) -> None:
        self.driver = SimulatedNetwork(self._place)


@asynccontextmanager
async def world(kind: str) -> AsyncIterator[World]:
    if kind == "simulated":
        yield SimulatedWorld()
        return
    async with w.Rig() as rig:
        yield BridgeWorld(rig)


GROUP = w.identity(1)
ONE, TWO, THREE = w.port(11, groups=(GROUP,)), w.port(12, groups=(GROUP,)), w.port(13, groups=())


def plan(revision: int, *ports: PlannedPort, **given: object) -> HostNetworks:
    values = {
        "networks": (w.planned_network(),),
        "groups": (w.group(1, w.tcp(80), w.tcp(80, 6), *w.PING),),
        **given,
    }
    return HostNetworks(revision, HOST, (OTHER,), ports=ports, **values)  # type: ignore[arg-type]


@EACH
async def test_groups_let_through_what_their_rules_say(kind: str) -> None:
    async with world(kind) as it:
        assert await it.driver.apply(plan(1, ONE, TWO, THREE)) == ()
        for port in (ONE, TWO, THREE):
            it.appear(port)
        assert it.reaches(ONE, TWO) and it.reaches(ONE, TWO, version=6)
        assert it.reaches(ONE, TWO, 80) and it.reaches(ONE, TWO, 80, version=6)
        assert not it.reaches(ONE, TWO, 81) and not it.reaches(ONE, TWO, 81, version=6)
        assert not it.reaches(ONE, THREE)  # of no group, so nothing comes in
        assert not it.reaches(THREE, TWO)  # and nothing goes out


@EACH
async def test_a_remote_group_is_its_members(kind: str) -> None:
    async with world(kind) as it:
        inside = msgspec.structs.replace(w.tcp(80), remote_group_id=w.identity(2))
        caller, stranger = w.port(14, groups=(w.identity(2),)), w.port(15, groups=(w.identity(3),))
        groups = (w.group(1, inside), w.group(2, members=("10.0.0.14",)), w.group(3))
        await it.driver.apply(plan(1, ONE, caller, stranger, groups=groups))
        for port in (ONE, caller, stranger):
            it.appear(port)
        assert it.reaches(caller, ONE, 80)
        assert not it.reaches(stranger, ONE, 80)
        groups = (groups[0], w.group(2, members=("10.0.0.14", "10.0.0.15")), groups[2])
        await it.driver.apply(plan(2, ONE, caller, stranger, groups=groups))
        assert it.reaches(stranger, ONE, 80)


@EACH
async def test_a_device_without_rules_passes_nothing(kind: str) -> None:
    async with world(kind) as it:
        await it.driver.apply(plan(1, ONE))
        it.appear(ONE)
        it.appear(TWO)  # before the plan that has it
        assert not it.reaches(TWO, ONE) and not it.reaches(ONE, TWO)
        await it.driver.apply(plan(2, ONE, TWO))
        assert it.reaches(TWO, ONE) and it.reaches(ONE, TWO)
        await it.driver.apply(plan(3, ONE))  # and after
        assert not it.reaches(TWO, ONE) and not it.reaches(ONE, TWO)


@EACH
async def test_a_port_that_is_down_passes_nothing_and_one_without_security_all(kind: str) -> None:
    async with world(kind) as it:
        down = msgspec.structs.replace(TWO, is_up=False)
        free = msgspec.structs.replace(THREE, has_security=False)
        await it.driver.apply(plan(1, ONE, down, free))
        for port in (ONE, down, free):
            it.appear(port)
        assert not it.reaches(ONE, down)
        assert it.reaches(ONE, free, 8080) and it.reaches(free, ONE)


@EACH
async def test_what_fails_is_named_and_keeps_no_other_away(kind: str) -> None:
    async with world(kind) as it:
        flat = w.planned_network(7, vni=0, physical_network="nowhere")
        networks = (flat, w.planned_network())
        failed = await it.driver.apply(plan(1, ONE, TWO, networks=networks))
        assert failed == (
            NotInForce(
                "network",
                w.identity(7),
                "physical network nowhere is not one of this host: name its device in physical_networks",
            ),
        )
        it.appear(ONE)
        it.appear(TWO)
        assert it.reaches(ONE, TWO)
        assert await it.driver.apply(plan(2, ONE, TWO)) == ()


@EACH
async def test_it_goes_on_without_the_agent_and_is_the_same_after_it(kind: str) -> None:
    async with world(kind) as it:
        await it.driver.apply(plan(1, ONE, TWO))
        it.appear(ONE)
        it.appear(TWO)
        assert it.reaches(ONE, TWO)
        await it.restart()
        assert it.reaches(ONE, TWO)
        assert await it.driver.apply(plan(1, ONE, TWO)) == ()
        assert it.reaches(ONE, TWO) and not it.reaches(ONE, TWO, 81)


@EACH
async def test_it_says_where_a_network_is(kind: str) -> None:
    async with world(kind) as it:
        with pytest.raises(NetworkRefused, match=f"network {w.identity(1)} is not on host"):
            await it.driver.bridge_of(w.identity(1))
        assert await it.driver.metadata_networks() == {}
        await it.driver.apply(plan(1, ONE))
        assert await it.driver.bridge_of(w.identity(1)) == bridge_of(w.identity(1)) == "dwb00000001000"
        assert list(await it.driver.metadata_networks()) == [w.identity(1)]
        for one in await it.driver.metadata_sockets(w.identity(1)):
            one.close()
        await it.driver.apply(plan(2, networks=()))
        assert await it.driver.metadata_networks() == {}
        with pytest.raises(NetworkRefused, match="is not on host"):
            await it.driver.bridge_of(w.identity(1))
        with pytest.raises(NetworkRefused, match="has no DHCP server on host"):
            await it.driver.metadata_sockets(w.identity(1))


@EACH
async def test_connections_are_those_of_a_port_that_is_here(kind: str) -> None:
    async with world(kind) as it:
        await it.driver.apply(plan(1, ONE))
        assert await it.driver.connections(ONE.id) == ""
        await it.driver.restore_connections(ONE.id, "")
        with pytest.raises(NetworkRefused, match=f"port {TWO.id} is not on host"):
            await it.driver.connections(TWO.id)
        with pytest.raises(NetworkRefused, match=f"port {TWO.id} is not on host"):
            await it.driver.restore_connections(TWO.id, "")


@EACH
async def test_calls_at_once_are_made_one_after_the_other(kind: str) -> None:
    async with world(kind) as it:
        plans = [plan(number, ONE, *([TWO] if number % 2 else [])) for number in range(1, 8)]
        assert await asyncio.gather(*map(it.driver.apply, plans)) == [()] * 7
        it.appear(ONE)
        it.appear(TWO)
        assert it.reaches(ONE, TWO)  # the last one had both


@EACH
async def test_remove_all_leaves_nothing(kind: str) -> None:
    async with world(kind) as it:
        await it.driver.apply(plan(1, ONE, TWO))
        await it.driver.remove_all()
        assert await it.driver.metadata_networks() == {}
        with pytest.raises(NetworkRefused):
            await it.driver.bridge_of(w.identity(1))
        assert await it.driver.apply(plan(1, ONE, TWO)) == ()
        it.appear(ONE)
        it.appear(TWO)
        assert it.reaches(ONE, TWO)
