"""The ports of servers: which it asked for, which it has, and where they are bound. A port that its owner has deleted
meanwhile is an interface no longer, and nothing here asks for it.

Its owner gave a port, or it was made for the server; only what was made is deleted with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select

from droveway.domain.faults import Conflict, StepFailed
from droveway.domain.guest_data import GuestNic
from droveway.domain.model import Nic
from droveway.domain.network.quota import NetworkQuotas
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import bindings, changes, in_force, networks, planning, ports
from droveway.store.network.addressing import AddressRequest
from droveway.store.network.ports import ACTIVE, DOWN, NewPort
from droveway.store.network.rows import Port
from droveway.store.network.tables import floating_ips, port_addresses, port_groups, security_groups
from droveway.store.network.tables import networks as network_table
from droveway.store.network.tables import ports as port_table
from droveway.store.rows import InstanceRow
from droveway.store.schema import server_ports

OWNER = "compute:"  # and the zone: what a port of a server says of its owner
_OF = Prepared(
    select(server_ports.c.port_id, server_ports.c.tag, server_ports.c.is_made)
    .where(server_ports.c.instance_id == bindparam("of"))
    .order_by(server_ports.c.place)
)
_OWNER = Prepared(select(server_ports.c.instance_id).where(server_ports.c.port_id == bindparam("of")))
_NEXT = Prepared(select(func.max(server_ports.c.place) + 1).where(server_ports.c.instance_id == bindparam("of")))
_FORGET = Prepared(
    delete(server_ports).where(
        server_ports.c.instance_id == bindparam("of"), server_ports.c.port_id == bindparam("of_port")
    )
)
_INSERT = Prepared(insert(server_ports))
_FORGET_ALL = Prepared(delete(server_ports).where(server_ports.c.instance_id == bindparam("of")))
_ANY = Prepared(select(server_ports.c.port_id).where(server_ports.c.instance_id == bindparam("of")).limit(1))
_KINDS = Prepared(
    select(network_table.c.vni, network_table.c.physical_network)
    .join_from(server_ports, port_table, port_table.c.id == server_ports.c.port_id)
    .join(network_table, network_table.c.id == port_table.c.network_id)
    .where(server_ports.c.instance_id == bindparam("of"))
)
_ADDRESSES = Prepared(
    select(
        server_ports.c.instance_id,
        network_table.c.name,
        port_table.c.id,
        port_table.c.mac,
        port_addresses.c.address,
    )
    .join_from(server_ports, port_table, port_table.c.id == server_ports.c.port_id)
    .join(network_table, network_table.c.id == port_table.c.network_id)
    .join(port_addresses, port_addresses.c.port_id == port_table.c.id)
    .where(in_list(server_ports.c.instance_id, "ids"))
    .order_by(server_ports.c.instance_id, server_ports.c.place, port_addresses.c.place)
)
_FLOATING = Prepared(
    select(floating_ips.c.port_id, floating_ips.c.fixed_address, floating_ips.c.address)
    .join(server_ports, server_ports.c.port_id == floating_ips.c.port_id)
    .where(in_list(server_ports.c.instance_id, "ids"))
    .order_by(floating_ips.c.created_at_us, floating_ips.c.id)
)
_GROUPS = Prepared(
    select(server_ports.c.instance_id, security_groups.c.name)
    .join_from(server_ports, port_groups, port_groups.c.port_id == server_ports.c.port_id)
    .join(security_groups, security_groups.c.id == port_groups.c.group_id)
    .where(in_list(server_ports.c.instance_id, "ids"))
    .distinct()
    .order_by(server_ports.c.instance_id, security_groups.c.name)
)


_THERE = Prepared(
    select(port_table.c.id, port_table.c.network_id, port_table.c.mac, network_table.c.mtu_bytes)
    .join_from(server_ports, port_table, port_table.c.id == server_ports.c.port_id)
    .join(network_table, network_table.c.id == port_table.c.network_id)
    .where(server_ports.c.instance_id == bindparam("of"), port_table.c.device_id == bindparam("of"))
    .order_by(server_ports.c.place)
)


class NicRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One interface as it was asked for: a port, or a network and perhaps an address there; of the port that is made
    then, `made_id` is the id, where it was chosen before."""

    port_id: str = ""
    network_id: str = ""
    address: str = ""
    tag: str | None = None
    made_id: str = ""


