"""A program that does not look at guests which are held: the simulation must catch it, too."""

from __future__ import annotations

from typing import Any

import pytest

from droveway.control.loops import guests
from droveway.domain.reconcile import Remedy, remedy
from droveway.simulation.world import Parts
from tests.simulation.test_mutants import caught_by


def test_a_pause_that_was_refused_and_obeyed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host says of guests that are held is not looked at."""

    def blind(*arguments: Any) -> Remedy:
        found = remedy(*arguments)
        return Remedy.NOTHING if found in (Remedy.RECORD_PAUSED, Remedy.RECORD_SUSPENDED) else found

    monkeypatch.setattr(guests, "remedy", blind)
    seed, reason = caught_by(Parts(), 81)
    print(f"what is held is not looked at: caught by seed {seed}: {reason}")
