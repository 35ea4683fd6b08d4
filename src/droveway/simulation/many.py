"""Many seeds on several processors."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence

import structlog

from droveway.simulation.seed import Outcome, run_seed


def silence() -> None:
    """The simulation reads no logs, and formatting them costs more than what is simulated."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def _timed(seed: int) -> Outcome:
    """A seed may cost more from release to release, because it does more; not each command of it."""
    began = os.times()
    outcome = run_seed(seed)
    ended = os.times()
    outcome.cpu_s = ended.user + ended.system - began.user - began.system
    return outcome


def outcomes(numbers: Sequence[int], jobs: int) -> Iterator[Outcome]:
    """The outcome of each seed, in order; the number of jobs changes nothing but the time it takes."""
    if jobs == 1 or len(numbers) == 1:
        silence()
        yield from map(_timed, numbers)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(numbers)), initializer=silence) as pool:
        yield from pool.imap(_timed, numbers, chunksize=1)
        pool.close()
        pool.join()  # left to the end of `with` they would be killed, and leave their files behind