class ServerPort(NamedTuple):
    port: Port
    tag: str | None
    is_made: bool  # for the server


class Address(NamedTuple):
    """One that leads to a server. `floating`: it leads to a fixed one."""

    network: str
    mac: str
    address: str
    floating: bool


def has_any(tx: Tx, instance_id: str) -> bool:
    return tx.execute(_ANY, {"of": instance_id}).first() is not None


def of(tx: Tx, instance_id: str) -> list[ServerPort]:
    """In the order in which the guest sees them."""
    kept = {row.port_id: row for row in tx.execute(_OF, {"of": instance_id})}
    found = {port["id"]: port for port in ports.of_device(tx, instance_id)} if kept else {}
    return [ServerPort(found[each], row.tag, row.is_made) for each, row in kept.items() if each in found]


def owner_of(tx: Tx, port_id: str) -> str | None:
    """The server whose interface it is."""
    found: str | None = tx.execute(_OWNER, {"of": port_id}).scalar()
    return found


def carriers(tx: Tx, instance_id: str) -> dict[str, tuple[str, ...]]:
    """What its networks need of a host, each with the hosts that have it."""
    kinds = [(row.vni, row.physical_network) for row in tx.execute(_KINDS, {"of": instance_id})]
    physical = {name for _, name in kinds if name is not None}
    return in_force.carriers(tx, physical, has_vxlan=any(vni is not None for vni, _ in kinds))


def nics(tx: Tx, instance_id: str) -> tuple[Nic, ...]:
    """As a host plugs them."""
    return tuple(Nic(*row) for row in tx.execute(_THERE, {"of": instance_id}))


def _ids(tx: Tx, instance_id: str) -> list[str]:
    return [row.id for row in tx.execute(_THERE, {"of": instance_id})]


# -- what sagas write -------------------------------------------------------------------------------------------------
def create(
    tx: Tx, instance: InstanceRow, wanted: Sequence[NicRequest], groups: Sequence[str], configured: NetworkQuotas
) -> None:
    """Make them, and take those that were given. Raises what is in the way."""
    owner = OWNER + (instance["zone"] or "nova")
    rows = []
    first = tx.execute(_NEXT, {"of": instance["id"]}).scalar() or 0
    for place, one in enumerate(wanted, first):
        if one.port_id:
            _take(tx, one.port_id, instance, owner)
            port_id = one.port_id
        else:
            new = NewPort(
                instance["project_id"],
                fixed_ips=(AddressRequest(address=one.address),) if one.address else None,
                device_id=instance["id"],
                device_owner=owner,
                groups=tuple(groups) or None,
                id=one.made_id,
            )
            port_id = ports.create(tx, networks.row_of(tx, one.network_id), new, configured)["id"]
        rows.append(
            {
                "instance_id": instance["id"],
                "port_id": port_id,
                "place": place,
                "tag": one.tag,
                "is_made": not one.port_id,
            }
        )
    if rows:
        tx.execute(_INSERT, rows)


def check_free(port: Mapping[str, Any], instance_id: str = "") -> None:
    """Raises Conflict when the port is some server's, or a router's."""
    if port["device_id"] not in ("", instance_id):
        raise Conflict(f"Port {port['id']} is still in use: {port['device_id']} has it.")


def _take(tx: Tx, port_id: str, instance: InstanceRow, owner: str) -> None:
    check_free(ports.row_of(tx, port_id), instance["id"])
    changes.touch(tx, port_table, port_id, device_id=instance["id"], device_owner=owner, host="", moving_to="")


def release(tx: Tx, instance_id: str) -> None:
    """What was made is deleted, what was given belongs to no server."""
    if not has_any(tx, instance_id):
        return
    for one in of(tx, instance_id):
        _let_go(tx, one)
    tx.execute(_FORGET_ALL, {"of": instance_id})


def _let_go(tx: Tx, one: ServerPort) -> None:
    if one.is_made:
        ports.remove(tx, one.port["id"])
        return
    nobodys = {"device_id": "", "device_owner": "", "host": "", "moving_to": "", "status": DOWN}
    changes.touch(tx, port_table, one.port["id"], **nobodys)


