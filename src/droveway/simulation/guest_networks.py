"""The networks of guests in a simulated world: what each host has of them, and laws that hold at any time.

Not every world has them. Those that have draw what is about networks from a stream of their own.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from droveway.agents.kept_plan import MemoryKeptPlan
from droveway.agents.network import HostFacts
from droveway.domain.network_plan import HostNetworks, PlannedPort
from droveway.drivers.network.simulated import SimulatedPlace
from droveway.simulation.once_bad import before_networks
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.tables import port_addresses, ports

if TYPE_CHECKING:
    from droveway.simulation.world import World

SHARE = 0.2  # of the seeds: one of them costs half as much again
PHYSICAL = "physnet1"
HAS_PHYSICAL = 0.6  # of the hosts; the first always has
STEP_S, SLOW_S, SLOW = 0.1, 5.0, 0.03  # what a part of a plan takes, and some of them
Addresses = frozenset[tuple[str, str]]  # a subnet, and an address there


def are_played(seed: int) -> bool:
    """Seeds that were bad before there were networks tell what they told then."""
    return seed not in before_networks() and random.Random(f"are there networks in {seed}").random() < SHARE


class HostWires:
    """What of networks a host has, and what its network agent keeps there. It outlives the agent."""

    def __init__(self, networks: GuestNetworks, name: str, number: int) -> None:
        has_physical = number == 0 or networks.rng.random() < HAS_PHYSICAL
        self.facts = HostFacts(f"192.0.2.{number + 1}", (PHYSICAL,) if has_physical else ())
        self.place = SimulatedPlace(name, self.facts.physical_networks)
        self.kept = MemoryKeptPlan()
        self.place.pause = self._pause
        self.place.changed = self._changed
        self._networks = networks
        self._newest = -1
        self._open: dict[str, PlannedPort] = {}
        self._routers = self.place.routers
        self.routers_revision = -1  # of the plan by which they were made

    async def _pause(self) -> None:
        rng = self._networks.rng
        await asyncio.sleep(rng.random() * (SLOW_S if rng.random() < SLOW else STEP_S))

    def _changed(self, plan: HostNetworks) -> None:
        """A part of that plan was made: no older one is made after a newer one, and no port lets through what no rule
        does."""
        broken, place = self._networks.broken, self.place
        if plan.revision < self._newest:
            broken(f"{place.host} makes revision {plan.revision} of its networks, and had {self._newest}")
        self._newest = max(self._newest, plan.revision)
        rules = {group.id: group.rules for group in plan.groups}
        for port in place.ports.values():
            if port.id not in self._open and port.has_security:
                for group in port.groups:
                    there = place.groups.get(group)
                    if there is None or there.rules != rules[group]:
                        broken(f"port {port.id} is open on {place.host} before the rules of group {group}")
        self._open = dict(place.ports)
        if place.routers is not self._routers:
            self._routers, self.routers_revision = place.routers, plan.revision

    def crash(self) -> None:
        self.place.lose_all()
        self._open = {}


class GuestNetworks:
    """Those of one world. `answered`: the addresses of each port as a client was told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rng = random.Random(f"networks of {world.seed}")
        self.hosts: dict[str, HostWires] = {}
        self.answered: dict[str, Addresses] = {}
        self.broken = world.broken

    def add_host(self, name: str) -> HostWires:
        self.hosts[name] = HostWires(self, name, len(self.hosts))
        return self.hosts[name]

    # -- faults -------------------------------------------------------------------------------------------------------
    def any_host(self) -> SimulatedPlace:
        return self.hosts[self.rng.choice(list(self.hosts))].place

    def harm(self) -> str:
        """Some of what is on a host goes; which."""
        place = self.any_host()
        kinds: tuple[dict[str, Any], ...] = (place.ports, place.groups, place.bridges, place.served, place.routers)
        for things in kinds:
            for name in [name for name in things if self.rng.random() < 0.3]:
                del things[name]
        return place.host

    def mend(self) -> None:
        for wires in self.hosts.values():
            wires.place.cannot = ""

    # -- what holds at any time ---------------------------------------------------------------------------------------
    def look(self) -> list[str]:
        """A port is bound where its guest lives. An address that was answered is its port's, and no other's."""
        return self._world.database.look(self._look)

    def _look(self, tx: Tx) -> list[str]:
        rows = {row.id: row for row in tx.execute(_PORTS)}
        found = []
        for instance_id, host in self._world.fleet.lives_on.items():
            for nic in self._world.fleet.hosts[host].domains[instance_id].nics:
                row = rows.get(nic.port_id)
                if row is not None and row.device_id == instance_id and host not in (row.host, row.moving_to):
                    where = " and ".join(name for name in (row.host, row.moving_to) if name) or "nowhere"
                    found.append(f"guest {instance_id} lives on {host}, and its port {nic.port_id} is bound to {where}")
        return found + self._as_answered(tx, set(rows)) + self._carried_twice()

    def _as_answered(self, tx: Tx, there: set[str]) -> list[str]:
        has: dict[str, set[tuple[str, str]]] = {}
        for port_id, subnet_id, address in tx.execute(_ADDRESSES):
            has.setdefault(port_id, set()).add((subnet_id, address))
        return [
            f"port {port_id} was answered with {sorted(known)} and has {sorted(has.get(port_id, ()))}"
            for port_id, known in self.answered.items()
            if port_id in there and known != has.get(port_id, set())
        ]

    def _carried_twice(self) -> list[str]:
        """A router may be on two hosts while one of them has not been told that it is elsewhere, and no longer: there
        is no fence around a host whose agent does not answer."""
        carried: dict[str, list[HostWires]] = {}
        for wires in self.hosts.values():
            for router_id in wires.place.routers:
                carried.setdefault(router_id, []).append(wires)
        return [
            f"router {router_id} is active on {' and '.join(one.place.host for one in several)}, of the same revision"
            for router_id, several in carried.items()
            if len({one.routers_revision for one in several}) < len(several)
        ]


_PORTS = Prepared(select(ports.c.id, ports.c.device_id, ports.c.host, ports.c.moving_to))
_ADDRESSES = Prepared(select(port_addresses.c.port_id, port_addresses.c.subnet_id, port_addresses.c.address))
