"""Services: what should run, the verdicts of the failure detector, and what operators set."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Integer, bindparam, delete, func, insert, or_, select, update

from droveway.domain import service_kinds
from droveway.domain.faults import Conflict, NotFound
from droveway.domain.liveness import UP, State
from droveway.domain.model import Subject, SubjectKind
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list, one_of
from droveway.store.engine.prepared import Prepared, Rows
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import aggregates, certificates
from droveway.store.fleet import hosts as places
from droveway.store.fleet.hosts import COMPUTE
from droveway.store.rows import ServiceRow
from droveway.store.schema import hosts, instances, migrations, services
from droveway.store.volume import backends
from droveway.store.work import events, subjects

CONTROL = service_kinds.OF_CONTROL  # the services that a control shows under its name
FORCED_TOO = "+down"  # after the word of a host that was declared gone: an operator wants it forced down besides
FORGOTTEN = "services forgotten"  # the nudge of a deletion
_ALL = select(services).order_by(services.c.id)
_COUNTED = Prepared(
    select(services.c.state, services.c.forced_down, func.count()).group_by(services.c.state, services.c.forced_down)
)
_SNAPSHOT = Prepared(
    update(services)
    .where(services.c.host == bindparam("at_host"), services.c.binary == bindparam("of_binary"))
    .values(report_count=bindparam("beats"), updated_at_us=bindparam("at_us"))
)
_SNAPSHOT_OF_HOST = Prepared(
    update(services)
    .where(
        services.c.host == bindparam("at_host"),
        one_of(services.c.binary, [name for name in service_kinds.KINDS if name not in CONTROL]),
    )
    .values(report_count=bindparam("beats"), updated_at_us=bindparam("at_us"))
)
_UP = Prepared(
    select(services.c.host)
    .where(services.c.binary == bindparam("of_binary"), services.c.is_up, ~services.c.forced_down, ~services.c.disabled)
    .order_by(services.c.host)
)
_ONE = Prepared(_ALL.where(services.c.uuid == bindparam("of")))
_ON_HOSTS = Prepared(_ALL.where(~one_of(services.c.binary, CONTROL)))
_STATE = (
    update(services)
    .where(services.c.host == bindparam("at_host"), services.c.binary == bindparam("of_binary"))
    .values(
        state=bindparam("new_state"),
        is_up=bindparam("new_up"),
        reason=bindparam("because"),
        since_us=bindparam("new_since_us"),
    )
)
_BEGINNING = func.substr(services.c.host, 1, bindparam("length", type_=Integer))
_OF_HOST = Prepared(
    select(services.c.host, services.c.binary, services.c.is_up, services.c.forced_down)
    .where((services.c.host == bindparam("of_host")) | (bindparam("its_backends") == _BEGINNING))
    .order_by(services.c.id)
)
_KNOWN = Prepared(select(services.c.host, services.c.binary).where(in_list(services.c.host, "names")))
_INSERT = Prepared(insert(services))
_SET_STATE = Prepared(_STATE)
_SET_STATE_STAMPED = Prepared(_STATE.values(updated_at_us=bindparam("at_us")))


@functools.lru_cache
def _query(of_host: bool, of_binary: bool) -> Prepared:
    """Built once for each kind of question: building costs more than running."""
    query = _ALL
    if of_host:
        query = query.where(services.c.host == bindparam("of_host"))
    if of_binary:
        query = query.where(services.c.binary == bindparam("of_binary"))
    return Prepared(query)


def _found(tx: Tx, host: str | None, binary: str | None) -> Rows:
    wanted = {"of_host": host, "of_binary": binary}
    return tx.execute(
        _query(host is not None, binary is not None),
        {name: value for name, value in wanted.items() if value is not None},
    )


def list_all(tx: Tx, host: str | None = None, binary: str | None = None) -> list[ServiceRow]:
    return results.every(ServiceRow, _found(tx, host, binary))


def on_hosts(tx: Tx) -> list[ServiceRow]:
    """Those that a process of a host, or its heart, speaks for."""
    rows = results.every(ServiceRow, tx.execute(_ON_HOSTS))
    return [row for row in rows if row["binary"] in service_kinds.KINDS]


class ServiceOnHost(NamedTuple):
    """A process of a host, by its name there."""

    service: str
    is_up: bool
    forced_down: bool


def on_host(tx: Tx, host: str) -> list[ServiceOnHost]:
    """The host's own processes; none when there is no such host."""
    wanted = {"of_host": host, "its_backends": f"{host}@", "length": len(host) + 1}
    return [
        ServiceOnHost(service_kinds.address_of(row.host, row.binary)[1], row.is_up, row.forced_down)
        for row in tx.execute(_OF_HOST, wanted)
        if row.binary in service_kinds.KINDS and row.binary not in CONTROL
    ]


def count_by_state(tx: Tx) -> dict[str, int]:
    """How many services are in each state; those that an operator forced down are counted as that alone."""
    counted: dict[str, int] = {}
    for state, forced_down, count in tx.execute(_COUNTED):
        name = "forced down" if forced_down else state
        counted[name] = counted.get(name, 0) + count
    return counted


