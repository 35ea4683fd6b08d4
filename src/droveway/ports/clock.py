"""Time, chance and names come through here (law 7); nothing else may ask the operating system for them."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Guarantees: `monotonic_s` never goes back while its machine is up, and is the same for every process there; two
    machines' are never compared. `now_us` is wall time, for people only."""

    def monotonic_s(self) -> float: ...
    def now_us(self) -> int:
        """UTC, microseconds since 1970."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Chance(Protocol):
    def uniform(self, low: float, high: float) -> float: ...


class Names(Protocol):
    def uuid(self) -> str:
        """A fresh random UUID, lower case with dashes."""
        ...

    def secret(self) -> str:
        """A fresh URL-safe secret of at least 128 bits."""
        ...
