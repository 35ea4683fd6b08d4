"""Simulated mounts: whether a host's instance store answers it. One that does not lets every call wait that touches it,
and gives no sign."""

from __future__ import annotations

import asyncio

from droveway.drivers.hypervisor.store_watch import ANSWERS_WITHIN_S
from droveway.ports.clock import Clock


class Mounts:
    """By the name of the host. A host that reboots mounts its store anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hung: dict[str, tuple[float, asyncio.Event]] = {}  # since when, and what those wait for that touched it

    def hang(self, host: str) -> None:
        self._hung.setdefault(host, (self._clock.monotonic_s(), asyncio.Event()))

    def answer(self, host: str) -> None:
        """Again; what waited goes on."""
        _, answered = self._hung.pop(host, (0.0, None))
        if answered is not None:
            answered.set()

    def hangs(self, host: str) -> bool:
        return host in self._hung

    def trouble(self, host: str) -> str:
        """What StoreWatch would say."""
        since_s, _ = self._hung.get(host, (None, None))
        if since_s is None or self._clock.monotonic_s() - since_s < ANSWERS_WITHIN_S:
            return ""
        return f"the instance store of {host} does not answer: nothing was written there for {ANSWERS_WITHIN_S:.0f} s"

    async def touch(self, host: str) -> None:
        """Returns when the store answers that host."""
        while host in self._hung:
            await self._hung[host][1].wait()
