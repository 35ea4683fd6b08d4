"""What has changed of all that plans of hosts are made of, for a control that keeps the rest
(domain/network/picture.py).

The first look reads everything, in a dozen statements; each one after it those rows alone that were written down as
changed (store/network/changes.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, func, select

from droveway.domain.network.picture import FloatingFact, GroupFact, KnownPort, News
from droveway.domain.network.plan import NO_INTERFACE, NetworkFact, RouterFact, SubnetFact
from droveway.domain.network.rules import RuleSpec
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import changes, in_force, planning, ports
from droveway.store.network.changes import Change
from droveway.store.network.rows import NetworkRow, PortRow, RouterRow, RuleRow, SubnetRow
from droveway.store.network.tables import (
    floating_ips,
    host_networks,
    networks,
    routers,
    security_group_rules,
    security_groups,
    subnets,
)
from droveway.store.network.tables import ports as port_table
from droveway.store.schema import instances

F = TypeVar("F")
CHANGES_MAX = 2_000  # read one by one; of more, everything is
PORTS_AT_ONCE = 1_000  # of those of a first look
p, f, g, r = port_table.c, floating_ips.c, security_groups.c, security_group_rules.c


class _Read:
    """A statement, of some rows or of all."""

    def __init__(self, statement: Select[Any], of: Any) -> None:
        self._some, self._all = Prepared(statement.where(in_list(of, "ids"))), Prepared(statement)

    def run(self, tx: Tx, ids: Iterable[str] | None) -> Any:
        return tx.execute(self._all) if ids is None else tx.execute(self._some, {"ids": sorted(ids)})


_NETWORKS = _Read(select(networks), networks.c.id)
_SUBNETS = _Read(select(subnets), subnets.c.id)
_PORTS = _Read(select(port_table), p.id)
_INTERFACES = _Read(planning.INTERFACES, p.id)
_ROUTERS = _Read(select(routers), routers.c.id)
_FLOATING = _Read(select(f.id, f.router_id, f.address, f.fixed_address).where(f.fixed_address.is_not(None)), f.id)
_GROUPS = _Read(select(g.id, g.name), g.id)
_RULES = _Read(select(security_group_rules).order_by(r.meaning), r.group_id)
_COUNT = Prepared(select(func.count()).select_from(port_table))
_IDS = Prepared(select(p.id))
_OF_DEVICES = Prepared(select(p.id).where(in_list(p.device_id, "ids")))


def look(tx: Tx, last: int, ports_max: int) -> News | None:
    """What has changed after the change of that number; -1: everything. None: there are more ports than `ports_max`."""
    found = None if last < 0 else changes.since(tx, last, CHANGES_MAX)
    if found is None or any(not one.kind for one in found):
        return _everything(tx, ports_max)
    return _some(tx, found, last)


def _everything(tx: Tx, ports_max: int) -> News | None:
    if int(tx.execute(_COUNT).scalar() or 0) > ports_max:
        return None
    ids = list(tx.execute(_IDS).scalars())
    found: dict[str, KnownPort] = {}
    for some in (ids[i : i + PORTS_AT_ONCE] for i in range(0, len(ids), PORTS_AT_ONCE)):
        found |= _ports(tx, some)
    return News(
        changes.revision(tx),
        changes.last(tx),
        True,
        _networks(tx, None),
        _subnets(tx, None),
        found,
        _routers(tx, None),
        _floating(tx, None),
        _groups(tx, None),
        in_force.tunnel_addresses(tx),
    )


def _some(tx: Tx, found: Sequence[Change], last: int) -> News:
    of: dict[str, set[str]] = {}
    for one in found:
        of.setdefault(one.kind, set()).add(one.of)
    port_ids = of.get(port_table.name, set())
    if instances.name in of:
        port_ids |= set(tx.execute(_OF_DEVICES, {"ids": sorted(of[instances.name])}).scalars())

    def known(kind: str, read: Any) -> Mapping[str, Any]:
        ids = of.get(kind, set())
        return dict.fromkeys(ids) | read(tx, ids) if ids else {}

    return News(
        changes.revision(tx),
        found[-1].number if found else last,
        False,
        known(networks.name, _networks),
        known(subnets.name, _subnets),
        dict.fromkeys(port_ids) | _ports(tx, port_ids) if port_ids else {},
        known(routers.name, _routers),
        known(floating_ips.name, _floating),
        known(security_groups.name, _groups),
        in_force.tunnel_addresses(tx) if host_networks.name in of else None,
    )


def _networks(tx: Tx, ids: Iterable[str] | None) -> dict[str, NetworkFact]:
    return {row["id"]: planning.network_fact(row) for row in results.every(NetworkRow, _NETWORKS.run(tx, ids))}


def _subnets(tx: Tx, ids: Iterable[str] | None) -> dict[str, SubnetFact]:
    return {row["id"]: planning.subnet_fact(row) for row in results.every(SubnetRow, _SUBNETS.run(tx, ids))}


def _ports(tx: Tx, ids: Iterable[str]) -> dict[str, KnownPort]:
    names = list(ids)
    interfaces = {row.port_id: planning.interface_fact(row) for row in _INTERFACES.run(tx, names)}
    return {
        row["id"]: KnownPort(planning.port_fact(row), interfaces.get(row["id"], NO_INTERFACE))
        for row in ports.whole(tx, results.every(PortRow, _PORTS.run(tx, names)))
    }


def _routers(tx: Tx, ids: Iterable[str] | None) -> dict[str, RouterFact]:
    return {row["id"]: planning.router_fact(row) for row in results.every(RouterRow, _ROUTERS.run(tx, ids))}


def _floating(tx: Tx, ids: Iterable[str] | None) -> dict[str, FloatingFact]:
    return {row.id: FloatingFact(row.router_id or "", row.address, row.fixed_address) for row in _FLOATING.run(tx, ids)}


def _groups(tx: Tx, ids: Iterable[str] | None) -> dict[str, GroupFact]:
    rules: dict[str, list[RuleSpec]] = {}
    for row in results.every(RuleRow, _RULES.run(tx, ids)):
        rules.setdefault(row["group_id"], []).append(planning.spec(row))
    return {row.id: GroupFact(row.name, tuple(rules.get(row.id, ()))) for row in _GROUPS.run(tx, ids)}
