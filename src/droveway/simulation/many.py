"""Many seeds on several processors."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator

import structlog

from droveway.simulation.seed import Outcome, run_seed


def silence() -> None:
    """The simulation reads no logs, and formatting them costs more than what is simulated."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def outcomes(first: int, seeds: int, jobs: int) -> Iterator[Outcome]:
    """The outcome of each seed, in order; the number of jobs changes nothing but the time it takes."""
    numbers = range(first, first + seeds)
    if jobs == 1 or seeds == 1:
        silence()
        yield from map(run_seed, numbers)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, seeds), initializer=silence) as pool:
        yield from pool.imap(run_seed, numbers, chunksize=1)
