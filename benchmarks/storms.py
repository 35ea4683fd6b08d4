"""Storms of creations through the API: 1,000 hosts over NATS and PostgreSQL, and ten as anybody starts them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.claims import Claim, progress
from benchmarks.fleet_rows import creates, rig, small, steady

HOSTS, CREATES = 1_000, 1_000
NEEDS = ("nats", "postgresql")


def measure() -> Iterator[Claim]:
    yield from _many()
    yield from small.measure()


def _many() -> list[Claim]:
    progress(f"{HOSTS:,} hosts over NATS, PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as home, rig.cloud(Path(home), "nats", HOSTS) as cloud:
        steady.join(cloud)
        return creates.measure(cloud, CREATES)
