"""Hosts and what is used on them. A host's use is summed from the instances and the migrations that hold a claim."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, and_, bindparam, func, insert, literal, select, union_all, update

from droveway.domain.faults import Conflict, NotFound
from droveway.domain.scheduling import Ask, HostView, Ratios, first_failing
from droveway.store import counters
from droveway.store.schema import hosts, instances, migrations, services
from droveway.store.transaction import Tx

COMPUTE = "nova-compute"

_held = union_all(
    select(instances.c.host.label("host"), instances.c.vcpus, instances.c.ram_mb, instances.c.disk_gb,
           literal(1).label("n")).where(instances.c.deleted.is_(False), instances.c.host.is_not(None)),
    select(migrations.c.destination.label("host"), migrations.c.vcpus, migrations.c.ram_mb, migrations.c.disk_gb,
           literal(0).label("n")).where(migrations.c.holds_claim.is_(True)),
).subquery("held")  # fmt: skip
_used = (
    select(_held.c.host, func.sum(_held.c.vcpus).label("vcpus_used"), func.sum(_held.c.ram_mb).label("ram_mb_used"),
           func.sum(_held.c.disk_gb).label("disk_gb_used"), func.sum(_held.c.n).label("running_vms"))
    .group_by(_held.c.host).subquery("used")
)  # fmt: skip
_ALL = (
    select(hosts, services.c.id.label("service_id"), services.c.uuid.label("service_uuid"), services.c.disabled,
           services.c.disabled_reason, services.c.forced_down, services.c.is_up,
           services.c.sentence.label("service_sentence"),
           func.coalesce(_used.c.vcpus_used, 0).label("vcpus_used"),
           func.coalesce(_used.c.ram_mb_used, 0).label("ram_mb_used"),
           func.coalesce(_used.c.disk_gb_used, 0).label("disk_gb_used"),
           func.coalesce(_used.c.running_vms, 0).label("running_vms"))
    .join(services, and_(services.c.host == hosts.c.name, services.c.binary == COMPUTE))
    .outerjoin(_used, _used.c.host == hosts.c.name)
    .order_by(hosts.c.id)
)  # fmt: skip

_ONE = _ALL.where(hosts.c.name == bindparam("of"))
_NAMED = update(hosts).where(hosts.c.name == bindparam("of"))
_REPORTED = _NAMED.values({name: bindparam(f"new_{name}") for name in ("hypervisor_up", "sentence", "reported_at_us")})
_REPORTED_FULL = _REPORTED.values(resources=bindparam("new_resources"))
_CLAIM = (
    update(hosts)
    .where(hosts.c.name == bindparam("of"), hosts.c.claims == bindparam("seen"))
    .values(claims=hosts.c.claims + 1)
)


def list_all(tx: Tx) -> list[RowMapping]:
    """Every host with its service and the sums of what is used there."""
    return list(tx.execute(_ALL).mappings())


def health(tx: Tx, name: str) -> RowMapping | None:
    """What the host last said of its hypervisor, and when."""
    columns = select(hosts.c.hypervisor_up, hosts.c.sentence, hosts.c.reported_at_us)
    return tx.execute(columns.where(hosts.c.name == name)).mappings().first()


def peer_uris(tx: Tx) -> dict[str, str]:
    """Where each host's hypervisor takes connections of others, as far as it has said so."""
    rows = tx.execute(select(hosts.c.name, hosts.c.resources).where(hosts.c.resources.is_not(None)))
    return {row.name: row.resources["peer_uri"] for row in rows if row.resources.get("peer_uri")}


def get(tx: Tx, name: str) -> RowMapping:
    row = tx.execute(_ONE, {"of": name}).mappings().first()
    if row is None:
        raise NotFound(f"there is no host {name}; 'openstack hypervisor list' shows those there are")
    return row


def get_by_uuid(tx: Tx, uuid: str) -> RowMapping | None:
    return tx.execute(_ALL.where(hosts.c.uuid == uuid)).mappings().first()


def view(row: RowMapping) -> HostView:
    """The row as the scheduler looks at it."""
    resources: dict[str, Any] = row["resources"] or {}
    return HostView(
        name=row["name"], zone=row["zone"], is_up=row["is_up"] and not row["forced_down"],
        sentence="it was forced down" if row["forced_down"] else row["service_sentence"],
        disabled=row["disabled"], disabled_reason=row["disabled_reason"] or "",
        hypervisor_up=row["hypervisor_up"] and row["resources"] is not None,
        hypervisor_type=resources.get("hypervisor_type", ""), vcpus=resources.get("vcpus", 0),
        memory_mb=resources.get("memory_mb", 0), reserved_memory_mb=resources.get("reserved_memory_mb", 0),
        disk_gb=resources.get("disk_gb", 0), vcpus_used=int(row["vcpus_used"]), ram_mb_used=int(row["ram_mb_used"]),
        disk_gb_used=int(row["disk_gb_used"]), instances=int(row["running_vms"]), claims=row["claims"],
    )  # fmt: skip


def claim(tx: Tx, ask: Ask, seen: HostView, ratios: Ratios) -> None:
    """Count one more claim on the host as it was seen. Raises Conflict when it no longer fits or somebody was first;
    the caller writes the row that holds the claim in the same transaction."""
    reason = first_failing(ask, seen, ratios)
    if reason is not None:
        raise Conflict(f"{seen.name}: {reason}")
    changed = tx.execute(_CLAIM, {"of": seen.name, "seen": seen.claims}).rowcount
    if not changed:
        raise Conflict(f"{seen.name}: another guest was placed there at the same moment")


def join(tx: Tx, name: str, zone: str) -> bool:
    """The agent of that host says hello; nothing to do when the host is known. Whether it is new."""
    if tx.execute(select(hosts.c.name).where(hosts.c.name == name)).first() is not None:
        return False
    tx.execute(insert(hosts).values(id=counters.next_number(tx, "host"), uuid=tx.names.uuid(), name=name, zone=zone,
                                    resources=None))  # fmt: skip
    return True


def report(tx: Tx, name: str, resources: dict[str, Any] | None, hypervisor_up: bool, sentence: str) -> None:
    """What the host says of itself; without `resources` the last known ones stay."""
    new: dict[str, Any] = {"of": name, "new_hypervisor_up": hypervisor_up, "new_sentence": sentence,
                           "new_reported_at_us": tx.now_us}  # fmt: skip
    if resources is None:
        tx.execute(_REPORTED, new)
    else:
        tx.execute(_REPORTED_FULL, new | {"new_resources": resources})
