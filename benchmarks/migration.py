"""Live migration beside bare libvirt, in turn on the same two hosts, and what it costs control.

    ./dev bench migration [ROWS] [--quick]

ROWS are any of: totals (idle guests), silence (as a UDP beacon hears it), trips (ten times there and back), writing
(a guest that writes faster than it is copied), block (disks go along), rbd (they lie in Ceph), killed (control, in
mid-copy), foreseen (predictions), cost (CPU, simulated hosts), queue (200 at once). Without any: all of them.
`--quick`: a fifth of the pairs, for a look; its rows are no figures for the docs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

from benchmarks.claims import Claim
from benchmarks.migration_rows import disks, foreseen, restarted, silence, simulated, totals, writing

ROWS: dict[str, Callable[[int], Iterator[Claim]]] = {
    "totals": totals.measure,
    "silence": silence.measure,
    "trips": silence.there_and_back,
    "writing": writing.measure,
    "block": disks.block,
    "rbd": disks.rbd,
    "killed": restarted.measure,
    "foreseen": foreseen.measure,
    "cost": simulated.cost,
    "queue": simulated.queue,
}
SIMULATED = {"cost", "queue"}
QUICK = 5  # times fewer


def needs(arguments: Sequence[str] = ()) -> tuple[str, ...]:
    wanted = set(_options(arguments).rows or ROWS)
    return (*(("hosts",) if wanted - SIMULATED else ()), *(("ceph",) if "rbd" in wanted else ()))


def measure(arguments: Sequence[str] = ()) -> Iterator[Claim]:
    options = _options(arguments)
    for name in options.rows or ROWS:
        yield from ROWS[name](QUICK if options.quick else 1)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench migration", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROWS")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    for row in options.rows:
        if row not in ROWS:
            parser.error(f"there are no rows {row}; there are {', '.join(ROWS)}")
    return options
