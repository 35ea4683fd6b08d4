"""What an API asks of controls in other processes. The one that judges is asked first: it knows why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from droveway.control.questions import (
    AUDIT,
    AUDIT_S,
    CONSOLE,
    CONSOLE_TIMEOUT_S,
    HEARD,
    LIST_TASKS_TIMEOUT_S,
    METRICS,
    REPAIR,
    REPAIR_S,
    REPLAY,
    TASKS,
    TRY,
    WHY,
)
from droveway.domain import faults
from droveway.domain.metrics import LivenessMetrics
from droveway.domain.resources import Heard
from droveway.ports.bus import PeerBus, Question
from droveway.store.engine.transaction import Store, Tx
from droveway.store.schema import hosts
from droveway.store.work import leases

HEARD_MAX = 500  # hosts in one answer
CONTROLS_ASKED_MAX = 8  # one after the other; whoever is not there costs no waiting
TIMEOUT_S = 3.0
JOURNEY_S = 1.0  # longer than control itself waits for a host
FAULTS = {kind.__name__: kind for kind in faults.Fault.__subclasses__()}


class FarControl:
    """The same functions as a Control beside the API has. Each raises Unreachable when no control answers."""

    def __init__(self, store: Store, peers: PeerBus) -> None:
        self._store, self._peers = store, peers

    async def why(self, host: str, binary: str) -> dict[str, Any]:
        return dict(await self.ask(WHY, host, binary))

    async def read_console(self, host: str, instance_id: str, length_lines: int | None) -> str:
        return str(await self.ask(CONSOLE, host, instance_id, length_lines, timeout_s=CONSOLE_TIMEOUT_S + JOURNEY_S))

    async def list_tasks(self, host: str) -> list[dict[str, Any]]:
        """A control lists its own tasks under its name, so that one is asked first."""
        return list(await self.ask(TASKS, host, first=host, timeout_s=LIST_TASKS_TIMEOUT_S + JOURNEY_S))

    async def try_placement(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return dict(await self.ask(TRY, wanted))

    async def replay_placement(self, server: str) -> dict[str, Any]:
        return dict(await self.ask(REPLAY, server))

    async def audit(self) -> dict[str, Any]:
        return dict(await self.ask(AUDIT, timeout_s=AUDIT_S + JOURNEY_S))

    async def repair(self, keys: list[str]) -> dict[str, Any]:
        return dict(await self.ask(REPAIR, keys, timeout_s=REPAIR_S + JOURNEY_S))

    async def liveness_metrics(self) -> LivenessMetrics:
        return msgspec.convert(await self.ask(METRICS), LivenessMetrics)

    async def heard(self, names: Sequence[str] = ()) -> dict[str, Heard]:
        """Nothing when no control answers: what hosts measure is no reason to refuse a list. Of many hosts in parts
        that a broker carries."""
        found: dict[str, Heard] = {}
        wanted = names or await self._store.read(_hosts)
        try:
            for first in range(0, len(wanted), HEARD_MAX):
                told = await self.ask(HEARD, *wanted[first : first + HEARD_MAX])
                found |= msgspec.convert(told, dict[str, Heard])
        except faults.Unreachable:
            return {}
        return found

    async def ask(self, about: str, *arguments: Any, first: str = "", timeout_s: float = TIMEOUT_S) -> Any:
        """Of whichever control answers: `first` if there is one of that name, then the judge, then the others."""
        known = await self._store.read(_controls)
        names = sorted(known, key=lambda name: (name != first, name != known[0]))
        last = "none has ever started"
        for name in names[:CONTROLS_ASKED_MAX]:
            try:
                return await self.ask_one(name, about, *arguments, timeout_s=timeout_s)
            except _Silent as silent:
                last = silent.sentence
        raise faults.Unreachable(f"No control answers ({last}): see that one runs, and reaches the same broker.")

    async def ask_one(self, control: str, about: str, *arguments: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Of that control. Raises Unreachable, and what it raised itself."""
        try:
            reply = await self._peers.ask(control, Question(about, arguments), timeout_s)
        except faults.Unreachable as fault:
            raise _Silent(fault.sentence) from None
        if reply.fault:
            raise FAULTS.get(reply.fault, faults.Conflict)(reply.sentence)
        return reply.value


class _Silent(faults.Unreachable):
    """The control itself did not answer; a host that it asked would be Unreachable alone."""


def _hosts(tx: Tx) -> list[str]:
    return list(tx.execute(select(hosts.c.name)).scalars())


def _controls(tx: Tx) -> list[str]:
    """The judge, if there is one, then every other control that ever held a lease, by name."""
    rows = leases.listing(tx)
    judge = [row["owner"] for row in rows if row["name"] == leases.JUDGE and row["owner"]]
    others = sorted(
        row["name"].removeprefix(leases.CONTROLS) for row in rows if row["name"].startswith(leases.CONTROLS)
    )
    return [*judge, *(name for name in others if name not in judge)]
