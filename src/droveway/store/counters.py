"""Numbers that only rise: instance numbers, host ids."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, update

from droveway.store.schema import counters
from droveway.store.transaction import Tx

_NEXT = (
    update(counters)
    .where(counters.c.name == bindparam("of"))
    .values(value=counters.c.value + 1)
    .returning(counters.c.value)
)


def next_number(tx: Tx, name: str) -> int:
    value = tx.execute(_NEXT, {"of": name}).scalar()
    if value is None:
        tx.execute(insert(counters).values(name=name, value=1))
        return 1
    return int(value)
