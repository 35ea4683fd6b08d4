"""Floating IPs: an address of an external network, held by a port of its own, that leads to the address of a port."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import (
    BadFloatingipRequest,
    ExternalGatewayForFloatingIPNotFound,
    FloatingIPNotFound,
    FloatingIPPortAlreadyAssociated,
)
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import finding, networks, ports, quotas
from droveway.store.network.addressing import INTERFACE_OWNER, AddressRequest
from droveway.store.network.changes import changed, touch
from droveway.store.network.finding import Asked
from droveway.store.network.ports import ACTIVE, DOWN, NewPort
from droveway.store.network.rows import FloatingIpRow, Port
from droveway.store.network.tables import floating_ips, port_addresses, routers
from droveway.store.network.tables import ports as port_table

OWNER = "network:floatingip"
c = floating_ips.c
_GET = Prepared(select(floating_ips).where(c.id == bindparam("of")))
_INSERT = Prepared(insert(floating_ips))
_ROUTER = Prepared(
    select(routers.c.id)
    .join(port_table, port_table.c.device_id == routers.c.id)
    .join(port_addresses, port_addresses.c.port_id == port_table.c.id)
    .where(
        port_table.c.device_owner == INTERFACE_OWNER,
        port_addresses.c.subnet_id == bindparam("of"),
        routers.c.external_network_id == bindparam("outside"),
    )
    .order_by(routers.c.created_at_us, routers.c.id)
    .limit(1)
)
_SAME = Prepared(
    select(c.id, c.address).where(
        c.port_id == bindparam("port"), c.fixed_address == bindparam("fixed"), c.id != bindparam("but")
    )
)


class NewFloatingIp(msgspec.Struct, frozen=True):
    project_id: str
    network_id: str
    description: str = ""
    tags: tuple[str, ...] = ()
    subnet_id: str | None = None
    address: str | None = None
    port_id: str | None = None
    fixed_address: str | None = None


def create(tx: Tx, new: NewFloatingIp, configured: NetworkQuotas, scope: str | None) -> FloatingIpRow:
    quotas.claim(tx, "floatingip", new.project_id, configured)
    network = networks.row_of(tx, new.network_id, scope)
    if not network["external"]:
        raise BadFloatingipRequest(
            f"Bad floatingip request: Network {new.network_id} is not a valid external network: choose one whose "
            "router:external is true."
        )
    floating_id = tx.names.uuid()
    wanted = (AddressRequest(new.subnet_id, new.address),) if new.subnet_id or new.address else None
    port = ports.create(
        tx,
        network,
        NewPort("", fixed_ips=wanted, device_id=floating_id, device_owner=OWNER, port_security=False),
        None,
    )
    addresses = [address for _, address in port["addresses"] if ipaddress.ip_address(address).version == 4]
    if not addresses:
        raise BadFloatingipRequest(
            f"Bad floatingip request: network {new.network_id} has no IPv4 subnet: make one first."
        )
    row = FloatingIpRow(
        id=floating_id,
        project_id=new.project_id,
        description=new.description,
        tags=list(new.tags),
        revision=0,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
        floating_network_id=new.network_id,
        floating_port_id=port["id"],
        address=addresses[0],
        port_id=None,
        fixed_address=None,
        router_id=None,
        status=DOWN,
    )
    tx.execute(_INSERT, dict(row))
    changed(tx, floating_ips, row["id"])
    if new.port_id is None:
        return row
    associate(tx, row, new.port_id, new.fixed_address, scope)
    return get(tx, floating_id)


def get(tx: Tx, floating_id: str, scope: str | None = None) -> FloatingIpRow:
    row = results.first(FloatingIpRow, tx.execute(_GET, {"of": floating_id}))
    if row is None or scope not in (None, row["project_id"]):
        raise FloatingIPNotFound(f"Floating IP {floating_id[:64]} could not be found")
    return row


def with_address(tx: Tx, project_id: str, address: str) -> FloatingIpRow | None:
    """Of that project."""
    query = select(floating_ips).where(c.project_id == project_id, c.address == address)
    return results.first(FloatingIpRow, tx.execute(query))


def find(tx: Tx, asked: Asked) -> list[FloatingIpRow]:
    mine = [] if asked.scope is None else [c.project_id == asked.scope]
    return finding.rows(tx, FloatingIpRow, floating_ips, asked, *mine, what="Floating IP")


def associate(tx: Tx, row: FloatingIpRow, port_id: str, fixed: str | None, scope: str | None) -> None:
    """It leads there from now on. Raises what is in the way."""
    port = ports.get(tx, port_id, scope)
    if scope not in (None, port["project_id"]):
        raise BadFloatingipRequest(
            f"Bad floatingip request: Port {port_id} is associated with a different tenant than Floating IP "
            f"{row['id']} and therefore cannot be bound."
        )
    subnet_id, address = _target(port, fixed)
    router_id = tx.execute(_ROUTER, {"of": subnet_id, "outside": row["floating_network_id"]}).scalar()
    if router_id is None:
        raise ExternalGatewayForFloatingIPNotFound(
            f"External network {row['floating_network_id']} is not reachable from subnet {subnet_id}.  Therefore, "
            f"cannot associate Port {port_id} with a Floating IP: a router needs a gateway there and a port in that "
            "subnet."
        )
    same = tx.execute(_SAME, {"port": port_id, "fixed": address, "but": row["id"]}).first()
    if same is not None:
        raise FloatingIPPortAlreadyAssociated(
            f"Cannot associate floating IP {row['address']} ({row['id']}) with port {port_id} using fixed IP "
            f"{address}, as that fixed IP already has a floating IP on external network {row['floating_network_id']}: "
            f"{same.address} ({same.id})."
        )
    touch(tx, floating_ips, row["id"], port_id=port_id, fixed_address=address, router_id=router_id, status=ACTIVE)


def _target(port: Port, fixed: str | None) -> tuple[str, str]:
    v4 = [pair for pair in port["addresses"] if ipaddress.ip_address(pair[1]).version == 4]
    if fixed is not None:
        wanted = str(ipaddress.ip_address(fixed))
        for subnet_id, address in v4:
            if address == wanted:
                return subnet_id, address
        raise BadFloatingipRequest(
            f"Bad floatingip request: Port {port['id']} does not have fixed ip {fixed}; it has "
            f"{', '.join(address for _, address in v4) or 'none of IPv4'}."
        )
    if not v4:
        raise BadFloatingipRequest(
            f"Bad floatingip request: Cannot add floating IP to port {port['id']} that has no fixed IPv4 addresses."
        )
    if len(v4) > 1:
        raise BadFloatingipRequest(
            f"Bad floatingip request: Port {port['id']} has multiple fixed IPv4 addresses.  Must provide a specific "
            "IPv4 address when assigning a floating IP."
        )
    return v4[0]


def update(
    tx: Tx, floating_id: str, changes: dict[str, Any], port: tuple[str | None, str | None] | None, scope: str | None
) -> FloatingIpRow:
    """`port`: the port and its address to which it leads from now on; (None, None): nowhere; None: as it was."""
    row = get(tx, floating_id, scope)
    if port is not None and port[0] is None:
        changes |= {"port_id": None, "fixed_address": None, "router_id": None, "status": DOWN}
    if port is None or port[0] is None or changes:
        touch(tx, floating_ips, floating_id, **changes)
    if port is not None and port[0] is not None:
        associate(tx, row, port[0], port[1], scope)
    return get(tx, floating_id)


def remove(tx: Tx, floating_id: str, scope: str | None) -> None:
    row = get(tx, floating_id, scope)
    tx.execute(delete(floating_ips).where(c.id == floating_id))
    ports.remove(tx, row["floating_port_id"])
    changed(tx, floating_ips, floating_id)
