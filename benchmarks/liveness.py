"""Who is alive: what knowing it costs, how soon a death is seen, and that nobody is taken for dead who is not.

A real `droveway control` is measured from outside: its CPU from /proc, its verdicts and its commits from its database,
which is looked at every 5 ms. With DROVEWAY_BENCH_LONG=1 what is watched for a minute or two is watched for ten.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import structlog

from benchmarks.claims import Claim
from benchmarks.liveness_rows import beats, many, quiet, real, zookeeper

NEEDS = ("hosts", "nats", "zookeeper", "faketime")


def measure() -> Iterator[Claim]:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    yield from beats.measure()
    yield from many.measure()
    yield from quiet.measure(beside=real.measure)
    yield from zookeeper.measure()
