"""Lists that are kept as things come and go: each change costs what it is itself."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

F = TypeVar("F")


class Index(Generic[F]):
    """Things by a key that several have."""

    def __init__(self) -> None:
        self._of: defaultdict[str, dict[str, F]] = defaultdict(dict)

    def add(self, key: str, name: str, one: F) -> None:
        self._of[key][name] = one

    def remove(self, key: str, name: str) -> None:
        there = self._of[key]
        there.pop(name, None)
        if not there:
            del self._of[key]

    def of(self, key: str) -> Mapping[str, F]:
        return self._of.get(key, {})


class Members:
    """The addresses of a group's ports, sorted, each once; how many have it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sorted: list[str] = []
        self._all: tuple[str, ...] | None = ()

    def add(self, addresses: Iterable[str]) -> None:
        for one in addresses:
            self._counts[one] += 1
            if self._counts[one] == 1:
                insort(self._sorted, one)
                self._all = None

    def remove(self, addresses: Iterable[str]) -> None:
        for one in addresses:
            self._counts[one] -= 1
            if not self._counts[one]:
                del self._counts[one]
                del self._sorted[bisect_left(self._sorted, one)]
                self._all = None

    def all(self) -> tuple[str, ...]:
        if self._all is None:
            self._all = tuple(self._sorted)
        return self._all
