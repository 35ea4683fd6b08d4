"""`./dev bench NAME [--json]`: runs one benchmark and prints its claims as they come; exit code 0 when all hold.

A module here has `measure`, which yields claims, and `NEEDS`, what must be installed for it (or `needs(arguments)`):
servers of lab/server-packages, and `hosts` for what real hosts take.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from benchmarks.claims import Claim, Rows
from lab.backing import BackingFailed
from lab.client import ApiFailed
from lab.cloud import CloudFailed
from lab.hosts import LabFailed
from lab.image import ImageFailed
from lab.network import NetworkFailed
from lab.nodes import ServerFailed

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in {"__init__", "__main__", "claims"})
# What says in a sentence why it could not go on; everything else is a bug, and shows where.
FAILURES = (
    ApiFailed,
    BackingFailed,
    CloudFailed,
    ImageFailed,
    LabFailed,
    NetworkFailed,
    ServerFailed,
    TimeoutError,
    subprocess.SubprocessError,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("name", choices=NAMES, help="which claims to measure")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--needs", action="store_true", help="print what must be installed, and measure nothing")
    arguments, more = parser.parse_known_args()
    module = importlib.import_module(f"benchmarks.{arguments.name}")
    takes_more = bool(inspect.signature(module.measure).parameters)
    if more and not takes_more:
        parser.error(f"{arguments.name} takes no {' '.join(more)}")
    if arguments.needs:
        print(" ".join(_needs(module, more)))
        return
    measure = (lambda: module.measure(more)) if takes_more else module.measure
    sys.exit(run(arguments.name, measure, arguments.json))


def _needs(module: ModuleType, arguments: list[str]) -> tuple[str, ...]:
    needed: tuple[str, ...] = module.needs(arguments) if hasattr(module, "needs") else module.NEEDS
    return needed


def run(name: str, measure: Callable[[], Iterable[Claim]], as_json: bool) -> int:
    """Show them as they come; the exit code is 0 when there are some, all hold and none failed."""
    rows, failed = Rows(as_json), "a bug, which is told on standard error"
    try:
        for one in measure():
            rows.add(one)
        failed = ""
    except KeyboardInterrupt:
        failed = "interrupted; what it had started has been ended"
    except FAILURES as failure:
        failed = str(failure) or type(failure).__name__
    finally:
        rows.end(failed)
    if failed:
        print(f"bench: {name} ended after {len(rows)} rows: {failed}", file=sys.stderr)
    return 0 if rows.hold and not failed else 1


if __name__ == "__main__":
    main()
