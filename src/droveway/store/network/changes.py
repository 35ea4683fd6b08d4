"""What every change of networks does beside it: it raises the one number by which hosts know how new their plan is,
writes down what has changed, and calls out that there is something to be told."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Table, bindparam, delete, func, insert, select, update

from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.tables import network_changes, subnet_pools
from droveway.store.schema import counters
from droveway.store.work.counters import next_number

CHANGED = "networks"  # the nudge
ROUTERS = "router places"  # another: where routers are, or may be, is to be looked at
COUNTER = "network"
KEPT = 20_000  # changes written down; a control that has missed more reads everything
FORGOTTEN_AT_ONCE = 1_000
IN_NO_PLAN = (subnet_pools,)
n = network_changes.c
_REVISION = Prepared(select(counters.c.value).where(counters.c.name == COUNTER))
_INSERT = Prepared(insert(network_changes))
_SINCE = Prepared(
    select(n.number, n.kind, n.of).where(n.number >= bindparam("last")).order_by(n.number).limit(bindparam("most"))
)
_LAST = Prepared(select(func.max(n.number)))
_FORGET = Prepared(delete(network_changes).where(n.number <= bindparam("last")))


class Change(NamedTuple):
    """One row that plans are made of. `kind`: its table; empty: it may be any of all."""

    number: int
    kind: str
    of: str


def changed(tx: Tx, table: Table | None = None, *of: str) -> None:
    """To be called by whatever changes what a host's plan is made of: one revision has all of a transaction. `of`: the
    rows that have changed. Without a table it is not said what has, and everything is read anew."""
    if CHANGED not in tx.nudges:
        tx.nudges.append(CHANGED)
        next_number(tx, COUNTER)  # the lock of its row comes before the numbers of changes, so that these rise, too
    if table is None:
        tx.execute(_INSERT, {"kind": "", "of": ""})
    elif of:
        tx.execute(_INSERT, [{"kind": table.name, "of": one} for one in of])


def since(tx: Tx, last: int, most: int) -> list[Change] | None:
    """What has changed after that one; None: it is known no longer, as may be some that came after it, or there are
    more than `most`."""
    found = [Change(*row) for row in tx.execute(_SINCE, {"last": last, "most": most + 2})]
    if not found or found[0].number != last or len(found) > most + 1:
        return None
    return found[1:]


def last(tx: Tx) -> int:
    """The number of the last change."""
    return int(tx.execute(_LAST).scalar() or 0)


def forget_old(tx: Tx) -> None:
    """All but the newest."""
    tx.execute(_FORGET, {"last": last(tx) - KEPT})


def look_at_routers(tx: Tx) -> None:
    """To be called by whatever changes which routers there are, what they need, or which host has it."""
    if ROUTERS not in tx.nudges:
        tx.nudges.append(ROUTERS)


def revision(tx: Tx) -> int:
    return int(tx.execute(_REVISION).scalar() or 0)


def touch(tx: Tx, table: Table, of: str, **values: object) -> None:
    """Set columns of a resource: its own revision rises by one, as clients see it."""
    given = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_touched(table, tuple(sorted(values))), {"of": of, "now": tx.now_us, **given})
    if table not in IN_NO_PLAN:
        changed(tx, table, of)


@lru_cache(256)
def _touched(table: Table, names: tuple[str, ...]) -> Prepared:
    """As many as there are sets of columns that one call changes."""
    new = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names}
    raised = {"revision": table.c.revision + 1, "updated_at_us": bindparam("now")}
    return Prepared(update(table).where(table.c.id == bindparam("of")).values(new | raised))
