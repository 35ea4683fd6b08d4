"""How often a password may be wrong: so many times a user, and so many an address, within a while.

A name that nobody has counts like any other, so a refusal tells nothing about it. Attempts under way count as if they
were wrong, but those beyond the bound wait for their outcome and are not refused: a user who logs in many times at
once, rightly, is let in. The counts are of this process; with several APIs each has its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from droveway.domain.faults import TooMany

KEYS_MAX = 10_000  # users, and addresses, of which counts are kept


@dataclass(frozen=True, slots=True)
class AttemptBounds:
    """Wrong logins within `window_s`."""

    per_user: int = 10
    per_address: int = 100
    window_s: float = 60.0


@dataclass(slots=True)
class _Count:
    began_s: float
    wrong: int = 0
    under_way: int = 0
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class Attempts:
    def __init__(self, bounds: AttemptBounds) -> None:
        self._bounds = bounds
        self._users: OrderedDict[str, _Count] = OrderedDict()
        self._addresses: OrderedDict[str, _Count] = OrderedDict()

    async def begin(self, user: str, address: str, now_s: float) -> Attempt:
        """Raises TooMany, with how long to wait."""
        bounds = self._bounds
        of_user = self._count(self._users, user, now_s)
        of_address = self._count(self._addresses, address, now_s)
        await self._take(of_user, bounds.per_user, "for this user", now_s)
        is_taken = False
        try:
            await self._take(of_address, bounds.per_address, f"from {address}", now_s)
            is_taken = True
        finally:
            if not is_taken:
                _free(of_user)
        return Attempt(of_user, of_address)

    async def _take(self, count: _Count, most: int, whose: str, now_s: float) -> None:
        while count.wrong + count.under_way >= most:
            if count.wrong >= most:
                wait_s = max(1, round(count.began_s + self._bounds.window_s - now_s))
                raise TooMany(f"There were too many wrong logins {whose}; try again in {wait_s} s.", wait_s)
            freed = asyncio.get_running_loop().create_future()
            count.waiting.append(freed)
            await freed
        count.under_way += 1

    def _count(self, counts: OrderedDict[str, _Count], key: str, now_s: float) -> _Count:
        count = counts.get(key)
        if count is None:
            while len(counts) >= KEYS_MAX:
                counts.popitem(last=False)
            count = counts[key] = _Count(now_s)
        elif now_s >= count.began_s + self._bounds.window_s:
            count.began_s, count.wrong = now_s, 0
        counts.move_to_end(key)
        return count


class Attempt:
    """One that is under way, to be ended."""

    def __init__(self, of_user: _Count, of_address: _Count) -> None:
        self._of_user, self._of_address = of_user, of_address

    def end(self, *, is_wrong: bool) -> None:
        for count in (self._of_user, self._of_address):
            count.wrong += is_wrong
            _free(count)


def _free(count: _Count) -> None:
    count.under_way -= 1
    waiting, count.waiting = count.waiting, []
    for one in waiting:
        if not one.done():
            one.set_result(None)
