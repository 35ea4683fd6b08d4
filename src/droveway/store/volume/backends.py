"""Backends: what each volume service says of its pool, and what is promised of it, which is the sum over rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import and_, bindparam, delete, func, insert, literal, or_, select, union_all, update

from droveway.domain import service_kinds
from droveway.domain.faults import Conflict, NotFound
from droveway.domain.volume.model import BackendSettings, StorageGuarantees, StoragePool
from droveway.domain.volume.placement import BackendFacts
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import services
from droveway.store.volume.rows import BackendRow, BackendWithService
from droveway.store.volume.tables import backends, volume_types, volumes

CHANGED = "backends"  # the nudge: something that the volume scheduler must know
_C = backends.c
_SERVICE = and_(services.c.host == _C.name, services.c.binary == service_kinds.VOLUME)
_ALL = (
    select(
        backends,
        services.c.zone,
        services.c.is_up,
        services.c.forced_down,
        services.c.reason,
        services.c.disabled,
        services.c.disabled_reason,
    )
    .join(services, _SERVICE)
    .order_by(_C.name)
)
_EVERY = Prepared(_ALL)
_ONE = Prepared(_ALL.where(_C.name == bindparam("of")))
_SIZE = func.coalesce(volumes.c.growing_to_gb, volumes.c.size_gb)
_PROMISED = (
    union_all(
        select(volumes.c.host.label("backend"), _SIZE.label("gb")).where(volumes.c.host.is_not(None)),
        select(volumes.c.moving_to, volumes.c.size_gb).where(volumes.c.moving_to.is_not(None)),
    )
).subquery()
_ALLOCATED = Prepared(select(_PROMISED.c.backend, func.sum(_PROMISED.c.gb)).group_by(_PROMISED.c.backend))
_ON = or_(volumes.c.host == bindparam("of"), volumes.c.moving_to == bindparam("of"))
_HELD = Prepared(select(volumes.c.id).where(_ON).order_by(volumes.c.created_at_us, volumes.c.id).limit(1))
_COUNT = Prepared(select(func.count()).select_from(volumes).where(_ON))
_CLAIM = Prepared(
    update(backends).where(_C.name == bindparam("of"), _C.claims == bindparam("seen")).values(claims=_C.claims + 1)
)
_TOUCH = Prepared(update(backends).where(_C.name == bindparam("of")).values(claims=_C.claims + 1))
_REPORTED = ("driver", "guarantees", "settings", "total_gb", "free_gb", "trouble", "reported_at_us", "generation")
_REPORT = Prepared(
    update(backends)
    .where(_C.name == bindparam("of"), _C.generation <= bindparam("new_generation"))
    .values({name: bindparam(f"new_{name}") for name in _REPORTED})
)
_INSERT = Prepared(insert(backends))
_IS_THERE = Prepared(select(literal(1)).where(_C.name == bindparam("of")).select_from(backends))
_FREEZE = Prepared(update(backends).where(_C.name == bindparam("of")).values(frozen=bindparam("new_frozen")))
_DELETE = Prepared(delete(backends).where(_C.name == bindparam("of")))


_HEALTH = Prepared(
    select(services.c.host, services.c.is_up, services.c.forced_down, services.c.reason).where(
        in_list(services.c.host, "names"), services.c.binary == service_kinds.VOLUME
    )
)


class BackendHealth(NamedTuple):
    is_up: bool
    reason: str  # why it is not


_TYPE = Prepared(select(volume_types.c.name, volume_types.c.extra_specs).where(volume_types.c.id == bindparam("of")))


class TypeSpecs(NamedTuple):
    """What a volume type wants of a backend."""

    name: str = ""
    extra_specs: Mapping[str, str] = MappingProxyType({})


def specs_of_type(tx: Tx, volume_type_id: str | None) -> TypeSpecs:
    """One that was deleted meanwhile wants nothing."""
    if volume_type_id is None:
        return TypeSpecs()
    row = tx.execute(_TYPE, {"of": volume_type_id}).first()
    return TypeSpecs() if row is None else TypeSpecs(row.name, row.extra_specs)


# -- what they say ------------------------------------------------------------------------------------------------
def report(tx: Tx, name: str, pool: StoragePool, generation: int) -> bool:
    """What the service of that backend says of it. False: what stands there is newer."""
    values: dict[str, Any] = {
        "driver": pool.driver[:64],
        "guarantees": msgspec.to_builtins(pool.guarantees),
        "settings": msgspec.to_builtins(pool.settings),
        "total_gb": pool.total_gb,
        "free_gb": pool.free_gb,
        "trouble": pool.trouble,
        "reported_at_us": tx.now_us,
        "generation": generation,
    }
    if tx.execute(_REPORT, {"of": name, **{f"new_{key}": value for key, value in values.items()}}).rowcount == 0:
        if tx.execute(_IS_THERE, {"of": name}).first() is not None:
            return False
        tx.execute(_INSERT, {"name": name, "frozen": False, "claims": 0, **values})
    tx.nudges.append(CHANGED)
    return True


def freeze(tx: Tx, name: str, *, frozen: bool) -> None:
    """Whether nothing new is made there, nor anything deleted. Raises NotFound."""
    if tx.execute(_FREEZE, {"of": name, "new_frozen": frozen}).rowcount == 0:
        raise NotFound(f"There is no backend {name[:64]}; 'droveway service list' shows those there are.")


def must_hold_nothing(tx: Tx, name: str) -> None:
    """Raises Conflict while a volume lies on it: its service is not forgotten."""
    found = tx.execute(_HELD, {"of": name}).scalar()
    if found is not None:
        raise Conflict(f"Unable to delete the volume service of {name}: it has volume {found}")


def remove(tx: Tx, name: str) -> None:
    """With its service."""
    tx.execute(_DELETE, {"of": name})


# -- what is known of them ----------------------------------------------------------------------------------------
def facts_of_all(tx: Tx) -> list[BackendFacts]:
    """Those whose service is there."""
    allocated: dict[str, int] = {name: int(total) for name, total in tx.execute(_ALLOCATED)}
    return [_facts(row, allocated.get(row["name"], 0)) for row in results.every(BackendWithService, tx.execute(_EVERY))]


def health(tx: Tx, names: Iterable[str]) -> dict[str, BackendHealth]:
    """How the services of those backends stand; of one that is not known nothing is said."""
    rows = tx.execute(_HEALTH, {"names": sorted(set(names))})
    return {
        name: BackendHealth(is_up and not forced, "an operator forced it down" if forced else reason)
        for name, is_up, forced, reason in rows
    }


def get(tx: Tx, name: str) -> BackendRow:
    row = results.first(BackendRow, tx.execute(_ROW, {"of": name}))
    if row is None:
        raise NotFound(f"There is no backend {name[:64]}; 'droveway service list' shows those there are.")
    return row


_ROW = Prepared(select(backends).where(_C.name == bindparam("of")))


def is_frozen(tx: Tx, name: str) -> bool:
    """One that has not reported yet is not."""
    row = results.first(BackendRow, tx.execute(_ROW, {"of": name}))
    return row is not None and row["frozen"]


def guarantees_of(tx: Tx, name: str) -> StorageGuarantees:
    return msgspec.convert(get(tx, name)["guarantees"], StorageGuarantees)


def count_on(tx: Tx, name: str) -> int:
    """How many volumes lie there or move there."""
    return int(tx.execute(_COUNT, {"of": name}).scalar_one())


def _facts(row: BackendWithService, allocated_gb: int) -> BackendFacts:
    return BackendFacts(
        row["name"],
        row["driver"],
        msgspec.convert(row["guarantees"], StorageGuarantees),
        msgspec.convert(row["settings"], BackendSettings),
        row["total_gb"],
        row["free_gb"],
        allocated_gb,
        row["trouble"],
        row["frozen"],
        row["claims"],
        row["zone"],
        row["is_up"] and not row["forced_down"],
        "an operator forced it down" if row["forced_down"] else row["reason"],
        row["disabled"],
        row["disabled_reason"] or "",
    )


# -- what is promised of them -------------------------------------------------------------------------------------
def claim(tx: Tx, seen: BackendFacts) -> bool:
    """One more promise of the backend as it was seen; the caller writes the row that holds it in the same transaction.
    False when something there was promised since: look again."""
    return bool(tx.execute(_CLAIM, {"of": seen.name, "seen": seen.claims}).rowcount)


def touch(tx: Tx, name: str | None) -> None:
    """What is promised of it has changed. None is no backend."""
    if name is not None and tx.execute(_TOUCH, {"of": name}).rowcount:
        tx.nudges.append(CHANGED)
