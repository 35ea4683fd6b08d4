"""Numbers that only rise: instance numbers, host ids."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, update

from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import counters

_NEXT = Prepared(
    update(counters)
    .where(counters.c.name == bindparam("of"))
    .values(value=counters.c.value + bindparam("more"))
    .returning(counters.c.value)
)


def next_number(tx: Tx, name: str) -> int:
    return next_numbers(tx, name, 1)[0]


def next_numbers(tx: Tx, name: str, count: int) -> range:
    """So many in a row."""
    last = tx.execute(_NEXT, {"of": name, "more": count}).scalar()
    if last is None:
        tx.execute(insert(counters).values(name=name, value=count))
        last = count
    return range(int(last) - count + 1, int(last) + 1)