def of_host(tx: Tx, host: str) -> list[tuple[str, str]]:
    """Host and binary of everything that runs there: of a host's backends too, or of one backend alone. Raises
    NotFound."""
    wanted = {"of_host": host, "its_backends": f"{host}@", "length": len(host) + 1}
    found = [(row.host, row.binary) for row in tx.execute(_OF_HOST, wanted)]
    if not found:
        raise NotFound(f"There is no service on a host named {host[:64]}; 'droveway service list' shows all there are.")
    return found


def hosts_up(tx: Tx, binary: str) -> tuple[str, ...]:
    """The hosts on which that service is up, and which no administrator keeps work from, in their order."""
    return tuple(tx.execute(_UP, {"of_binary": binary}).scalars())


def get(tx: Tx, uuid: str) -> ServiceRow:
    row = results.first(ServiceRow, tx.execute(_ONE, {"of": uuid}))
    if row is None:
        raise NotFound(f"Service {uuid} could not be found.")
    return row


def get_by_number(tx: Tx, number: int) -> ServiceRow:
    """As the API named services before microversion 2.53."""
    row = results.first(ServiceRow, tx.execute(_ALL.where(services.c.id == number)))
    if row is None:
        raise NotFound(f"Service {number} could not be found.")
    return row


def register(tx: Tx, host: str, binary: str, zone: str) -> None:
    """There is such a service; nothing to do when it is known. `zone`: of its host."""
    register_all(tx, {host: (binary,)}, zone)


def register_all(tx: Tx, names: Mapping[str, Sequence[str]], zone: str) -> None:
    """The same of many hosts at once, in two statements; by their names on each host."""
    rows = [service_kinds.row_of(host, name) for host, some in names.items() for name in some]
    known = {tuple(row) for row in tx.execute(_KNOWN, {"names": sorted({host for host, _ in rows})})}
    new = [_new(tx, host, binary, zone) for host, binary in rows if (host, binary) not in known]
    if new:
        tx.execute(_INSERT, new)
        bodies = [(_subject(str(row["host"]), str(row["binary"])), {"became": "registered"}) for row in new]
        events.record_all(tx, events.SERVICE, bodies)


def _subject(host: str, binary: str) -> Subject:
    return Subject(SubjectKind.SERVICE, f"{host}/{binary}")


def _new(tx: Tx, host: str, binary: str, zone: str) -> dict[str, Any]:
    kind = service_kinds.KINDS[binary]
    return {
        "uuid": tx.names.uuid(),
        "host": host,
        "binary": binary,
        "topic": kind.topic,
        "zone": kind.zone or zone,
        "reason": "no beat yet",
        "created_at_us": tx.now_us,
    }


def set_(
    tx: Tx,
    uuid: str,
    *,
    disabled: bool | None = None,
    disabled_reason: str | None = None,
    forced_down: bool | None = None,
) -> ServiceRow:
    """What an operator wants of a service. Enabling clears the reason."""
    row = get(tx, uuid)
    values: dict[str, object] = {}
    if disabled is not None:
        values |= {"disabled": disabled, "disabled_reason": disabled_reason if disabled else None}
    if forced_down is not None:
        _must_not_be_gone(tx, row, forced_down=forced_down)
        values["forced_down"] = forced_down
    return _set(tx, row, values)


def force_down(tx: Tx, uuid: str, *, forced_down: bool) -> None:
    """By what an operator said of its host, and not of the service."""
    _set(tx, get(tx, uuid), {"forced_down": forced_down})


def _set(tx: Tx, row: ServiceRow, values: Mapping[str, object]) -> ServiceRow:
    uuid = row["uuid"]
    if values:
        tx.execute(update(services).where(services.c.uuid == uuid).values(values))
        if row["binary"] == COMPUTE:
            places.touch(tx, row["host"])
        events.record(tx, "service", _subject(row["host"], row["binary"]), {"set": values})
    return get(tx, uuid)


def _must_not_be_gone(tx: Tx, row: ServiceRow, *, forced_down: bool) -> None:
    """What was declared gone is up again once it was readmitted and compared, and not by this. Who forces it down
    meanwhile wants it down after that too."""
    if row["binary"] != COMPUTE:
        return
    declared = tx.execute(select(hosts.c.declared).where(hosts.c.name == row["host"])).scalar()
    if declared and forced_down and not declared.endswith(FORCED_TOO):
        tx.execute(update(hosts).where(hosts.c.name == row["host"]).values(declared=declared + FORCED_TOO))
    elif declared and not forced_down:
        raise Conflict(
            f"Host {row['host']} was declared gone; 'droveway host readmit {row['host']}' lets its agent "
            "in, and it is up once it has ended what is no longer its own"
        )


