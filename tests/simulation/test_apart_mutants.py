"""Moves between hosts that do not see one store, with one law taken out: the simulation must catch each."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from droveway.control.engine.saga import Context
from droveway.control.sagas import STORIES, local_files
from droveway.control.sagas.live_migration import LIVE_MIGRATION
from droveway.domain.model import SagaKind
from droveway.ports.bus import DropFiles
from droveway.simulation.world import Parts, stores_are_apart
from droveway.store.engine.transaction import Tx
from tests.simulation.caught import caught_by

SEEDS = 60
PLAYED = [seed for seed in range(1, 2000) if stores_are_apart(seed)][:SEEDS]


def migration(**changed: dict[str, Any]) -> Parts:
    steps = tuple(dataclasses.replace(step, **changed.get(step.name, {})) for step in LIVE_MIGRATION.steps)
    return Parts(stories=STORIES | {SagaKind.LIVE_MIGRATION: dataclasses.replace(LIVE_MIGRATION, steps=steps)})


async def drop_without_a_mark(ctx: Context) -> None:
    """Whatever lies at the destination is deleted."""
    await ctx.ask(ctx.notes.destination, DropFiles(), ctx.settings.long_command_timeout_s)


async def leave(ctx: Context) -> None:
    """The host is said to have deleted them."""
    ctx.notes.files_deleted = True


MUTANTS = {
    "the source keeps its files": (migration(drop_files={"do": leave}), PLAYED[0]),
    "what did not arrive is kept": (migration(prepare_files={"undo": leave}), PLAYED[0]),
    "files are not its own when it has arrived": (migration(keep_files={"needed": lambda _: False}), PLAYED[0]),
    "what did not arrive is deleted without its mark": (
        migration(prepare_files={"undo": drop_without_a_mark}),
        97,
    ),
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    parts, first = MUTANTS[name]
    seed, reason = caught_by(parts, first, PLAYED)
    print(f"{name}: caught by seed {seed}: {reason}")


def test_a_deletion_left_for_later_that_nobody_does_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(tx: Tx, ctx: Context) -> None:
        pass

    monkeypatch.setattr(local_files, "record_left", forget)
    monkeypatch.setattr(local_files, "record_not_arrived", forget)
    seed, reason = caught_by(Parts(), 12, PLAYED)
    print(f"a deletion left for later: caught by seed {seed}: {reason}")
