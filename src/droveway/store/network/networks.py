"""Networks: who sees them, what they are made of, what keeps one from going."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, delete, false, insert, or_, select, true

from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import (
    FlatNetworkInUse,
    InvalidInput,
    NetworkInUse,
    NetworkNotFound,
    NoNetworkAvailable,
    VlanIdInUse,
)
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import finding, quotas, rbac
from droveway.store.network.changes import changed, touch
from droveway.store.network.finding import Asked
from droveway.store.network.rows import Network, NetworkRow
from droveway.store.network.tables import networks, port_addresses, port_groups, ports, routers, subnets
from droveway.store.work.counters import next_number

VNI_MAX = (1 << 24) - 1
VNI_TRIES = 1000  # numbers that administrators have given away, one after the other
DHCP_OWNER = "network:dhcp"
SHOWN = 5  # ids in a refusal
_GET = Prepared(select(networks).where(networks.c.id == bindparam("of")))
_INSERT = Prepared(insert(networks))
_VNI = Prepared(select(networks.c.id).where(networks.c.vni == bindparam("number")))
_FLAT = networks.c.physical_network.is_not(None)
_PHYSICAL = Prepared(select(networks.c.id).where(networks.c.physical_network == bindparam("called")))
_SUBNETS = select(subnets.c.network_id, subnets.c.id).order_by(subnets.c.created_at_us, subnets.c.id)
_SUBNETS_OF = Prepared(_SUBNETS.where(in_list(subnets.c.network_id, "ids")))
_USERS = select(ports.c.id, ports.c.device_owner).where(
    ports.c.network_id == bindparam("of"), ports.c.device_owner != DHCP_OWNER
)
_GATEWAYS = Prepared(select(routers.c.id).where(routers.c.external_network_id == bindparam("of")))


class NewNetwork(msgspec.Struct, frozen=True):
    """`physical_network`: it is flat, there; otherwise VXLAN with that `vni`, or one that is free."""

    project_id: str
    mtu_bytes: int
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    admin_state_up: bool = True
    shared: bool = False
    external: bool = False
    is_default: bool = False
    port_security: bool = True
    physical_network: str | None = None
    vni: int | None = None


def visible(scope: str | None) -> list[ColumnElement[bool]]:
    """Whose networks that project sees: its own, shared and external ones."""
    if scope is None:
        return []
    open_to_all = (networks.c.shared.is_(True), networks.c.external.is_(True))
    return [or_(networks.c.project_id == scope, *open_to_all, rbac.granted_to(scope))]


def create(tx: Tx, new: NewNetwork, configured: NetworkQuotas) -> Network:
    quotas.claim(tx, "network", new.project_id, configured)
    network_id = tx.names.uuid()
    vni = None
    if new.physical_network is None:
        vni = _free_vni(tx) if new.vni is None else new.vni
        if new.vni is not None and tx.execute(_VNI, {"number": vni}).first() is not None:
            raise VlanIdInUse(f"Unable to create the network. The VXLAN number {vni} is in use.")
    elif (held := tx.execute(_PHYSICAL, {"called": new.physical_network}).first()) is not None:
        raise FlatNetworkInUse(
            f"Unable to create the flat network. Physical network {new.physical_network} is in use: network {held.id} "
            "is there."
        )
    row = NetworkRow(
        id=network_id,
        project_id=new.project_id,
        name=new.name,
        description=new.description,
        tags=list(new.tags),
        revision=1,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
        admin_state_up=new.admin_state_up,
        shared=new.shared,
        external=new.external,
        is_default=new.is_default,
        port_security=new.port_security,
        vni=vni,
        physical_network=new.physical_network,
        mtu_bytes=new.mtu_bytes,
    )
    tx.execute(_INSERT, dict(row))
    rbac.for_all(tx, row, {})
    changed(tx, networks, row["id"])
    return Network(**row, subnets=[])


def _free_vni(tx: Tx) -> int:
    for _ in range(VNI_TRIES):
        vni = next_number(tx, "vni")
        if vni > VNI_MAX:
            break
        if tx.execute(_VNI, {"number": vni}).first() is None:
            return vni
    raise NoNetworkAvailable("Unable to create the network. No tenant network is available for allocation.")


def row_of(tx: Tx, network_id: str, scope: str | None = None) -> NetworkRow:
    """That network, if that project sees it, and as it stands for that project. Raises NetworkNotFound."""
    row = results.first(NetworkRow, tx.execute(_GET, {"of": network_id}))
    if row is not None and scope not in (None, row["project_id"]):
        _seen_by(tx, [row], scope)
    if row is None or not (scope is None or row["project_id"] == scope or row["shared"] or row["external"]):
        raise NetworkNotFound(f"Network {network_id[:64]} could not be found.")
    return row


def _seen_by(tx: Tx, rows: Sequence[NetworkRow], project_id: str | None) -> None:
    """What a policy lets that project do stands in its rows as what all may do does."""
    others = [row for row in rows if project_id not in (None, row["project_id"])]
    if not others or project_id is None:
        return
    granted = rbac.grants(tx, [row["id"] for row in others], project_id)
    for row in others:
        row["shared"] = row["shared"] or "shared" in granted.get(row["id"], ())
        row["external"] = row["external"] or "external" in granted.get(row["id"], ())


def get(tx: Tx, network_id: str, scope: str | None = None) -> Network:
    return with_subnets(tx, [row_of(tx, network_id, scope)])[0]


def find(tx: Tx, asked: Asked) -> list[Network]:
    conditions = visible(asked.scope)
    if "status" in asked.others:
        conditions.append(true() if "ACTIVE" in asked.others["status"] else false())  # they are all
    for kind in asked.others.get("network_type", ())[-1:]:
        conditions.append(networks.c.vni.is_not(None) if kind == "vxlan" else _FLAT if kind == "flat" else false())
    rows = finding.rows(tx, NetworkRow, networks, asked, *conditions, what="Network")
    _seen_by(tx, rows, asked.scope)
    return with_subnets(tx, rows)


def with_subnets(tx: Tx, rows: Iterable[NetworkRow]) -> list[Network]:
    found = {row["id"]: Network(**row, subnets=[]) for row in rows}
    for row in tx.execute(_SUBNETS_OF, {"ids": list(found)}):
        found[row.network_id]["subnets"].append(row.id)
    return list(found.values())


def update(tx: Tx, network_id: str, changes: dict[str, Any]) -> Network:
    if "external" in changes and not changes["external"] and tx.execute(_GATEWAYS, {"of": network_id}).first():
        raise NetworkInUse(
            f"Unable to complete operation on network {network_id}: a router has its gateway "
            "there, so it stays external."
        )
    if changes.get("shared") is False:
        _check_unshared(tx, network_id)
    before = row_of(tx, network_id)
    touch(tx, networks, network_id, **changes)
    changed_one = get(tx, network_id)
    rbac.for_all(tx, changed_one, before)
    return changed_one


def _check_unshared(tx: Tx, network_id: str) -> None:
    """Nobody else uses it. Raises InvalidInput."""
    owner = row_of(tx, network_id)["project_id"]
    others = select(ports.c.id).where(
        ports.c.network_id == network_id, ports.c.project_id.not_in(["", owner]), ports.c.device_owner != DHCP_OWNER
    )
    others = others.where(ports.c.project_id.not_in(rbac.targets(network_id, rbac.SHARED)))
    found = tx.execute(others.limit(1)).first()
    if found is not None:
        raise InvalidInput(
            f"Unable to reconfigure sharing settings for network {network_id}. Multiple tenants are using it: port "
            f"{found.id} is of another project."
        )


def remove(tx: Tx, network_id: str) -> None:
    """With its subnets and its DHCP port. Raises NetworkInUse, which names ports that are there."""
    used = list(tx.execute(_USERS.limit(SHOWN), {"of": network_id}))
    if used:
        shown = ", ".join(f"{row.id} ({row.device_owner or 'no device'})" for row in used)
        raise NetworkInUse(
            f"Unable to complete operation on network {network_id}. There are one or more ports still in use on the "
            f"network: {shown}; delete them first."
        )
    own = select(ports.c.id).where(ports.c.network_id == network_id)
    changed(tx, ports, *tx.execute(own).scalars())
    tx.execute(delete(port_addresses).where(port_addresses.c.port_id.in_(own)))
    tx.execute(delete(port_groups).where(port_groups.c.port_id.in_(own)))
    tx.execute(delete(ports).where(ports.c.network_id == network_id))
    tx.execute(delete(subnets).where(subnets.c.network_id == network_id))
    rbac.forget(tx, network_id)
    tx.execute(delete(networks).where(networks.c.id == network_id))
    changed(tx, networks, network_id)
