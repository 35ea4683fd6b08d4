"""Seeds are good, and play the same whatever the hashes of strings are and however many processes play them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from droveway.simulation.many import outcomes, silence
from droveway.simulation.seed import COMMANDS_MIN, KILLS_MIN, run_seed

SEEDS = 20  # `./dev sim` and all tests play more of them


@pytest.fixture(scope="module", autouse=True)
def _silent() -> None:
    silence()


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_seed_is_good(seed: int) -> None:
    outcome = run_seed(seed)
    assert outcome.wrong == []
    assert outcome.commands >= COMMANDS_MIN
    assert outcome.kills >= KILLS_MIN


def test_digest_does_not_depend_on_hashes() -> None:
    digests = {_digest_with(hash_seed) for hash_seed in ("0", "4242")}
    assert len(digests) == 1


def test_digest_does_not_depend_on_jobs_or_tracing() -> None:
    alone = [outcome.digest for outcome in outcomes([3, 4], jobs=1)]
    assert [outcome.digest for outcome in outcomes([3, 4], jobs=2)] == alone
    assert run_seed(3, keep_trace=True).digest == alone[0]


def _digest_with(hash_seed: str) -> str:
    played = subprocess.run(
        [sys.executable, "-m", "droveway.simulation", "--first", "5", "--seeds", "3", "--jobs", "1"],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = re.search(r"^digest ([0-9a-f]+)$", played.stdout, re.MULTILINE)
    assert found is not None, played.stdout
    return found[1]
