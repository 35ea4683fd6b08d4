"""Plays worlds with a program from which one law was taken out, until one of them shows it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from droveway.simulation.many import silence
from droveway.simulation.seed import run_seed
from droveway.simulation.world import Parts

SEEDS_MAX = 40


def caught_by(parts: Parts, first: int, seeds: Iterable[int] = range(1, SEEDS_MAX + 1)) -> tuple[int, str]:
    """The seed that was bad, and what was said of it. The world that caught it when last looked comes first, which only
    saves time: each of the others may do as well. `pytest -rA tests/simulation` prints which it is now."""
    silence()
    for seed in dict.fromkeys((first, *seeds)):
        wrong = [reason for reason in run_seed(seed, parts).wrong if not reason.startswith("only ")]  # commands
        if wrong:
            assert "TypeError" not in wrong[0], f"the mutant does not fit the program: {wrong[0]}"
            return seed, wrong[0]
    pytest.fail("no seed caught it")
