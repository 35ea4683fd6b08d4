"""What must be true of networks once all is at rest: on every host there is what the rows say, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from droveway.domain.model import VmState
from droveway.domain.network.plan import DHCP_OWNER, SERVICE_OWNER
from droveway.domain.network.rules import planned
from droveway.domain.network_plan import GroupRule
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import planning
from droveway.store.network.ports import ACTIVE
from droveway.store.network.rows import RuleRow
from droveway.store.network.tables import (
    floating_ips,
    networks,
    port_addresses,
    port_groups,
    ports,
    routers,
    security_group_rules,
    subnets,
)
from droveway.store.schema import instances, server_ports

if TYPE_CHECKING:
    from droveway.drivers.network.simulated import SimulatedPlace
    from droveway.simulation.world import World

GUEST_OWNER = "compute:"
_NETWORKS, _SUBNETS = Prepared(select(networks.c.id)), Prepared(select(subnets.c.id, subnets.c.network_id))
_PORTS, _ROUTERS, _ADDRESSES, _MEMBERS, _RULES, _OF_SERVERS = (
    Prepared(select(table))
    for table in (ports, routers, port_addresses, port_groups, security_group_rules, server_ports)
)
_FLOATING = Prepared(select(floating_ips.c.id, floating_ips.c.floating_port_id))
_INSTANCES = Prepared(select(instances.c.id, instances.c.host, instances.c.vm_state, instances.c.deleted))


class NetworkSnapshot:
    """What the store says of networks, read at one moment."""

    def __init__(self, tx: Tx) -> None:
        self.networks = set(tx.execute(_NETWORKS).scalars())
        self.subnets = {row.id: row.network_id for row in tx.execute(_SUBNETS)}
        self.ports = {row.id: row for row in tx.execute(_PORTS)}
        self.routers = {row.id: row for row in tx.execute(_ROUTERS)}
        self.addresses = list(tx.execute(_ADDRESSES))
        self.members = list(tx.execute(_MEMBERS))
        self.floating = list(tx.execute(_FLOATING))
        self.rules: dict[str, set[GroupRule]] = {}
        for row in results.every(RuleRow, tx.execute(_RULES)):
            self.rules.setdefault(row["group_id"], set()).add(planned(planning.spec(row)))
        self.instances = {row.id: row for row in tx.execute(_INSTANCES)}
        self.of_servers = {row.port_id: row.instance_id for row in tx.execute(_OF_SERVERS)}

    def groups_of(self, port_ids: Iterable[str]) -> set[str]:
        here = set(port_ids)
        return {row.group_id for row in self.members if row.port_id in here}

    def addresses_in(self, group_id: str) -> set[str]:
        inside = {row.port_id for row in self.members if row.group_id == group_id}
        beside = {cidr for port_id in inside & self.ports.keys() for cidr, _ in self.ports[port_id].pairs}
        return {row.address for row in self.addresses if row.port_id in inside} | beside


def at_rest(world: World, _rows: Any) -> list[str]:
    if world.networks is None:
        return []
    seen = world.database.look(NetworkSnapshot)
    found = [*_bound(world, seen), *_devices(world, seen), *_left_in_rows(seen), *_routers(world, seen)]
    for wires in world.networks.hosts.values():
        found += _on_host(wires.place, seen)
    return found or _as_planned(world)


def _as_planned(world: World) -> list[str]:
    """Each port and group is there as the rows tell it, read anew and whole: what its guest may send from, and what it
    is told of itself, with it."""
    assert world.networks is not None, "it has networks"
    found = []
    for host, wires in world.networks.hosts.items():
        plan = world.database.look(partial(planning.of_host, host=host, tunnels={}))
        for what, there, wanted in (
            ("port", wires.place.ports, {one.id: one for one in plan.ports}),
            ("group", wires.place.groups, {one.id: one for one in plan.groups}),
        ):
            found += [
                f"{host} has {what} {of} as {there.get(of)}, and the rows say {one}"
                for of, one in wanted.items()
                if there.get(of) != one
            ]
    return found


def _bound(world: World, seen: NetworkSnapshot) -> Iterator[str]:
    """A port is bound where its guest is, and nowhere else."""
    for port in seen.ports.values():
        instance = seen.instances.get(seen.of_servers.get(port.id, ""))
        is_of_guest = port.device_owner.startswith(GUEST_OWNER)
        if is_of_guest is not (instance is not None and not instance.deleted):
            yield f"port {port.id} says that {port.device_owner} {port.device_id} has it, which is not so"
        if instance is None:
            if port.host or port.moving_to:
                yield f"port {port.id} of no server is bound to {port.host} {port.moving_to}"
            continue
        if port.moving_to or port.host != (instance.host or ""):
            yield (
                f"port {port.id} of {instance.id}, which is {instance.vm_state} on {instance.host}, is bound to "
                f"{port.host} {port.moving_to}"
            )
        if instance.vm_state == VmState.ACTIVE.value:
            if port.status != ACTIVE:
                yield f"port {port.id} of {instance.id}, which runs, is {port.status}"
            domain = world.fleet.hosts[instance.host].domains.get(instance.id)
            if domain is None or port.id not in {nic.port_id for nic in domain.nics}:
                yield f"port {port.id} of {instance.id} is not plugged on {instance.host}"


def _devices(world: World, seen: NetworkSnapshot) -> Iterator[str]:
    """No guest has an interface that is another server's, or nobody's."""
    for instance_id, host in world.fleet.lives_on.items():
        for nic in world.fleet.hosts[host].domains[instance_id].nics:
            if seen.of_servers.get(nic.port_id) != instance_id:
                yield f"guest {instance_id} on {host} has an interface of port {nic.port_id}, which is not its server's"


def _left_in_rows(seen: NetworkSnapshot) -> Iterator[str]:
    """Nothing is kept of what is gone."""
    for row in seen.addresses:
        if row.port_id not in seen.ports or row.subnet_id not in seen.subnets:
            yield f"address {row.address} of subnet {row.subnet_id} is kept by port {row.port_id}, which is gone"
    for row in seen.members:
        if row.port_id not in seen.ports:
            yield f"group {row.group_id} keeps port {row.port_id}, which is gone"
    for row in seen.floating:
        if row.floating_port_id not in seen.ports:
            yield f"floating IP {row.id} has no port"
    for port in seen.ports.values():
        if port.network_id not in seen.networks:
            yield f"port {port.id} is in network {port.network_id}, which is gone"
    for subnet_id, network_id in seen.subnets.items():
        if network_id not in seen.networks:
            yield f"subnet {subnet_id} is of network {network_id}, which is gone"


def _routers(world: World, seen: NetworkSnapshot) -> Iterator[str]:
    """Each is on one host, which is up."""
    assert world.networks is not None, "it has networks"
    for router in seen.routers.values():
        places = [name for name, wires in world.networks.hosts.items() if router.id in wires.place.routers]
        if places != [router.host] or not world.hosts[router.host].is_on:
            yield f"router {router.id} is to be on {router.host or 'a host'} and is on {places}"


def _on_host(place: SimulatedPlace, seen: NetworkSnapshot) -> Iterator[str]:
    """Its networks, DHCP servers, ports, groups with their rules, and routers."""
    host = place.host
    mine = {
        one.id
        for one in seen.ports.values()
        if host in (one.host, one.moving_to) and not one.device_owner.startswith(SERVICE_OWNER)
    }
    carried = {one.id for one in seen.routers.values() if one.host == host}
    here = {one.network_id for one in seen.ports.values() if one.id in mine or one.device_id in carried}
    served = {one.network_id for one in seen.ports.values() if one.device_owner == DHCP_OWNER} & here
    own = seen.groups_of(one for one in mine if seen.ports[one].port_security)
    named = {rule.remote_group_id for group in own for rule in seen.rules.get(group, ()) if rule.remote_group_id}
    for what, there, wanted in (
        ("ports", place.ports, mine),
        ("networks", place.bridges, here),
        ("DHCP of networks", place.served, served),
        ("groups", place.groups, own | named),
        ("routers", place.routers, carried),
    ):
        if there.keys() != wanted:
            yield (
                f"{host} has {what} {sorted(there.keys() - wanted)} that it should not have, and lacks "
                f"{sorted(wanted - there.keys())}"
            )
    for port_id in sorted(mine & place.ports.keys()):
        if [[pair.cidr, pair.mac] for pair in place.ports[port_id].pairs] != seen.ports[port_id].pairs:
            yield f"port {port_id} on {host} may send from other addresses than the rows say"
    for group_id in sorted(own & place.groups.keys()):
        if set(place.groups[group_id].rules) != seen.rules.get(group_id, set()):
            yield f"{host} has other rules of group {group_id} than the rows"
    for group_id in sorted(named & place.groups.keys()):
        if set(place.groups[group_id].members) != seen.addresses_in(group_id):
            yield f"{host} has other members of group {group_id} than the rows"
