"""How many sagas have not ended, by state and age: summed in the database, however many there are."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import case, func, select

from droveway.domain.model import ENDED_SAGA, SagaStatus
from droveway.store.engine.transaction import Tx
from droveway.store.schema import sagas

AGES_S = {"1m": 60, "10m": 600, "1h": 3600, "1d": 86_400}  # upper edges; what is older is OLDER
OLDER = "older"
OPEN = tuple(status for status in SagaStatus if status not in ENDED_SAGA)


class Ages(NamedTuple):
    """Of the sagas in one state. `counts` by age, each saga once; `oldest_s` is 0 when there are none."""

    counts: dict[str, int]
    oldest_s: float
    blocked: int


def count(tx: Tx) -> dict[str, Ages]:
    """By state; those in which no saga is, too."""
    since = [tx.now_us - age_s * 1_000_000 for age_s in AGES_S.values()]
    younger = [func.sum(case((sagas.c.created_at_us >= at_us, 1), else_=0)) for at_us in since]
    blocked = func.sum(case((sagas.c.blocked.is_not(None), 1), else_=0))
    query = (
        select(sagas.c.status, func.count(), func.min(sagas.c.created_at_us), blocked, *younger)
        .where(sagas.c.ended.is_(False))
        .group_by(sagas.c.status)
    )
    found = {status.value: Ages(dict.fromkeys((*AGES_S, OLDER), 0), 0.0, 0) for status in OPEN}
    for status, total, first_us, waits, *sums in tx.execute(query):
        cumulated = [0, *map(int, sums), int(total)]
        counts = {age: b - a for age, a, b in zip((*AGES_S, OLDER), cumulated, cumulated[1:], strict=False)}
        found[status] = Ages(counts, max(0.0, (tx.now_us - int(first_us)) / 1e6), int(waits))
    return found
