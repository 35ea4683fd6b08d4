"""Where it runs: what it costs to choose one host among 10,000 with a reason for each of the others, and to claim it in
the store."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import structlog

from benchmarks import storms
from benchmarks.claims import Claim
from benchmarks.placement_rows import chosen, claimed

NEEDS = ("nats", "postgresql")


def measure() -> Iterator[Claim]:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    yield from chosen.measure()
    yield from claimed.measure()
    yield from storms.measure()
