"""Play scenarios, or write down what they show now:

    python -m tests.scenarios.play [--rewrite] [FILE …]

Without files all of tests/scenarios/*.txt. docs/scenarios.md tells how to read and to add one.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import logging
import sys
from pathlib import Path

import structlog

from tests.scenarios.detector import Detector
from tests.scenarios.placement import Placement
from tests.scenarios.sagas import Sagas
from tests.scenarios.text import Player, WrongScenario, rewritten

HERE = Path(__file__).resolve().parent
PLAYERS: dict[str, type[Player]] = {"detector": Detector, "placement": Placement, "sagas": Sagas}


def files() -> list[Path]:
    return sorted(HERE.glob("*.txt"))


def difference(path: Path, *, rewrite: bool = False) -> str:
    """What the scenario shows now and the file does not, as a unified diff; empty when they agree. `rewrite`: the
    file is written anew. Raises WrongScenario."""
    stands = path.read_text()
    now = asyncio.run(rewritten(stands, path.name, PLAYERS))
    if rewrite and now != stands:
        path.write_text(now)
    lines = difflib.unified_diff(stands.splitlines(), now.splitlines(), path.name, "as it is now", lineterm="", n=2)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Play scenarios.")
    parser.add_argument("--rewrite", action="store_true", help="write down what each act shows now")
    parser.add_argument("files", nargs="*", type=Path, help="all of tests/scenarios/*.txt unless given")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    differs = False
    for path in given.files or files():
        try:
            found = difference(path, rewrite=given.rewrite)
        except (WrongScenario, OSError) as error:
            print(error, file=sys.stderr)
            return 2
        differs = differs or bool(found)
        print(f"{path.name}: {'rewritten' if found and given.rewrite else 'differs' if found else 'as it stands'}")
        if found:
            print(found)
    return int(differs and not given.rewrite)


if __name__ == "__main__":
    sys.exit(main())
