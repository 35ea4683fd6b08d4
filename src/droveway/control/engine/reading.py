"""Sagas as rows, read by this release: one that another release wrote stays as it is, which its row says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec
import structlog

from droveway.control.engine.run import Run
from droveway.control.engine.saga import UnknownStep
from droveway.domain.faults import Busy
from droveway.domain.model import SagaStatus
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store
from droveway.store.rows import SagaRow
from droveway.store.work import sagas

log = structlog.get_logger("droveway.saga")
LOOK_AGAIN_S = 60.0
OTHER_RELEASE = (
    "it stays as it is, and nothing else is done to what it is about, until a control of the release that "
    "wrote it, or of a newer one, runs on this database"
)


class RunReader:
    """Reads rows with `run_of`, and keeps for LOOK_AGAIN_S those that cannot be read: none is adopted, so
    that a control of another release may."""

    def __init__(self, store: Store, clock: Clock, run_of: Callable[[SagaRow], Run]) -> None:
        self._store, self._clock, self._run_of = store, clock, run_of
        self._unreadable: dict[str, str] = {}  # saga id: why
        self._forgot_s = clock.monotonic_s()

    def passed_over(self) -> frozenset[str]:
        """The ids of those that need not be looked at now."""
        now_s = self._clock.monotonic_s()
        if now_s - self._forgot_s >= LOOK_AGAIN_S:  # a control of another release may have run them on
            self._unreadable, self._forgot_s = {}, now_s
        return frozenset(self._unreadable)

    def read(self, row: SagaRow) -> Run | None:
        """None where this release cannot; `say` says so."""
        try:
            return self._run_of(row)
        except UnknownStep:
            what = f"knows no step {row['step'][:64]!r} of {row['kind']}"
        except msgspec.ValidationError as error:
            what = f"cannot read what {row['kind']} has noted ({error})"
        except (KeyError, ValueError):
            what = f"knows no saga of the kind {row['kind'][:64]!r} about a {row['subject_kind'][:64]}"
        self._unreadable[row["id"]] = f"this release {what}: {OTHER_RELEASE}"
        return None

    async def look_at_broken(self) -> None:
        """No control runs them; before a retry an operator must know whether this release can."""
        with contextlib.suppress(Busy):
            found = await self._store.read(sagas.broken)
            for row in found:
                self.read(row)
            await self.save_reasons(found)

    async def save_reasons(self, found: Sequence[SagaRow]) -> None:
        """In the rows, for lists of sagas. Adoption clears it. Raises Busy."""
        changed: dict[str, str | None] = {}
        for row in found:
            why = self._unreadable.get(row["id"])
            if why != row["unreadable"] and (why is not None or row["status"] == SagaStatus.BROKEN):
                changed[row["id"]] = why
        if not changed:
            return
        await self._store.run(sagas.say_unreadable, changed)
        for saga_id, why in changed.items():
            if why is not None:
                log.error("saga cannot be read", saga=saga_id, because=why)
