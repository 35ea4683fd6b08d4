"""Takes in what volume services report of their pools. What says the same again is not written.

The generation of a report rises with every change of what it says, over restarts of the service: an older one is late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import structlog

from droveway.control.liveness.observer import Observer
from droveway.domain import service_kinds
from droveway.domain.faults import Busy
from droveway.domain.resources import storable
from droveway.domain.service_kinds import Address
from droveway.domain.volume.model import StoragePool
from droveway.store.engine.transaction import Store, Tx
from droveway.store.volume import backends

log = structlog.get_logger("droveway.pools")
SIZE_MAX_GB = 1e9
AGAIN_S = 60.0  # what says the same is written so often all the same: a row may have been lost
PoolsByName = Mapping[str, tuple[StoragePool, int]]  # by HOST@BACKEND


class PoolReports:
    def __init__(self, store: Store, observer: Observer) -> None:
        self._store, self._observer = store, observer
        self._written: dict[str, tuple[int, float]] = {}  # the generation of each, and when, in the detector's time

    async def save(self) -> None:
        """What waits. Raises Busy; what was not taken waits on."""
        waiting = self._observer.inbox.take_pools(but=self._observer.joining())
        now_s = self._observer.now_s()
        news = {name: reported for name, reported in _named(waiting).items() if self._is_news(name, reported, now_s)}
        if not news:
            return
        try:
            await self._store.run(_save, news)
        except Busy:
            self._observer.inbox.return_pools(waiting)
            raise
        self._written |= {name: (generation, now_s) for name, (_, generation) in news.items()}

    def _is_news(self, name: str, reported: tuple[StoragePool, int], now_s: float) -> bool:
        generation, at_s = self._written.get(name, (-1, 0.0))
        return reported[1] > generation or (reported[1] == generation and now_s - at_s >= AGAIN_S)


def _named(waiting: Mapping[Address, tuple[StoragePool, int]]) -> dict[str, tuple[StoragePool, int]]:
    """By the names of rows; what cannot be is dropped, and the last good report stays."""
    found = {}
    for (host, service), (pool, generation) in waiting.items():
        name, _ = service_kinds.row_of(host, service)
        if all(math.isfinite(size) and 0 <= size <= SIZE_MAX_GB for size in (pool.total_gb, pool.free_gb)):
            found[name] = (msgspec.structs.replace(pool, trouble=storable(pool.trouble)), generation)
        else:
            log.error("report of a pool refused", host=host, because=f"{pool.total_gb} GiB, {pool.free_gb} free")
    return found


def _save(tx: Tx, news: PoolsByName) -> None:
    for name, (pool, generation) in news.items():
        backends.report(tx, name, pool, generation)
