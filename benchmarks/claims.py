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
    """`value` in `unit`; it holds when it is at most `bar`. `note` says what it was compared with."""

    claim: str
    value: float
    bar: float
    unit: str
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= self.bar


def show(claims: Sequence[Claim], as_json: bool) -> int:
    """Print them; the exit code is 0 when all hold."""
    if as_json:
        rows = [asdict(one) | {"value": round(one.value, 3), "holds": one.holds} for one in claims]
        json.dump({"claims": rows}, sys.stdout, indent=1)
        print()
    else:
        wide = max(len(one.claim) for one in claims)
        print(f"{'claim':<{wide}}  {'value':>10}  {'bar':>10}  {'unit':<5}  holds  note")
        for one in claims:
            answer = "yes" if one.holds else "NO"
            print(f"{one.claim:<{wide}}  {one.value:>10.2f}  {one.bar:>10.2f}  {one.unit:<5}  {answer:<5}  {one.note}")
    return 0 if all(one.holds for one in claims) else 1


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
