"""What every change of networks does beside it: it raises the one number by which hosts know how new their plan is,
and calls out that there is something to be told."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Table, bindparam, select, update

from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import counters
from droveway.store.work.counters import next_number

CHANGED = "networks"  # the nudge
ROUTERS = "router places"  # another: where routers are, or may be, is to be looked at
COUNTER = "network"
_REVISION = Prepared(select(counters.c.value).where(counters.c.name == COUNTER))


def changed(tx: Tx) -> None:
    """To be called by whatever changes what a host's plan is made of: one revision has all of a transaction."""
    if CHANGED not in tx.nudges:
        tx.nudges.append(CHANGED)
        next_number(tx, COUNTER)


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
    changed(tx)


@lru_cache(256)
def _touched(table: Table, names: tuple[str, ...]) -> Prepared:
    """As many as there are sets of columns that one call changes."""
    new = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names}
    raised = {"revision": table.c.revision + 1, "updated_at_us": bindparam("now")}
    return Prepared(update(table).where(table.c.id == bindparam("of")).values(new | raised))