def release_one(tx: Tx, instance_id: str, port_id: str) -> None:
    """The same with one of them, if it is still there."""
    for one in of(tx, instance_id):
        if one.port["id"] == port_id:
            _let_go(tx, one)
    tx.execute(_FORGET, {"of": instance_id, "of_port": port_id})


def bind_one(tx: Tx, port_id: str, host: str) -> int:
    """To the host where its guest is. The revision of networks that has it. Raises StepFailed."""
    if not bindings.bind(tx, port_id, host):
        raise StepFailed(f"port {port_id} is gone, or bound to another host than {host}")
    return changes.revision(tx)


def bind(tx: Tx, instance_id: str, host: str) -> int:
    """To the host where its guest will be. The revision of networks that has it. Raises StepFailed."""
    for port_id in _ids(tx, instance_id):
        if not bindings.bind(tx, port_id, host):
            raise StepFailed(f"port {port_id} is bound to another host than {host}")
    return changes.revision(tx)


def unbind(tx: Tx, instance_id: str, host: str) -> None:
    for port_id in _ids(tx, instance_id):
        bindings.unbind(tx, port_id, host)


def set_status(tx: Tx, instance_id: str, *, is_running: bool) -> None:
    """As the guest is: a port of one that does not run is down."""
    for port_id in _ids(tx, instance_id):
        bindings.set_status(tx, port_id, None, ACTIVE if is_running else DOWN)


def move(tx: Tx, instance_id: str, source: str, to: str) -> int:
    """Its guest is about to leave: bound to both. The revision that has it. Raises StepFailed."""
    for port_id in _ids(tx, instance_id):
        if not bindings.move(tx, port_id, source, to):
            raise StepFailed(f"port {port_id} is not bound to {source}, where its guest is")
    return changes.revision(tx)


def arrived(tx: Tx, instance_id: str, at: str) -> None:
    for port_id in _ids(tx, instance_id):
        bindings.arrived(tx, port_id, at)


def stayed(tx: Tx, instance_id: str, at: str) -> None:
    for port_id in _ids(tx, instance_id):
        bindings.stayed(tx, port_id, at)


def why_not_in_force(tx: Tx, host: str, revision: int, plugged: Iterable[Nic]) -> str | None:
    """Whether that host has put them in force: an empty text, it has; None, not yet; else why it cannot."""
    found = [in_force.why_not(tx, host, revision, nic.port_id, nic.network_id) for nic in plugged]
    return next((why for why in found if why), None if None in found else "")


# -- what is shown ----------------------------------------------------------------------------------------------------
def addresses(tx: Tx, ids: Iterable[str]) -> dict[str, list[Address]]:
    """Of each server that has any, the fixed ones in the order of its interfaces, each before what leads to it."""
    wanted = {"ids": list(ids)}
    fixed_ones = list(tx.execute(_ADDRESSES, wanted).tuples())
    floating: dict[tuple[str, str | None], list[str]] = {}
    for port_id, fixed, address in tx.execute(_FLOATING, wanted) if fixed_ones else ():
        floating.setdefault((port_id, fixed), []).append(address)
    found: dict[str, list[Address]] = {}
    for instance_id, network, port_id, mac, address in fixed_ones:
        there = found.setdefault(instance_id, [])
        there.append(Address(network, mac, address, floating=False))
        there += [Address(network, mac, one, floating=True) for one in floating.get((port_id, address), ())]
    return found


def group_names(tx: Tx, ids: Iterable[str]) -> dict[str, list[str]]:
    """The security groups of each server's ports, each once."""
    found: dict[str, list[str]] = {}
    for instance_id, name in tx.execute(_GROUPS, {"ids": list(ids)}).tuples():
        found.setdefault(instance_id, []).append(name)
    return found


def told_of(tx: Tx, instance_id: str) -> tuple[GuestNic, ...]:
    """Its interfaces as its guest is told of them."""
    tags = {one.port["id"]: one.tag or "" for one in of(tx, instance_id)} if has_any(tx, instance_id) else {}
    if not tags:
        return ()
    known = {port.id: (port, network) for port, network in planning.of_instance(tx, instance_id)}
    return tuple(GuestNic(*known[port_id], tag) for port_id, tag in tags.items() if port_id in known)
