"""Many seeds on several processors."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from droveway.simulation.seed import Outcome, run_seed


def silence() -> None:
    """The simulation reads no logs, and formatting them costs more than what is simulated."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def once_bad() -> list[int]:
    """Seeds that broke a law when they were first played."""
    lines = Path(__file__).with_name("once_bad.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def outcomes(numbers: Sequence[int], jobs: int) -> Iterator[Outcome]:
    """The outcome of each seed, in order; the number of jobs changes nothing but the time it takes."""
    if jobs == 1 or len(numbers) == 1:
        silence()
        yield from map(run_seed, numbers)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(numbers)), initializer=silence) as pool:
        yield from pool.imap(run_seed, numbers, chunksize=1)
