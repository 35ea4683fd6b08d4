"""`./dev bench NAME [--json]`: runs one benchmark and prints its claims; exit code 0 when all of them hold."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from pathlib import Path

from benchmarks.claims import show

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in {"__init__", "__main__", "claims"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("name", choices=NAMES, help="which claims to measure")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    arguments, more = parser.parse_known_args()
    try:
        measure = importlib.import_module(f"benchmarks.{arguments.name}").measure
        if more and not inspect.signature(measure).parameters:
            parser.error(f"{arguments.name} takes no {' '.join(more)}")
        claims = measure(more) if more else measure()
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; what it had started has been ended")
    sys.exit(show(claims, arguments.json))


if __name__ == "__main__":
    main()