def remove(tx: Tx, uuid: str) -> None:
    """Forget a service that is gone for good: it is down and, when it is a compute service, its host is forgotten with
    it, which must hold no instances and be the destination of none. Raises Conflict."""
    row = get(tx, uuid)
    if row["is_up"]:
        raise Conflict(f"Service {row['binary']} on {row['host']} is up; stop it before it is deleted")
    if row["binary"] == COMPUTE:
        _must_hold_nothing(tx, row["host"])
        aggregates.forget_host(tx, row["host"])
        tx.execute(delete(hosts).where(hosts.c.name == row["host"]))
    if row["binary"] == service_kinds.VOLUME:
        backends.must_hold_nothing(tx, row["host"])
        backends.remove(tx, row["host"])
    tx.execute(delete(services).where(services.c.uuid == uuid))
    host, _ = service_kinds.address_of(row["host"], row["binary"])
    if row["binary"] not in CONTROL and not on_host(tx, host):  # it was the last one there
        certificates.end_of_host(tx, host)
    tx.nudges.append(FORGOTTEN)
    events.record(tx, "service", _subject(row["host"], row["binary"]), {"became": "deleted"})


def remove_host(tx: Tx, host: str) -> list[str]:
    """Forget a host that is gone for good, with everything that ran there; the names of its services. Raises NotFound,
    and Conflict while any of them is up or the host holds something."""
    places.get(tx, host)
    is_there = or_(services.c.host == host, services.c.host.startswith(f"{host}@", autoescape=True))
    query = _ALL.where(is_there, services.c.binary.not_in(CONTROL))  # a control may have the name of its host
    rows = results.every(ServiceRow, tx.execute(query))
    for row in rows:
        remove(tx, row["uuid"])
    return [row["binary"] for row in rows]


def _must_hold_nothing(tx: Tx, host: str) -> None:
    held = select(instances.c.id).where(instances.c.host == host, instances.c.deleted.is_(False))
    found = tx.execute(held.limit(1)).scalar()
    if found is not None:
        raise Conflict(f"Unable to delete compute service that is hosting instances. {host} holds {found}")
    arriving = select(migrations.c.instance_id).where(migrations.c.destination == host, migrations.c.holds_claim)
    found = tx.execute(arriving.limit(1)).scalar()
    if found is not None:
        raise Conflict(f"Unable to delete compute service that has in-progress migrations. {found} moves to {host}")
    saga = subjects.in_the_way(
        tx, (Subject(SubjectKind.HOST, host),)
    )  # whose turn could not come, or who has that host's fence
    if saga is not None:
        raise Conflict(
            f"Unable to delete compute service that is being worked on. Saga {saga['id']} ({saga['kind']}) needs "
            f"{host} and is {saga['status']}; 'droveway saga cancel {saga['id']}' ends it where that is possible"
        )


class Verdict(msgspec.Struct, frozen=True):
    """What the failure detector concluded of a host's service of that name. `since_us` is wall time."""

    host: str
    service: str
    state: State
    reason: str
    since_us: int

    @property
    def is_up(self) -> bool:
        return self.state in UP


def record_verdicts(tx: Tx, verdicts: Sequence[Verdict], *, stamps: bool = True) -> None:
    """Transitions, written once when they happen. `stamps`: Updated_At is this program's to write."""
    for is_up in (True, False):
        rows = [
            {
                **_where(v.host, v.service),
                "new_state": v.state.value,
                "new_up": is_up,
                "because": v.reason,
                "new_since_us": v.since_us,
                "at_us": tx.now_us,
            }
            for v in verdicts
            if v.is_up is is_up
        ]
        if rows:
            tx.execute(_SET_STATE_STAMPED if is_up and stamps else _SET_STATE, rows)
    places.touch(tx, *(v.host for v in verdicts if v.service == COMPUTE))
    events.record_all(
        tx,
        events.SERVICE,
        [
            (
                _subject(*service_kinds.row_of(v.host, v.service)),
                {"became": "up" if v.is_up else "down", "state": v.state.value, "because": v.reason},
            )
            for v in verdicts
        ],
    )


def _where(host: str, name: str) -> dict[str, Any]:
    row_host, binary = service_kinds.row_of(host, name)
    return {"at_host": row_host, "of_binary": binary}


def shows_control(tx: Tx, name: str) -> bool:
    """Whether a service of that control is recorded as up."""
    return any(row["is_up"] for row in list_all(tx, name) if row["binary"] in CONTROL)


def record_control_state(tx: Tx, name: str, state: State, reason: str) -> None:
    """The services of that control; nothing to do where they are recorded so."""
    verdicts = [
        Verdict(name, row["binary"], state, reason, tx.now_us)
        for row in list_all(tx, name)
        if row["binary"] in CONTROL and row["state"] != state
    ]
    record_verdicts(tx, verdicts)


def snapshot(tx: Tx, beats: Iterable[tuple[str, str, int, int]], of_all: Iterable[tuple[str, int, int]] = ()) -> None:
    """The slow snapshot behind `Updated At`: (host, name, beats so far, when the last one arrived); and `of_all`, the
    same without a name, of everything that runs on a host: one statement, however many services that are."""
    rows = [{**_where(host, name), "beats": count, "at_us": at_us} for host, name, count, at_us in beats]
    if rows:
        tx.execute(_SNAPSHOT, rows)
    whole = [{"at_host": host, "beats": count, "at_us": at_us} for host, count, at_us in of_all]
    if whole:
        tx.execute(_SNAPSHOT_OF_HOST, whole)
