"""What a service without a hypervisor says of itself: at once when it has changed, and each minute."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from droveway.domain.metrics import TaskMetrics
from droveway.domain.volume.model import StoragePool
from droveway.ports.bus import AgentBus, ServiceReport
from droveway.ports.clock import Clock

FULL_S = 60.0
LOOK_S = 5.0  # between two looks


class PoolReport(NamedTuple):
    pool: StoragePool | None = None
    generation: int = 0


class HealthReports:
    """`health` says whether all is well and how it is; `tasks`, the service's periodic tasks; `pool`, how its backend
    stands, with the generation of that; `passwords`, what guests have set: said again until they are told it back."""

    def __init__(
        self,
        host: str,
        service: str,
        boot_id: str,
        bus: AgentBus,
        clock: Clock,
        health: Callable[[], tuple[bool, str]],
        tasks: Callable[[], tuple[TaskMetrics, ...]] = tuple,
        pool: Callable[[], PoolReport] = PoolReport,
        passwords: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._host, self._service, self._boot_id = host, service, boot_id
        self._bus, self._clock, self._health, self._tasks, self._pool = bus, clock, health, tasks, pool
        self._passwords = passwords
        self._due = asyncio.Event()
        self._sent: tuple[tuple[bool, str], PoolReport] | None = None

    def ask(self) -> None:
        """Control knows nothing yet."""
        self._sent = None
        self._due.set()

    def look(self) -> None:
        """It may have changed."""
        self._due.set()

    def full(self) -> ServiceReport:
        """How it is now."""
        passwords = dict(self._passwords())
        return ServiceReport(
            self._host, self._service, self._boot_id, *self._health(), self._tasks(), *self._pool(), passwords
        )

    async def run(self) -> None:
        """Until cancelled."""
        full_at_s = self._clock.monotonic_s()
        while True:
            health, pool, now_s = self._health(), self._pool(), self._clock.monotonic_s()
            if (health, pool) != self._sent or now_s >= full_at_s or self._passwords():
                self._sent, full_at_s = (health, pool), now_s + FULL_S
                self._bus.notify(self.full())
            self._due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, max(0.0, full_at_s - now_s))):
                    await self._due.wait()
