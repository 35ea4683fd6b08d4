"""What hosts report of themselves, as far as the store keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Text,
    bindparam,
    select,
    type_coerce,
)

from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet.hosts import CAPACITY, UPDATE_OF
from droveway.store.fleet.reported import decode_reported
from droveway.store.schema import hosts

_REPORT = (
    UPDATE_OF.where(hosts.c.generation <= bindparam("new_generation"))
    .values({name: bindparam(f"new_{name}") for name in ("hypervisor_up", "reason", "reported_at_us", "generation")})
    .values(refused="", claims=hosts.c.claims + bindparam("news"))
)
_REPORTED = Prepared(_REPORT)
_REPORTED_FULL = Prepared(_REPORT.values(resources=bindparam("new_resources")))


_REFUSED = Prepared(
    UPDATE_OF.where(hosts.c.refused != bindparam("why")).values(refused=bindparam("why"), claims=hosts.c.claims + 1)
)


_STANDING = Prepared(
    select(
        hosts.c.name, hosts.c.generation, hosts.c.refused, type_coerce(hosts.c.resources, Text).label("resources")
    ).where(in_list(hosts.c.name, "names"))
)


class ReportedState(msgspec.Struct, frozen=True):
    """What a host has reported so far, as far as the next report is measured by it."""

    generation: int
    refused: str
    sizes: dict[str, int]  # vcpus, memory_mb, disk_gb; empty when it has never reported


def standing(tx: Tx, names: Sequence[str]) -> dict[str, ReportedState]:
    found = {}
    for name, generation, refused, text in tx.execute(_STANDING, {"names": names}):
        reported = None if text is None else decode_reported(text)
        sizes = (
            {}
            if reported is None
            else {"vcpus": reported.vcpus, "memory_mb": reported.memory_mb, "disk_gb": reported.disk_gb}
        )
        found[name] = ReportedState(generation, refused, sizes)
    return found


def report(
    tx: Tx,
    name: str,
    resources: dict[str, Any] | None,
    hypervisor_up: bool,
    reason: str,
    generation: int = 0,
    *,
    is_news: bool = True,
) -> bool:
    """What the host says of itself; without `resources` the last known ones stay. False: what stands there is newer.
    `is_news`: the scheduler must know."""
    new: dict[str, Any] = {
        "of": name,
        "new_hypervisor_up": hypervisor_up,
        "new_reason": reason,
        "new_reported_at_us": tx.now_us,
        "new_generation": generation,
        "news": int(is_news),
    }
    if resources is None:
        is_taken = bool(tx.execute(_REPORTED, new).rowcount)
    else:
        is_taken = bool(tx.execute(_REPORTED_FULL, new | {"new_resources": resources}).rowcount)
    if is_taken and is_news and CAPACITY not in tx.nudges:
        tx.nudges.append(CAPACITY)
    return is_taken


def refuse(tx: Tx, name: str, why: str, protocol: int | None = None) -> bool:
    """Its report is refused, or its agent is not admitted; the last good report stays. False: that is known."""
    is_new = bool(tx.execute(_REFUSED, {"of": name, "why": why}).rowcount)
    if is_new and protocol is not None:
        tx.execute(UPDATE_OF.values(protocol=bindparam("spoken")), {"of": name, "spoken": protocol})
    return is_new


def refused_because(tx: Tx, why: str) -> list[str]:
    """The hosts whose report is refused for that very reason."""
    return list(tx.execute(select(hosts.c.name).where(hosts.c.refused == why)).scalars())


def who_say(tx: Tx, key: str, value: str, most: int) -> list[str]:
    """The first names of hosts that say that text of themselves, such as `host_uuid`: more than one where a machine has
    another name now, or where some maker gave all its machines one uuid. Reads every host: for one that is shown, not
    for lists."""
    if not value:
        return []
    pair = f'"{key}":{msgspec.json.encode(value).decode()}'
    reported = type_coerce(hosts.c.resources, Text).contains(pair, autoescape=True)
    return list(tx.execute(select(hosts.c.name).where(reported).order_by(hosts.c.id).limit(most)).scalars())
