"""Hosts with imagined networks: the same guarantees as those of real ones, and faults by order.

A `SimulatedPlace` is what outlives the driver, as a kernel does. What cannot be made there, and why, is set from
outside; so is a call that never ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from droveway.config.hosts import HostConfig
from droveway.domain.network_plan import (
    HostNetworks,
    NotInForce,
    PlannedNetwork,
    PlannedPort,
    PlannedRouter,
    RuleDirection,
    SecurityGroup,
    bridge_of,
)
from droveway.domain.network_rules import lets_through
from droveway.ports.network import NetworkRefused

NOTHING = HostNetworks(-1, "")


async def _at_once() -> None:
    """Making a part of a plan takes no time."""


class SimulatedPlace:
    """One host. `plan`: what was last made of it whole; `groups` to `routers`: what is there, also when the agent ended
    in the middle. `troubles`: by kind and id, why that cannot be made. `pause` comes between two parts, and `changed`
    after each, with the plan of which it is one."""

    def __init__(self, host: str, physical: tuple[str, ...] = ()) -> None:
        self.host, self.physical = host, physical
        self.plan = NOTHING
        self.groups: dict[str, SecurityGroup] = {}  # whose rules are in force
        self.ports: dict[str, PlannedPort] = {}  # that pass what these let through
        self.bridges: dict[str, PlannedNetwork] = {}
        self.served: dict[str, str] = {}  # networks with a DHCP server, each with its MAC
        self.routers: dict[str, PlannedRouter] = {}
        self.pause: Callable[[], Awaitable[None]] = _at_once
        self.changed: Callable[[HostNetworks], None] = lambda _plan: None
        self.troubles: dict[tuple[str, str], str] = {}
        self.devices: set[str] = set()  # taps that are there
        self.connections: dict[str, str] = {}  # by port
        self.cannot = ""  # why the host can do nothing at all
        self.hangs = asyncio.Event()
        self.hangs.set()  # not
        self.applied = 0

    def lose_all(self) -> None:
        """The power went: a kernel that starts has nothing."""
        self.plan, self.groups, self.ports = NOTHING, {}, {}
        self.bridges, self.served, self.routers = {}, {}, {}
        self.connections.clear()

    def passes(self, source: PlannedPort, destination: PlannedPort, address: str, protocol: int, number: int) -> bool:
        """Whether a connection between two ports of this host begins, from the address of `source` of that kind."""
        if {source.device, destination.device} - self.devices:
            return False
        known = {port.id: port for port in self.ports.values() if ("port", port.id) not in self.troubles}
        if source.id not in known or destination.id not in known or source.network_id != destination.network_id:
            return False
        version = ipaddress.ip_address(address).version
        own = next(ip.address for ip in source.fixed_ips if ipaddress.ip_address(ip.address).version == version)
        groups = self.groups
        return lets_through(known[source.id], groups, RuleDirection.EGRESS, address, protocol, number) and lets_through(
            known[destination.id], groups, RuleDirection.INGRESS, own, protocol, number
        )


class SimulatedNetwork:
    def __init__(self, place: SimulatedPlace) -> None:
        self._place = place
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        if self._place.cannot:
            raise NetworkRefused(self._place.cannot)

    async def close(self) -> None:
        pass

    async def apply(self, plan: HostNetworks) -> tuple[NotInForce, ...]:
        place = self._place
        async with self._turn:
            await place.hangs.wait()
            if place.cannot:
                raise NetworkRefused(place.cannot)
            for make in (self._put_rules, self._make_bridges, self._make_servers):
                await make(plan)
                place.changed(plan)
                if plan != place.plan:
                    await place.pause()
            place.plan, place.applied = plan, place.applied + 1
            return (*self._without_uplink(plan), *self._troubled(plan))

    async def _put_rules(self, plan: HostNetworks) -> None:
        """One transaction: no port is let through before its rules are there."""
        self._place.groups = {one.id: one for one in plan.groups}
        self._place.ports = {one.id: one for one in plan.ports}

    async def _make_bridges(self, plan: HostNetworks) -> None:
        self._place.bridges = {one.id: one for one in plan.networks}

    async def _make_servers(self, plan: HostNetworks) -> None:
        self._place.served = {one.id: one.dhcp_mac for one in plan.networks if _is_served(one)}
        self._place.routers = {one.id: one for one in plan.routers}

    def _troubled(self, plan: HostNetworks) -> list[NotInForce]:
        things = {("network", one.id) for one in plan.networks} | {("port", one.id) for one in plan.ports}
        things |= {("router", one.id) for one in plan.routers}
        return [
            NotInForce(*thing, self._place.troubles[thing]) for thing in sorted(things & self._place.troubles.keys())
        ]

    def _without_uplink(self, plan: HostNetworks) -> list[NotInForce]:
        return [
            NotInForce(
                "network",
                one.id,
                f"physical network {one.physical_network} is not one of this host: name its device in "
                "physical_networks",
            )
            for one in plan.networks
            if not one.vni and one.physical_network and one.physical_network not in self._place.physical
        ]

    async def bridge_of(self, network_id: str) -> str:
        self._must_have(network_id)
        return bridge_of(network_id)

    async def metadata_sockets(self, network_id: str) -> tuple[socket.socket, ...]:
        """One of this machine's own loopback: nobody's guests reach it."""
        if network_id not in await self.metadata_networks():
            raise NetworkRefused(f"network {network_id} has no DHCP server on host {self._place.host}")
        return (socket.create_server(("127.0.0.1", 0)),)

    async def metadata_networks(self) -> dict[str, str]:
        return dict.fromkeys(self._place.served, "imagined")

    async def connections(self, port_id: str) -> str:
        self._must_have_port(port_id)
        return self._place.connections.get(port_id, "")

    async def restore_connections(self, port_id: str, saved: str) -> None:
        self._must_have_port(port_id)
        self._place.connections[port_id] = saved

    async def remove_all(self) -> None:
        self._place.lose_all()

    def _must_have(self, network_id: str) -> None:
        if network_id not in self._place.bridges:
            raise NetworkRefused(f"network {network_id} is not on host {self._place.host}")

    def _must_have_port(self, port_id: str) -> None:
        if port_id not in self._place.ports:
            raise NetworkRefused(f"port {port_id} is not on host {self._place.host}")


def _is_served(network: PlannedNetwork) -> bool:
    return bool(network.dhcp_mac) and any(subnet.dhcp_address for subnet in network.subnets)


def make(host: HostConfig, _directory: Path) -> SimulatedNetwork:
    return SimulatedNetwork(SimulatedPlace(host.name, tuple(one.partition(":")[0] for one in host.physical_networks)))
