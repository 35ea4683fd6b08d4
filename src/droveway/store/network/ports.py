"""Ports: made with their addresses and groups in one transaction, so that there is never one with half of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, delete, insert, or_, select

from droveway.domain.network.addresses import mac_of
from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import MacAddressInUse, PortNotFound, ServicePortInUse
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import addressing, finding, groups, quotas
from droveway.store.network.addressing import AddressRequest
from droveway.store.network.changes import changed, touch
from droveway.store.network.finding import Asked
from droveway.store.network.rows import NetworkRow, Port, PortRow
from droveway.store.network.tables import floating_ips, networks, port_addresses, port_groups, ports

DOWN, BUILD, ACTIVE = "DOWN", "BUILD", "ACTIVE"
SERVICE_OWNER = "network:"  # what owners begin with that are no guests
WITH_THEIR_OWN_WAY_OUT = ("network:dhcp", "network:router_interface", "network:router_gateway", "network:floatingip")
MAC_TRIES = 16
_OF_ANY_PORT = {"name", "description"}  # that is no guest's
c = ports.c
_GET = Prepared(select(ports).where(c.id == bindparam("of")))
_INSERT, _INSERT_GROUPS = Prepared(insert(ports)), Prepared(insert(port_groups))
_MAC = Prepared(select(c.id).where(c.network_id == bindparam("of"), c.mac == bindparam("called")))
_ADDRESSES = select(port_addresses.c.port_id, port_addresses.c.subnet_id, port_addresses.c.address).order_by(
    port_addresses.c.port_id, port_addresses.c.place
)
_ADDRESSES_OF = Prepared(_ADDRESSES.where(in_list(port_addresses.c.port_id, "ids")))
_GROUPS = select(port_groups.c.port_id, port_groups.c.group_id).order_by(port_groups.c.port_id, port_groups.c.group_id)
_GROUPS_OF = Prepared(_GROUPS.where(in_list(port_groups.c.port_id, "ids")))
_FORGET_GROUPS = Prepared(delete(port_groups).where(port_groups.c.port_id == bindparam("of")))
_DELETE = Prepared(delete(ports).where(c.id == bindparam("of")))
_OF_DEVICE = Prepared(select(ports).where(c.device_id == bindparam("of")).order_by(c.created_at_us, c.id))
_FLOATING = Prepared(select(floating_ips.c.id).where(floating_ips.c.port_id == bindparam("of")))
_NETWORKS_OF = select(networks.c.id).where(networks.c.project_id == bindparam("scope"))


class NewPort(msgspec.Struct, frozen=True):
    """`fixed_ips`, `groups` and `port_security`: None for what is usual on that network."""

    project_id: str
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    mac: str | None = None
    fixed_ips: tuple[AddressRequest, ...] | None = None
    admin_state_up: bool = True
    device_id: str = ""
    device_owner: str = ""
    host: str = ""
    status: str = DOWN
    profile: Mapping[str, Any] = {}
    vnic_type: str = "normal"
    port_security: bool | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] | None = None
    id: str = ""  # where it was chosen before


def create(tx: Tx, network: NetworkRow, new: NewPort, configured: NetworkQuotas | None) -> Port:
    """Everything was checked but what the rows say. `configured`: None for a port that no quota counts against. Raises
    what is in the way."""
    if configured is not None:
        quotas.claim(tx, "port", new.project_id, configured)
    port_id, network_id = new.id or tx.names.uuid(), network["id"]
    mac = _mac(tx, network_id, new.mac)
    chosen = addressing.choose(tx, network_id, new.fixed_ips, mac, new.device_owner)
    has_security = network["port_security"] if new.port_security is None else new.port_security
    in_groups = list(new.groups or ())
    if new.groups is None and has_security and new.project_id and not new.device_owner.startswith(SERVICE_OWNER):
        in_groups = [groups.default_of(tx, new.project_id)]
    row = PortRow(
        id=port_id,
        project_id=new.project_id,
        name=new.name,
        description=new.description,
        tags=list(new.tags),
        revision=1,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
        network_id=network_id,
        mac=mac,
        admin_state_up=new.admin_state_up,
        status=new.status,
        device_id=new.device_id,
        device_owner=new.device_owner,
        host=new.host,
        moving_to="",
        profile=dict(new.profile),
        vnic_type=new.vnic_type,
        port_security=has_security,
        pairs=[list(pair) for pair in new.pairs],
    )
    tx.execute(_INSERT, dict(row))
    addressing.claim(tx, port_id, chosen)
    _join(tx, port_id, in_groups)
    changed(tx, ports, port_id)
    return Port(**row, addresses=[(one.subnet_id, one.address) for one in chosen], groups=sorted(in_groups))


def _mac(tx: Tx, network_id: str, wanted: str | None) -> str:
    for _ in range(MAC_TRIES):
        mac = wanted or mac_of(tx.names.uuid())
        holder = tx.execute(_MAC, {"of": network_id, "called": mac}).scalar()
        if holder is None:
            return mac
        if wanted is not None:
            break
    raise MacAddressInUse(
        f"Unable to complete operation for network {network_id}. The mac address {mac} is in use: port {holder} has it."
    )


def _join(tx: Tx, port_id: str, group_ids: Sequence[str]) -> None:
    if group_ids:
        tx.execute(_INSERT_GROUPS, [{"port_id": port_id, "group_id": one} for one in sorted(set(group_ids))])


# -- reading ----------------------------------------------------------------------------------------------------------
def visible(scope: str | None) -> list[ColumnElement[bool]]:
    """A project sees its own ports, and those on its networks."""
    if scope is None:
        return []
    mine = select(networks.c.id).where(networks.c.project_id == scope)
    return [or_(c.project_id == scope, c.network_id.in_(mine))]


def row_of(tx: Tx, port_id: str, scope: str | None = None) -> PortRow:
    row = results.first(PortRow, tx.execute(_GET, {"of": port_id}))
    if row is not None and scope not in (None, row["project_id"]):
        owned = tx.execute(_NETWORKS_OF.where(networks.c.id == row["network_id"]), {"scope": scope}).first()
        row = None if owned is None else row
    if row is None:
        raise PortNotFound(f"Port {port_id[:64]} could not be found.")
    return row


def get(tx: Tx, port_id: str, scope: str | None = None) -> Port:
    return whole(tx, [row_of(tx, port_id, scope)])[0]


def of_device(tx: Tx, device_id: str) -> list[Port]:
    """In the order in which they were made."""
    return whole(tx, results.every(PortRow, tx.execute(_OF_DEVICE, {"of": device_id})))


def find(tx: Tx, asked: Asked) -> list[Port]:
    return [port for some in find_in_parts(tx, asked) for port in some]


def find_in_parts(tx: Tx, asked: Asked) -> Iterator[list[Port]]:
    """A network may have thousands."""
    conditions = [*visible(asked.scope), *_by_address(asked.others)]
    for rows in finding.in_parts(tx, PortRow, ports, asked, *conditions, what="Port"):
        yield whole(tx, rows)


def _by_address(others: Mapping[str, Sequence[str]]) -> list[ColumnElement[bool]]:
    """Of ports with one of those groups; with one of those addresses, and in one of those subnets."""
    found: list[ColumnElement[bool]] = []
    if "security_groups" in others:
        in_one = select(port_groups.c.port_id).where(in_list(port_groups.c.group_id, others["security_groups"]))
        found.append(c.id.in_(in_one))
    a = port_addresses.c
    held = [
        in_list(column, others[name])
        for name, column in (("subnet_id", a.subnet_id), ("ip_address", a.address))
        if name in others
    ]
    if "ip_address_substr" in others:
        held.append(or_(*(a.address.contains(part, autoescape=True) for part in others["ip_address_substr"])))
    if held:
        found.append(c.id.in_(select(a.port_id).where(*held)))
    return found


def whole(tx: Tx, rows: Iterable[PortRow]) -> list[Port]:
    """With their addresses and groups."""
    found: dict[str, Port] = {}
    for row in rows:
        port: Any = row
        port["addresses"], port["groups"] = [], []
        found[row["id"]] = port
    ids = {"ids": list(found)}
    for port_id, *held in tx.execute(_ADDRESSES_OF, ids).tuples():
        found[port_id]["addresses"].append(tuple(held))
    for port_id, group_id in tx.execute(_GROUPS_OF, ids).tuples():
        found[port_id]["groups"].append(group_id)
    return list(found.values())


# -- changing ---------------------------------------------------------------------------------------------------------
def update(
    tx: Tx,
    row: PortRow,
    changes: dict[str, Any],
    fixed_ips: Sequence[AddressRequest] | None = None,
    group_ids: Sequence[str] | None = None,
) -> Port:
    """`fixed_ips`, `group_ids`: what it has from now on; None: what it had."""
    port_id, network_id = row["id"], row["network_id"]
    if changes.get("mac", row["mac"]) != row["mac"]:
        _mac(tx, network_id, changes["mac"])
    if fixed_ips is not None:
        owner, mac = changes.get("device_owner", row["device_owner"]), changes.get("mac", row["mac"])
        chosen = addressing.choose(tx, network_id, fixed_ips, mac, owner, port_id)
        addressing.release(tx, port_id)
        addressing.claim(tx, port_id, chosen)
    if group_ids is not None:
        tx.execute(_FORGET_GROUPS, {"of": port_id})
        _join(tx, port_id, group_ids)
    touch(tx, ports, port_id, **changes)
    return get(tx, port_id)


def check_changeable(row: PortRow, names: Iterable[str]) -> None:
    """What a router, DHCP or a floating IP has is told by these. Raises ServicePortInUse."""
    refused = sorted(set(names) - _OF_ANY_PORT)
    if refused and row["device_owner"] in WITH_THEIR_OWN_WAY_OUT:
        raise ServicePortInUse(
            f"Port {row['id']} cannot be changed in {', '.join(refused)} via the port API: has device owner "
            f"{row['device_owner']} (of {row['device_id'] or 'no device'})."
        )


def check_removable(row: PortRow) -> None:
    """Raises ServicePortInUse for one that goes with what it belongs to."""
    if row["device_owner"] in WITH_THEIR_OWN_WAY_OUT:
        raise ServicePortInUse(
            f"Port {row['id']} cannot be deleted directly via the port API: has device owner {row['device_owner']} "
            f"(of {row['device_id'] or 'no device'})."
        )


def remove(tx: Tx, port_id: str) -> None:
    """With its addresses; floating IPs that led to it lead nowhere."""
    for floating_id in list(tx.execute(_FLOATING, {"of": port_id}).scalars()):
        touch(tx, floating_ips, floating_id, port_id=None, fixed_address=None, router_id=None, status=DOWN)
    addressing.release(tx, port_id)
    tx.execute(_FORGET_GROUPS, {"of": port_id})
    tx.execute(_DELETE, {"of": port_id})
    changed(tx, ports, port_id)
