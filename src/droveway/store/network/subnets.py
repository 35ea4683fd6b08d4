"""Subnets, and the port of a network's DHCP and metadata: a row like any other, with an address in each subnet that has
DHCP, the same on every host."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, or_, select
from sqlalchemy import update as update_

from droveway.domain.network import subnets as decided
from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import GatewayIpInUse, NetworkSubnetPoolAffinityError, SubnetInUse, SubnetNotFound
from droveway.domain.network.subnets import SubnetSpec
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import addressing, finding, ports, quotas, rbac
from droveway.store.network.addressing import INTERFACE_OWNER, AddressRequest
from droveway.store.network.changes import changed, touch
from droveway.store.network.finding import Asked
from droveway.store.network.networks import DHCP_OWNER
from droveway.store.network.ports import WITH_THEIR_OWN_WAY_OUT, NewPort
from droveway.store.network.rows import NetworkRow, SubnetRow
from droveway.store.network.tables import networks, port_addresses, subnets
from droveway.store.network.tables import ports as port_table

SHOWN = 5
DHCP_DEVICE = "droveway-dhcp"
c = subnets.c
_GET = Prepared(select(subnets).where(c.id == bindparam("of")))
_SHARED = Prepared(select(networks.c.shared).where(networks.c.id == bindparam("of")))
_INSERT = Prepared(insert(subnets))
_USERS = (
    select(port_table.c.id, port_table.c.device_owner, port_addresses.c.address)
    .join(port_addresses, port_addresses.c.port_id == port_table.c.id)
    .where(port_addresses.c.subnet_id == bindparam("of"))
)
_DHCP_PORT = Prepared(
    select(port_table.c.id).where(port_table.c.network_id == bindparam("of"), port_table.c.device_owner == DHCP_OWNER)
)
_HELD = Prepared(select(port_addresses.c.subnet_id).where(port_addresses.c.port_id == bindparam("of")))


def visible(scope: str | None) -> list[ColumnElement[bool]]:
    """A project sees its own subnets, and those of shared networks."""
    if scope is None:
        return []
    shared = select(networks.c.id).where(or_(networks.c.shared.is_(True), rbac.granted_to(scope, rbac.SHARED)))
    return [or_(c.project_id == scope, c.network_id.in_(shared))]


def create(
    tx: Tx,
    network: NetworkRow,
    spec: SubnetSpec,
    configured: NetworkQuotas,
    *,
    name: str = "",
    description: str = "",
    tags: Sequence[str] = (),
    pool_id: str | None = None,
) -> SubnetRow:
    """It is its network's project's. Raises InvalidInput when it overlaps with another of that network."""
    quotas.claim(tx, "subnet", network["project_id"], configured)
    there = addressing.subnets_of(tx, network["id"])
    decided.check_apart(spec.cidr, network["id"], [(other["id"], other["cidr"]) for other in there])
    if any(other["pool_id"] != pool_id for other in there if other["ip_version"] == spec.ip_version):
        raise NetworkSubnetPoolAffinityError(
            f"Subnets hosted on the same network must be allocated from the same subnet pool: those of {network['id']} "
            f"are of {there[0]['pool_id'] or 'none'}."
        )
    row = SubnetRow(
        id=tx.names.uuid(),
        project_id=network["project_id"],
        tags=list(tags),
        revision=0,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
        name=name,
        description=description,
        network_id=network["id"],
        ip_version=spec.ip_version,
        cidr=spec.cidr,
        pools=[list(pool) for pool in spec.pools],
        gateway=spec.gateway,
        dns=spec.dns,
        routes=[list(route) for route in spec.routes],
        enable_dhcp=spec.enable_dhcp,
        ipv6_address_mode=spec.ipv6_address_mode,
        ipv6_ra_mode=spec.ipv6_ra_mode,
        pool_id=pool_id,
    )
    tx.execute(_INSERT, dict(row))
    if spec.enable_dhcp:
        _serve(tx, network, row["id"])
    changed(tx, subnets, row["id"])
    return row


def _serve(tx: Tx, network: NetworkRow, subnet_id: str) -> None:
    """The DHCP port of the network has an address there. Where none is free, nobody is served, nor could be."""
    port_id = tx.execute(_DHCP_PORT, {"of": network["id"]}).scalar()
    wanted = (AddressRequest(subnet_id),)
    if port_id is None:
        new = NewPort(
            network["project_id"],
            fixed_ips=wanted,
            device_id=DHCP_DEVICE,
            device_owner=DHCP_OWNER,
            status=ports.ACTIVE,
            port_security=False,
        )
        ports.create(tx, network, new, None)
        return
    held = [AddressRequest(one) for one in tx.execute(_HELD, {"of": port_id}).scalars()]
    if len(held) < addressing.PER_PORT_MAX and subnet_id not in [one.subnet_id for one in held]:
        row = ports.get(tx, port_id)
        kept = [AddressRequest(subnet, address) for subnet, address in row["addresses"]]
        ports.update(tx, row, {}, [*kept, *wanted])


def _stop_serving(tx: Tx, network_id: str, subnet_id: str) -> None:
    port_id = tx.execute(_DHCP_PORT, {"of": network_id}).scalar()
    if port_id is None:
        return
    tx.execute(
        delete(port_addresses).where(port_addresses.c.port_id == port_id, port_addresses.c.subnet_id == subnet_id)
    )
    if tx.execute(_HELD, {"of": port_id}).first() is None:
        ports.remove(tx, port_id)
    else:
        changed(tx, port_table, port_id)


def get(tx: Tx, subnet_id: str, scope: str | None = None) -> SubnetRow:
    row = results.first(SubnetRow, tx.execute(_GET, {"of": subnet_id}))
    if row is not None and scope not in (None, row["project_id"]):
        is_shared = tx.execute(_SHARED, {"of": row["network_id"]}).scalar()
        row = row if is_shared or _is_granted(tx, row["network_id"], scope) else None
    if row is None:
        raise SubnetNotFound(f"Subnet {subnet_id[:64]} could not be found.")
    return row


def _is_granted(tx: Tx, network_id: str, scope: str | None) -> bool:
    return scope is not None and "shared" in rbac.grants(tx, [network_id], scope).get(network_id, ())


def find(tx: Tx, asked: Asked) -> list[SubnetRow]:
    conditions = visible(asked.scope)
    if "shared" in asked.others:
        shared = c.network_id.in_(select(networks.c.id).where(networks.c.shared.is_(True)))
        conditions.append(shared if asked.others["shared"][-1] else ~shared)
    return finding.rows(tx, SubnetRow, subnets, asked, *conditions, what="Subnet")


def update(tx: Tx, subnet_id: str, given: dict[str, Any], network: NetworkRow) -> SubnetRow:
    """`given`: columns as a caller wants them; gateway, pools, name servers and routes are checked here, against the
    subnet that is there."""
    row = get(tx, subnet_id)
    changes = dict(given)
    cidr = ipaddress.ip_network(row["cidr"])
    gateway = changes.get("gateway", row["gateway"])
    if "gateway" in changes and gateway != row["gateway"]:
        gateway = changes["gateway"] = None if gateway is None else decided.checked_gateway(cidr, gateway)
        _check_gateway_is_free(tx, row)
    if "pools" in changes:
        changes["pools"] = [list(pool) for pool in decided.checked_pools(cidr, changes["pools"], gateway)]
    elif "gateway" in changes:
        decided.check_gateway_outside(gateway, decided.intervals(row["pools"]), cidr.version)
    if "dns" in changes:
        changes["dns"] = decided.checked_dns(changes["dns"])
    if "routes" in changes:
        changes["routes"] = [list(one) for one in decided.checked_routes(changes["routes"], row["ip_version"])]
    touch(tx, subnets, subnet_id, **changes)
    if changes.get("enable_dhcp", row["enable_dhcp"]) != row["enable_dhcp"]:
        if changes["enable_dhcp"]:
            _serve(tx, network, subnet_id)
        else:
            _stop_serving(tx, network["id"], subnet_id)
    return get(tx, subnet_id)


def _check_gateway_is_free(tx: Tx, row: SubnetRow) -> None:
    if row["gateway"] is None:
        return
    held = _USERS.where(port_addresses.c.address == row["gateway"], port_table.c.device_owner == INTERFACE_OWNER)
    found = tx.execute(held, {"of": row["id"]}).first()
    if found is not None:
        raise GatewayIpInUse(
            f"Current gateway ip {row['gateway']} already in use by port {found.id}. Unable to update."
        )


def remove(tx: Tx, subnet_id: str) -> None:
    """Raises SubnetInUse, which names ports that have an address of it. What guests made of it themselves goes with it:
    then routers alone are in the way."""
    row = get(tx, subnet_id)
    is_self_made = decided.makes_own_address(row["ipv6_address_mode"])
    owner = port_table.c.device_owner
    in_the_way = owner.in_(WITH_THEIR_OWN_WAY_OUT) & (owner != DHCP_OWNER) if is_self_made else owner != DHCP_OWNER
    used = list(tx.execute(_USERS.where(in_the_way).limit(SHOWN), {"of": subnet_id}))
    if used:
        shown = ", ".join(f"{one.address} of port {one.id} ({one.device_owner or 'no device'})" for one in used)
        raise SubnetInUse(
            f"Unable to complete operation on subnet {subnet_id}: One or more ports have an IP allocation from this "
            f"subnet: {shown}; delete them first."
        )
    _stop_serving(tx, row["network_id"], subnet_id)
    if is_self_made:
        held = port_addresses.c.subnet_id == subnet_id
        losing = list(tx.execute(select(port_addresses.c.port_id).where(held)).scalars())
        mine = port_table.c.id.in_(select(port_addresses.c.port_id).where(held))
        tx.execute(update_(port_table).where(mine).values(revision=port_table.c.revision + 1, updated_at_us=tx.now_us))
        changed(tx, port_table, *losing)
        tx.execute(delete(port_addresses).where(held))
    tx.execute(delete(subnets).where(c.id == subnet_id))
    changed(tx, subnets, subnet_id)
