"""What of its plan of networks is in force on each host, as its network agent answered; and what the host has for them.

A saga that needs a port waits for the revision of its own change there: `why_not`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from droveway.domain.network_plan import NotInForce
from droveway.domain.resources import storable
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import changes
from droveway.store.network.tables import host_networks
from droveway.store.schema import counters

FAILED_MAX = 1000  # things kept of one host
REASON_MAX = 500

_ALL = Prepared(select(host_networks))
_OF = Prepared(select(host_networks).where(host_networks.c.host == bindparam("of")))
_INSERT = Prepared(insert(host_networks))
_TUNNELS = Prepared(
    select(host_networks.c.host, host_networks.c.tunnel_address).where(host_networks.c.tunnel_address != "")
)
_PHYSICAL = Prepared(select(host_networks.c.host, host_networks.c.physical_networks))
_NAMES = ("tunnel_address", "physical_networks", "revision", "failed", "applied_at_us")
_SET = Prepared(
    update(host_networks)
    .where(host_networks.c.host == bindparam("of"))
    .values({name: bindparam(f"new_{name}", type_=host_networks.c[name].type) for name in _NAMES})
)
_RAISE = Prepared(
    update(host_networks)
    .where(in_list(host_networks.c.host, "hosts"), host_networks.c.revision < bindparam("new_revision"))
    .values(revision=bindparam("new_revision"), applied_at_us=bindparam("now_us"))
)
_LIFT = Prepared(
    update(counters)
    .where(counters.c.name == bindparam("of"), counters.c.value < bindparam("least"))
    .values(value=bindparam("least"))
)


class InForce(TypedDict):
    """`revision`: -1 where nothing is in force yet. `failed`: kind, id and reason of each thing that is not."""

    host: str
    tunnel_address: str
    physical_networks: list[str]
    revision: int
    failed: list[dict[str, str]]
    applied_at_us: int


def topic(host: str) -> str:
    """The nudge: what is in force there may be another revision."""
    return f"networks in force:{host}"


def every(tx: Tx) -> dict[str, InForce]:
    return {row.host: _row(row) for row in tx.execute(_ALL)}


def of(tx: Tx, host: str) -> InForce | None:
    row = tx.execute(_OF, {"of": host}).first()
    return None if row is None else _row(row)


def _row(row: Any) -> InForce:
    return InForce(
        host=row.host,
        tunnel_address=row.tunnel_address,
        physical_networks=row.physical_networks,
        revision=row.revision,
        failed=row.failed,
        applied_at_us=row.applied_at_us,
    )


def tunnel_addresses(tx: Tx) -> dict[str, str]:
    """Of the hosts that have one."""
    return {row.host: row.tunnel_address for row in tx.execute(_TUNNELS)}


def carriers(tx: Tx, physical: Iterable[str], *, has_vxlan: bool) -> dict[str, tuple[str, ...]]:
    """What networks need of a host, each with the hosts that have it."""
    names = sorted(physical)
    rows = list(tx.execute(_PHYSICAL)) if names else []
    found = {
        f"physical network {name}": tuple(sorted(row.host for row in rows if name in row.physical_networks))
        for name in names
    }
    if has_vxlan:
        found["tunnel_address"] = tuple(sorted(tunnel_addresses(tx)))
    return found


def record(
    tx: Tx, host: str, revision: int, failed: Sequence[NotInForce], tunnel_address: str, physical: Sequence[str]
) -> None:
    """As its agent answered. A tunnel address that is new concerns every host."""
    before = of(tx, host)
    kept = [NotInForce(one.kind, one.id, storable(one.reason)[:REASON_MAX]) for one in failed[:FAILED_MAX]]
    values = {
        "tunnel_address": tunnel_address,
        "physical_networks": sorted(physical),
        "revision": revision,
        "failed": msgspec.to_builtins(kept),
        "applied_at_us": tx.now_us,
    }
    if before is None:
        tx.execute(_INSERT, {"host": host, **values})
    else:
        tx.execute(_SET, {"of": host, **{f"new_{name}": value for name, value in values.items()}})
    if (before["tunnel_address"] if before else "") != tunnel_address:
        changes.changed(tx, host_networks, host)
    if before is None or before["physical_networks"] != values["physical_networks"]:
        changes.look_at_routers(tx)
    tx.nudges.append(topic(host))


def raise_to(tx: Tx, hosts: Iterable[str], revision: int) -> None:
    """What these hosts have is what that revision says too: it changed nothing of theirs."""
    names = sorted(hosts)
    if names:
        tx.execute(_RAISE, {"hosts": names, "new_revision": revision, "now_us": tx.now_us})
        tx.nudges += [topic(host) for host in names]


def lift(tx: Tx, least: int) -> None:
    """A host has seen a higher revision than this database knows of, which was restored from a backup: it is above that
    from now on."""
    changes.changed(tx)
    tx.execute(_LIFT, {"of": changes.COUNTER, "least": least + 1})


def forget(tx: Tx, host: str) -> None:
    if tx.execute(delete(host_networks).where(host_networks.c.host == host)).rowcount:
        changes.changed(tx, host_networks, host)
        changes.look_at_routers(tx)


def why_not(tx: Tx, host: str, revision: int, port_id: str, network_id: str) -> str | None:
    """Whether that port is in force there: an empty text, it is; None, it is not told yet; else why it cannot be."""
    row = of(tx, host)
    if row is None or row["revision"] < revision:
        return None
    return reason_of(row["failed"], port_id, network_id)


def reason_of(failed: Iterable[Mapping[str, str]], port_id: str, network_id: str) -> str:
    things = {("port", port_id), ("network", network_id)}
    return next(
        (f"{one['kind']} {one['id']}: {one['reason']}" for one in failed if (one["kind"], one["id"]) in things), ""
    )
