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
from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims import Claim
from benchmarks.fleet_rows import audit, creates, lost, outage, rig, steady

ROWS = ("join", "rest", "creates", "lost", "outage", "audit")
HOSTS = {"nats": 10_000, "rabbitmq": 2_000}
CREATES_A_HOST, LOST_SHARE = 0.5, 0.1


def measure(arguments: Sequence[str] = ()) -> list[Claim]:
    parser = argparse.ArgumentParser(prog="./dev bench fleet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--bus", choices=tuple(HOSTS), default="nats")
    parser.add_argument("--only", default=",".join(ROWS))
    options = parser.parse_args(arguments)
    wanted = options.only.split(",")
    for row in wanted:
        if row not in ROWS:
            parser.error(f"there are no rows {row}; there are {', '.join(ROWS)}")
    return _rows(options.hosts or HOSTS[options.bus], options.bus, wanted)


def _rows(hosts: int, bus: str, wanted: Sequence[str]) -> list[Claim]:
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as home, rig.cloud(Path(home), bus, hosts) as cloud:
        claims = steady.join(cloud)
        if "rest" in wanted:
            claims += steady.rest(cloud)
        if "creates" in wanted:
            claims += creates.measure(cloud, int(hosts * CREATES_A_HOST))
        if "lost" in wanted:
            claims += lost.measure(cloud, int(hosts * LOST_SHARE))
        if "outage" in wanted:
            claims += outage.measure(cloud, creates.api_of(cloud))
        if "audit" in wanted:
            claims += audit.measure(cloud)
        return claims
