"""What of all networks concerns one host: read in a dozen statements, and none of them grows with the cloud, but with
what that host and the networks on it have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import and_, bindparam, or_, select

from droveway.domain.guest_data import digest
from droveway.domain.network import plan
from droveway.domain.network.plan import Facts, InterfaceFact, NetworkFact, PortFact, RouterFact, SubnetFact
from droveway.domain.network.rules import RuleSpec
from droveway.domain.network_plan import HostNetworks, PlannedNetwork, PlannedPort
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import changes, ports
from droveway.store.network.rows import NetworkRow, Port, PortRow, RouterRow, RuleRow, SubnetRow
from droveway.store.network.tables import (
    floating_ips,
    networks,
    port_addresses,
    port_groups,
    routers,
    security_group_rules,
    security_groups,
    subnets,
)
from droveway.store.network.tables import ports as port_table
from droveway.store.schema import instances, server_ports

p = port_table.c
_BOUND = Prepared(select(port_table).where(or_(p.host == bindparam("of"), p.moving_to == bindparam("of"))))
_ROUTERS = Prepared(select(routers).where(routers.c.host == bindparam("of")))
_LEGS = Prepared(select(p.network_id).where(in_list(p.device_id, "ids")))
_NETWORKS = Prepared(select(networks).where(in_list(networks.c.id, "ids")))
_SUBNETS = Prepared(select(subnets).where(in_list(subnets.c.network_id, "ids")))
_PORTS = select(port_table).where(in_list(p.network_id, "ids"))
_PORTS_OF = Prepared(_PORTS)
_DHCP = Prepared(_PORTS.where(p.device_owner == plan.DHCP_OWNER))
_ROUTERS_OF = Prepared(select(routers).where(in_list(routers.c.id, "ids")))
_RULES = Prepared(
    select(security_group_rules)
    .where(in_list(security_group_rules.c.group_id, "ids"))
    .order_by(security_group_rules.c.meaning)
)
_MEMBERS = Prepared(
    select(port_groups.c.group_id, port_addresses.c.address)
    .join(port_addresses, port_addresses.c.port_id == port_groups.c.port_id)
    .where(in_list(port_groups.c.group_id, "ids"))
)
_PAIRS = Prepared(
    select(port_groups.c.group_id, p.pairs)
    .join(port_table, p.id == port_groups.c.port_id)
    .where(in_list(port_groups.c.group_id, "ids"), p.pairs != [])
)
_FLOATING = Prepared(
    select(floating_ips.c.router_id, floating_ips.c.address, floating_ips.c.fixed_address).where(
        in_list(floating_ips.c.router_id, "ids"), floating_ips.c.fixed_address.is_not(None)
    )
)
i = instances.c
s = server_ports.c
INTERFACES = (
    select(p.id.label("port_id"), s.place, s.tag, i.deleted, i.number, i.name, i.hostname, i.metadata)
    .add_columns(i.key_name, i.guest_password)
    .join_from(port_table, instances, i.id == p.device_id)
    .outerjoin(server_ports, and_(s.port_id == p.id, s.instance_id == p.device_id))
)
_INTERFACES = Prepared(INTERFACES.where(or_(p.host == bindparam("of"), p.moving_to == bindparam("of"))))
_GROUP_NAMES = Prepared(
    select(security_groups.c.id, security_groups.c.name).where(in_list(security_groups.c.id, "ids"))
)


def of_host(tx: Tx, host: str, tunnels: Mapping[str, str]) -> HostNetworks:
    """`tunnels`: the tunnel address of each host that has one."""
    return plan.of_host(facts_of(tx, host, tunnels), host)


def of_instance(tx: Tx, instance_id: str) -> tuple[tuple[PlannedPort, PlannedNetwork], ...]:
    """Its ports in the order in which they were made, each with its network as far as the guest is told of it."""
    mine = ports.of_device(tx, instance_id)
    here = {"ids": sorted({row["network_id"] for row in mine})}
    served = ports.whole(tx, results.every(PortRow, tx.execute(_DHCP, here)))
    found = Facts(
        changes.revision(tx),
        [network_fact(row) for row in results.every(NetworkRow, tx.execute(_NETWORKS, here))],
        [subnet_fact(row) for row in results.every(SubnetRow, tx.execute(_SUBNETS, here))],
        [port_fact(row) for row in (*mine, *served)],
    )
    return plan.of_instance(found, instance_id)


def facts_of(tx: Tx, host: str, tunnels: Mapping[str, str]) -> Facts:
    bound = results.every(PortRow, tx.execute(_BOUND, {"of": host}))
    carried = results.every(RouterRow, tx.execute(_ROUTERS, {"of": host}))
    ids = {row["network_id"] for row in bound}
    ids |= set(tx.execute(_LEGS, {"ids": [row["id"] for row in carried]}).scalars())
    here = {"ids": sorted(ids)}
    there = ports.whole(tx, results.every(PortRow, tx.execute(_PORTS_OF, here)))
    groups = {group for row in there if host in (row["host"], row["moving_to"]) for group in row["groups"]}
    rules = _rules(tx, groups)
    named = {rule.remote_group_id for several in rules.values() for rule in several if rule.remote_group_id}
    return Facts(
        changes.revision(tx),
        [network_fact(row) for row in results.every(NetworkRow, tx.execute(_NETWORKS, here))],
        [subnet_fact(row) for row in results.every(SubnetRow, tx.execute(_SUBNETS, here))],
        [port_fact(row) for row in there],
        _routers(tx, carried, there),
        rules,
        _members(tx, named),
        tunnels,
        {row.port_id: interface_fact(row) for row in tx.execute(_INTERFACES, {"of": host})},
        {row.id: row.name for row in tx.execute(_GROUP_NAMES, {"ids": sorted(groups)})},
    )


def network_fact(row: NetworkRow) -> NetworkFact:
    return NetworkFact(row["id"], row["mtu_bytes"], row["vni"], row["physical_network"], row["admin_state_up"])


def subnet_fact(row: SubnetRow) -> SubnetFact:
    routes = tuple((destination, hop) for destination, hop in row["routes"])
    mode = row["ipv6_ra_mode"] or row["ipv6_address_mode"]
    return SubnetFact(
        row["id"], row["network_id"], row["cidr"], row["gateway"], tuple(row["dns"]), routes, row["enable_dhcp"], mode
    )


def port_fact(row: Port) -> PortFact:
    return PortFact(
        row["id"],
        row["network_id"],
        row["project_id"],
        row["mac"],
        tuple(host for host in (row["host"], row["moving_to"]) if host),
        row["device_id"],
        row["device_owner"],
        tuple(row["addresses"]),
        tuple(row["groups"]),
        tuple((cidr, mac) for cidr, mac in row["pairs"]),
        row["port_security"],
        row["admin_state_up"],
    )


def _routers(tx: Tx, carried: Iterable[RouterRow], there: Iterable[Port]) -> list[RouterFact]:
    """Those that the host carries, and where the others are that have a port in its networks."""
    found = {row["id"]: row for row in carried}
    floating: dict[str, list[tuple[str, str]]] = {router_id: [] for router_id in found}
    for router_id, address, fixed in tx.execute(_FLOATING, {"ids": list(found)}):
        floating[router_id].append((address, fixed))
    devices = {row["device_id"] for row in there if row["device_owner"] in (plan.INTERFACE_OWNER, plan.GATEWAY_OWNER)}
    for row in results.every(RouterRow, tx.execute(_ROUTERS_OF, {"ids": sorted(devices - found.keys())})):
        found[row["id"]] = row
    return [
        msgspec.structs.replace(router_fact(row), floating=tuple(floating.get(row["id"], ()))) for row in found.values()
    ]


def router_fact(row: RouterRow) -> RouterFact:
    """But for its floating IPs."""
    routes = tuple((destination, hop) for destination, hop in row["routes"])
    return RouterFact(row["id"], row["host"], row["enable_snat"], routes, row["admin_state_up"])


def _rules(tx: Tx, groups: Iterable[str]) -> dict[str, list[RuleSpec]]:
    found: dict[str, list[RuleSpec]] = {group: [] for group in groups}
    for row in results.every(RuleRow, tx.execute(_RULES, {"ids": sorted(found)})):
        found[row["group_id"]].append(spec(row))
    return found


def spec(row: RuleRow) -> RuleSpec:
    return RuleSpec(
        row["direction"],
        row["ethertype"],
        row["protocol"],
        row["port_min"],
        row["port_max"],
        row["remote_cidr"],
        row["remote_group_id"],
    )


def _members(tx: Tx, groups: Iterable[str]) -> dict[str, list[str]]:
    """Their ports' addresses, and what these may send from beside them."""
    found: dict[str, list[str]] = {group: [] for group in groups}
    for group_id, address in tx.execute(_MEMBERS, {"ids": sorted(found)}):
        found[group_id].append(address)
    for group_id, pairs in tx.execute(_PAIRS, {"ids": sorted(found)}):
        found[group_id] += [cidr for cidr, _ in pairs]
    return found


def interface_fact(row: Any) -> InterfaceFact:
    """A port that only names a server as its device is none of its interfaces: it is not told what that server is."""
    if row.place is None or row.deleted:
        return InterfaceFact(row.hostname)
    names = (row.number, row.name, row.hostname, row.metadata, row.key_name, row.guest_password)
    return InterfaceFact(row.hostname, row.place, row.tag or "", digest(*names))
