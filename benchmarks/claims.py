"""A claim: a value, its bar, and whether it holds. Printed as a table, or as JSON for other programs."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Claim:
    """`value` in `unit`; it holds when it is at most `bar`, or at least, where the bar is a floor. `note` says what it
    was compared with."""

    claim: str
    value: float
    bar: float
    unit: str
    note: str = ""
    is_floor: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.bar if self.is_floor else self.value <= self.bar


class Rows:
    """Shows each row when it is there, so that none is lost when a later one fails. As JSON they are one object, which
    is complete in itself however it ended: its rows go to standard error as they come."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._shown: list[Claim] = []

    def add(self, one: Claim) -> None:
        out = sys.stderr if self._as_json else sys.stdout
        if not self._shown:
            print(_LINE.format("claim", "value", "bar", "unit", "holds", "note"), file=out)
        self._shown.append(one)
        answer = "yes" if one.holds else "NO"
        value, bar = f"{one.value:.2f}", f"{one.bar:.2f}"
        print(_LINE.format(one.claim, value, bar, one.unit, answer, one.note), file=out, flush=True)

    def __len__(self) -> int:
        return len(self._shown)

    @property
    def hold(self) -> bool:
        return bool(self._shown) and all(one.holds for one in self._shown)

    def end(self, failed: str = "") -> None:
        """`failed`: why there are no more of them."""
        if self._as_json:
            rows = [asdict(one) | {"value": round(one.value, 3), "holds": one.holds} for one in self._shown]
            json.dump({"claims": rows, **({"failed": failed} if failed else {})}, sys.stdout, indent=1)
            print()


_LINE = "{:<58}  {:>12}  {:>12}  {:<5}  {:<5}  {}"


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of those processes so far, at the kernel's full resolution."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def pss_mib(pids: Sequence[int]) -> float:
    """Proportional set size: shared pages are counted once over all of them."""
    kib = 0
    for pid in pids:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kib += next(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return kib / 1024


def progress(text: str) -> None:
    """For whoever watches; never part of the table."""
    print(f"... {text}", file=sys.stderr, flush=True)


median = statistics.median
