"""Can the queue and the scheduler bear thousands of nodes? A real control, a real PostgreSQL, a real broker, and
simulated hosts whose agents are the program's own, twenty to a connection (fleet_rows/hosts_process.py says what is
simulated). All of it on this machine: what a part costs is its CPU time, from outside.

    --hosts N       10000, or 2000 over RabbitMQ
    --bus BUS       nats | rabbitmq
    --only ROWS     of: join,rest,creates,lost,outage,audit (join is always done)

With DROVEWAY_BENCH_LONG=1 the fleet at rest is watched for ten minutes instead of two.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.claims import Claim
from benchmarks.fleet_rows import audit, creates, lost, outage, rig, steady

ROWS = ("join", "rest", "creates", "lost", "outage", "audit")
HOSTS = {"nats": 10_000, "rabbitmq": 2_000}
CREATES_A_HOST, LOST_SHARE = 0.5, 0.1


def needs(arguments: Sequence[str] = ()) -> tuple[str, ...]:
    return _options(arguments).bus, "postgresql"


def measure(arguments: Sequence[str] = ()) -> Iterator[Claim]:
    options = _options(arguments)
    return _rows(options.hosts or HOSTS[options.bus], options.bus, options.only.split(","))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--bus", choices=tuple(HOSTS), default="nats")
    parser.add_argument("--only", default=",".join(ROWS))
    options = parser.parse_args(arguments)
    for row in options.only.split(","):
        if row not in ROWS:
            parser.error(f"there are no rows {row}; there are {', '.join(ROWS)}")
    return options


def _rows(hosts: int, bus: str, wanted: Sequence[str]) -> Iterator[Claim]:
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as home, rig.cloud(Path(home), bus, hosts) as cloud:
        yield from steady.join(cloud)
        if "rest" in wanted:
            yield from steady.rest(cloud)
        if "creates" in wanted:
            yield from creates.measure(cloud, int(hosts * CREATES_A_HOST))
        if "lost" in wanted:
            yield from lost.measure(cloud, int(hosts * LOST_SHARE))
        if "outage" in wanted:
            yield from outage.measure(cloud, creates.api_of(cloud))
        if "audit" in wanted:
            yield from audit.measure(cloud)
