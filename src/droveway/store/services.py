"""Services: who should be alive, who was judged to be, and what an operator said of them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import RowMapping, bindparam, delete, insert, select, update

from droveway.domain.faults import Conflict, NotFound
from droveway.store import events
from droveway.store.hosts import COMPUTE
from droveway.store.schema import hosts, instances, migrations, services
from droveway.store.transaction import Tx

CONTROL = ("nova-scheduler", "nova-conductor")  # the services that a control shows under its name
_ALL = select(services).order_by(services.c.id)
_SNAPSHOT = (
    update(services).where(services.c.host == bindparam("at_host"), services.c.binary == bindparam("of_binary"))
    .values(report_count=bindparam("beats"), updated_at_us=bindparam("at_us"))
)  # fmt: skip


def list_all(tx: Tx, host: str | None = None, binary: str | None = None) -> list[RowMapping]:
    query = _ALL
    if host is not None:
        query = query.where(services.c.host == host)
    if binary is not None:
        query = query.where(services.c.binary == binary)
    return list(tx.execute(query).mappings())


def get(tx: Tx, uuid: str) -> RowMapping:
    row = tx.execute(_ALL.where(services.c.uuid == uuid)).mappings().first()
    if row is None:
        raise NotFound(f"Service {uuid} could not be found.")
    return row


def get_by_number(tx: Tx, number: int) -> RowMapping:
    """As the API named services before microversion 2.53."""
    row = tx.execute(_ALL.where(services.c.id == number)).mappings().first()
    if row is None:
        raise NotFound(f"Service {number} could not be found.")
    return row


def register(tx: Tx, host: str, binary: str, zone: str) -> None:
    """There is such a service; nothing to do when it is known."""
    known = tx.execute(select(services.c.id).where(services.c.host == host, services.c.binary == binary)).first()
    if known is None:
        tx.execute(insert(services).values(uuid=tx.names.uuid(), host=host, binary=binary, zone=zone,
                                           sentence="no beat yet", created_at_us=tx.now_us))  # fmt: skip
        events.record(tx, "service", f"{host}/{binary}", {"became": "registered"})


def set_(tx: Tx, uuid: str, *, disabled: bool | None = None, disabled_reason: str | None = None,
         forced_down: bool | None = None) -> RowMapping:  # fmt: skip
    """What an operator wants of a service. Enabling clears the reason."""
    row = get(tx, uuid)
    values: dict[str, object] = {}
    if disabled is not None:
        values |= {"disabled": disabled, "disabled_reason": disabled_reason if disabled else None}
    if forced_down is not None:
        values["forced_down"] = forced_down
    if values:
        tx.execute(update(services).where(services.c.uuid == uuid).values(values))
        events.record(tx, "service", f"{row['host']}/{row['binary']}", {"set": values})
    return get(tx, uuid)


def remove(tx: Tx, uuid: str) -> None:
    """Forget a service that is gone for good: it is down and, when it is a compute service, its host is forgotten with
    it, which must hold no instances and be the destination of none. Raises Conflict."""
    row = get(tx, uuid)
    if row["is_up"]:
        raise Conflict(f"Service {row['binary']} on {row['host']} is up; stop it before it is deleted")
    if row["binary"] == COMPUTE:
        _must_hold_nothing(tx, row["host"])
        tx.execute(delete(hosts).where(hosts.c.name == row["host"]))
    tx.execute(delete(services).where(services.c.uuid == uuid))
    events.record(tx, "service", f"{row['host']}/{row['binary']}", {"became": "deleted"})


def _must_hold_nothing(tx: Tx, host: str) -> None:
    held = select(instances.c.id).where(instances.c.host == host, instances.c.deleted.is_(False))
    found = tx.execute(held.limit(1)).scalar()
    if found is not None:
        raise Conflict(f"Unable to delete compute service that is hosting instances. {host} holds {found}")
    arriving = select(migrations.c.instance_id).where(migrations.c.destination == host, migrations.c.holds_claim)
    found = tx.execute(arriving.limit(1)).scalar()
    if found is not None:
        raise Conflict(f"Unable to delete compute service that has in-progress migrations. {found} moves to {host}")


def judged(tx: Tx, host: str, binary: str, is_up: bool, sentence: str, *, stamps: bool = True) -> None:
    """A transition, written once when it happens. `stamps`: Updated_At is this program's to write."""
    tx.execute(
        update(services).where(services.c.host == host, services.c.binary == binary)
        .values(is_up=is_up, sentence=sentence, **({"updated_at_us": tx.now_us} if is_up and stamps else {}))
    )  # fmt: skip
    events.record(tx, "service", f"{host}/{binary}", {"became": "up" if is_up else "down", "because": sentence})


def shows_control(tx: Tx, name: str) -> bool:
    """Whether a service of that control is recorded as up."""
    return any(row["is_up"] for row in list_all(tx, name) if row["binary"] in CONTROL)


def judge_control(tx: Tx, name: str, is_up: bool, sentence: str) -> None:
    """The services of that control; nothing to do where they are recorded so."""
    for row in list_all(tx, name):
        if row["binary"] in CONTROL and row["is_up"] is not is_up:
            judged(tx, name, row["binary"], is_up, sentence)


def snapshot(tx: Tx, beats: Iterable[tuple[str, int, int]], binary: str = COMPUTE) -> None:
    """The slow snapshot behind `Updated At`: (host, beats so far, when the last one arrived)."""
    rows = [{"at_host": host, "of_binary": binary, "beats": count, "at_us": at_us} for host, count, at_us in beats]
    if rows:
        tx.execute(_SNAPSHOT, rows)
