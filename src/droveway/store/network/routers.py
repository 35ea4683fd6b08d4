"""Routers: their ports are those whose device they are, one a subnet, and one on an external network."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import (
    BadRouterRequest,
    PortInUse,
    RouterExternalGatewayInUseByFloatingIp,
    RouterInterfaceInUseByFloatingIP,
    RouterInterfaceInUseByRoute,
    RouterInterfaceNotFound,
    RouterInUse,
    RouterNotFound,
)
from droveway.domain.network.routing import Leg, check_legs, check_routes
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import finding, networks, ports, quotas, subnets
from droveway.store.network.addressing import INTERFACE_OWNER, AddressRequest
from droveway.store.network.changes import changed, look_at_routers, touch
from droveway.store.network.finding import Asked
from droveway.store.network.ports import ACTIVE, NewPort
from droveway.store.network.rows import Port, Router, RouterRow
from droveway.store.network.tables import floating_ips, port_addresses, routers
from droveway.store.network.tables import ports as port_table
from droveway.store.network.tables import subnets as subnet_table

GATEWAY_OWNER = "network:router_gateway"
c = routers.c
_GET = Prepared(select(routers).where(c.id == bindparam("of")))
_INSERT = Prepared(insert(routers))
_LEGS = Prepared(
    select(
        port_table.c.id,
        port_table.c.network_id,
        port_table.c.device_owner,
        port_addresses.c.address,
        subnet_table.c.id.label("subnet_id"),
        subnet_table.c.cidr,
    )
    .join(port_addresses, port_addresses.c.port_id == port_table.c.id)
    .join(subnet_table, subnet_table.c.id == port_addresses.c.subnet_id)
    .where(port_table.c.device_id == bindparam("of"))
    .order_by(port_table.c.created_at_us, port_table.c.id, port_addresses.c.place)
)
_GATEWAYS = Prepared(
    select(routers.c.id, port_addresses.c.subnet_id, port_addresses.c.address)
    .join(port_addresses, port_addresses.c.port_id == routers.c.gateway_port_id)
    .where(in_list(routers.c.id, "ids"))
    .order_by(routers.c.id, port_addresses.c.place)
)
_FLOATING = select(floating_ips.c.address).where(floating_ips.c.router_id == bindparam("of"))


class Gateway(msgspec.Struct, frozen=True):
    """What a caller wants outside. `enable_snat`: None for what it was, or else on."""

    network_id: str
    enable_snat: bool | None = None
    fixed_ips: tuple[AddressRequest, ...] | None = None


class NewRouter(msgspec.Struct, frozen=True):
    project_id: str
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    admin_state_up: bool = True
    gateway: Gateway | None = None


def create(tx: Tx, new: NewRouter, configured: NetworkQuotas, scope: str | None) -> Router:
    quotas.claim(tx, "router", new.project_id, configured)
    row = RouterRow(
        id=tx.names.uuid(),
        project_id=new.project_id,
        name=new.name,
        description=new.description,
        tags=list(new.tags),
        revision=1,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
        admin_state_up=new.admin_state_up,
        external_network_id=None,
        gateway_port_id=None,
        enable_snat=True,
        routes=[],
        host="",
    )
    tx.execute(_INSERT, dict(row))
    changed(tx, routers, row["id"])
    look_at_routers(tx)
    if new.gateway is not None:
        set_gateway(tx, row, new.gateway, scope)
    return get(tx, row["id"])


def row_of(tx: Tx, router_id: str, scope: str | None = None) -> RouterRow:
    row = results.first(RouterRow, tx.execute(_GET, {"of": router_id}))
    if row is None or scope not in (None, row["project_id"]):
        raise RouterNotFound(f"Router {router_id[:64]} could not be found")
    return row


def get(tx: Tx, router_id: str, scope: str | None = None) -> Router:
    return _whole(tx, [row_of(tx, router_id, scope)])[0]


def find(tx: Tx, asked: Asked) -> list[Router]:
    mine = [] if asked.scope is None else [c.project_id == asked.scope]
    return _whole(tx, finding.rows(tx, RouterRow, routers, asked, *mine, what="Router"))


def _whole(tx: Tx, rows: Iterable[RouterRow]) -> list[Router]:
    found = {row["id"]: Router(**row, gateway_addresses=[]) for row in rows}
    for router_id, subnet_id, address in tx.execute(_GATEWAYS, {"ids": list(found)}):
        found[router_id]["gateway_addresses"].append((subnet_id, address))
    return list(found.values())


def legs(tx: Tx, router_id: str) -> list[Leg]:
    return [
        Leg(row.id, row.network_id, row.subnet_id, row.cidr, row.address, row.device_owner == GATEWAY_OWNER)
        for row in tx.execute(_LEGS, {"of": router_id})
    ]


def update(tx: Tx, router_id: str, changes: dict[str, Any]) -> None:
    if "routes" in changes:
        changes["routes"] = [list(one) for one in check_routes(changes["routes"], legs(tx, router_id))]
    touch(tx, routers, router_id, **changes)


def remove(tx: Tx, router_id: str) -> None:
    inside = [leg for leg in legs(tx, router_id) if not leg.is_gateway]
    if inside:
        shown = ", ".join(f"{leg.port_id} on subnet {leg.subnet_id}" for leg in inside[: networks.SHOWN])
        raise RouterInUse(f"Router {router_id} still has ports: {shown}; take these subnets from it first.")
    clear_gateway(tx, row_of(tx, router_id))
    tx.execute(delete(routers).where(c.id == router_id))
    changed(tx, routers, router_id)


# -- outside ----------------------------------------------------------------------------------------------------------
def set_gateway(tx: Tx, row: RouterRow, wanted: Gateway, scope: str | None) -> None:
    """Raises what is in the way. The port of the gateway stays where it is already there."""
    router_id = row["id"]
    snat = row["enable_snat"] if wanted.enable_snat is None else wanted.enable_snat
    if row["external_network_id"] == wanted.network_id and wanted.fixed_ips is None:
        touch(tx, routers, router_id, enable_snat=snat)
        return
    network = networks.row_of(tx, wanted.network_id, scope)
    if not network["external"]:
        raise BadRouterRequest(
            f"Bad router request: Network {wanted.network_id} is not an external network: choose one whose "
            "router:external is true."
        )
    clear_gateway(tx, row)
    new = NewPort("", fixed_ips=wanted.fixed_ips, device_id=router_id, device_owner=GATEWAY_OWNER, status=ACTIVE)
    port = ports.create(tx, network, msgspec.structs.replace(new, port_security=False), None)
    if not port["addresses"]:
        raise BadRouterRequest(
            f"Bad router request: No subnets on external network {wanted.network_id}: make one first."
        )
    check_legs(router_id, legs(tx, router_id))
    touch(
        tx,
        routers,
        router_id,
        external_network_id=wanted.network_id,
        gateway_port_id=port["id"],
        enable_snat=snat,
    )
    look_at_routers(tx)


def clear_gateway(tx: Tx, row: RouterRow) -> None:
    if row["gateway_port_id"] is None:
        return
    used = list(tx.execute(_FLOATING.limit(networks.SHOWN), {"of": row["id"]}).scalars())
    if used:
        raise RouterExternalGatewayInUseByFloatingIp(
            f"Gateway cannot be updated for router {row['id']}, since a gateway to external network "
            f"{row['external_network_id']} is required by one or more floating IPs: {', '.join(used)}."
        )
    ports.remove(tx, row["gateway_port_id"])
    touch(tx, routers, row["id"], external_network_id=None, gateway_port_id=None, enable_snat=True)
    look_at_routers(tx)


# -- inside -----------------------------------------------------------------------------------------------------------
def add_interface(
    tx: Tx, router_id: str, wanted: Mapping[str, str], configured: NetworkQuotas, scope: str | None
) -> tuple[Port, str]:
    """`wanted` has subnet_id or port_id. The port, and the subnet."""
    row = row_of(tx, router_id, scope)
    if "port_id" in wanted:
        port = _take_port(tx, row, wanted["port_id"], scope)
    else:
        port = _make_port(tx, row, wanted["subnet_id"], configured, scope)
    check_legs(router_id, legs(tx, router_id))
    touch(tx, routers, router_id)
    return port, port["addresses"][0][0]


def _make_port(tx: Tx, row: RouterRow, subnet_id: str, configured: NetworkQuotas, scope: str | None) -> Port:
    subnet = subnets.get(tx, subnet_id, scope)
    if subnet["gateway"] is None:
        raise BadRouterRequest(
            f"Bad router request: Subnet for router interface must have a gateway IP: {subnet_id} has none; give it "
            "one, or add a port of your own with port_id."
        )
    network = networks.row_of(tx, subnet["network_id"])
    if scope not in (None, network["project_id"]):  # its address is that to which guests send
        raise BadRouterRequest(
            f"Bad router request: Cannot add interface to router because subnet {subnet_id} is not owned by project "
            "making the request: add a port of your own with port_id."
        )
    new = NewPort(
        row["project_id"],
        fixed_ips=(AddressRequest(subnet_id, subnet["gateway"]),),
        device_id=row["id"],
        device_owner=INTERFACE_OWNER,
        status=ACTIVE,
        port_security=False,
    )
    _check_not_there(legs(tx, row["id"]), subnet_id)
    return ports.create(tx, network, new, configured)


def _check_not_there(there: Sequence[Leg], subnet_id: str) -> None:
    if any(leg.subnet_id == subnet_id for leg in there):
        raise BadRouterRequest(f"Bad router request: Router already has a port on subnet {subnet_id}.")


def _take_port(tx: Tx, row: RouterRow, port_id: str, scope: str | None) -> Port:
    port = ports.get(tx, port_id, scope)
    if scope not in (None, port["project_id"]):
        raise BadRouterRequest(f"Bad router request: Port {port_id} is not owned by project making the request.")
    if port["device_id"]:
        raise PortInUse(
            f"Unable to complete operation on port {port_id} for network {port['network_id']}. Port already has an "
            f"attached device {port['device_id']}."
        )
    if not port["addresses"]:
        raise BadRouterRequest(f"Bad router request: Router port {port_id} must have at least one fixed IP.")
    if sum(ipaddress.ip_address(address).version == 4 for _, address in port["addresses"]) > 1:
        raise BadRouterRequest("Bad router request: Cannot have multiple IPv4 subnets on router port.")
    there = legs(tx, row["id"])
    for subnet_id, _ in port["addresses"]:
        _check_not_there(there, subnet_id)
    given = {"device_id": row["id"], "device_owner": INTERFACE_OWNER, "port_security": False, "status": ACTIVE}
    return ports.update(tx, port, given, group_ids=())


def remove_interface(tx: Tx, router_id: str, wanted: Mapping[str, str], scope: str | None) -> tuple[Leg, RouterRow]:
    """The port goes. Raises what leads through it."""
    row = row_of(tx, router_id, scope)
    there = legs(tx, router_id)
    found = [
        leg
        for leg in there
        if not leg.is_gateway
        and leg.port_id == wanted.get("port_id", leg.port_id)
        and leg.subnet_id == wanted.get("subnet_id", leg.subnet_id)
    ]
    if not found:
        named = wanted.get("subnet_id") or wanted.get("port_id")
        raise RouterInterfaceNotFound(f"Router {router_id} does not have an interface on {named}.")
    gone = found[0]
    _check_unused(tx, row, gone)
    ports.remove(tx, gone.port_id)
    touch(tx, routers, router_id)
    return gone, row


def _check_unused(tx: Tx, row: RouterRow, gone: Leg) -> None:
    through = (
        select(floating_ips.c.address)
        .join(port_addresses, port_addresses.c.port_id == floating_ips.c.port_id)
        .where(floating_ips.c.router_id == row["id"], port_addresses.c.subnet_id == gone.subnet_id)
    )
    used = list(tx.execute(through.limit(networks.SHOWN)).scalars())
    if used:
        raise RouterInterfaceInUseByFloatingIP(
            f"Router interface for subnet {gone.subnet_id} on router {row['id']} cannot be deleted, as it is required "
            f"by one or more floating IPs: {', '.join(used)}."
        )
    for destination, hop in row["routes"]:
        if ipaddress.ip_address(hop) in ipaddress.ip_network(gone.cidr):
            raise RouterInterfaceInUseByRoute(
                f"Router interface for subnet {gone.subnet_id} on router {row['id']} cannot be deleted, as it is "
                f"required by one or more routes: {destination} via {hop}."
            )
