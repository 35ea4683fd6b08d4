"""Volumes with one law taken out: the simulation must catch each."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from droveway.control.engine.saga import Context, Saga
from droveway.control.sagas import held_volumes
from droveway.control.sagas.attaching import ATTACH_VOLUME
from droveway.control.sagas.volumes.create import CREATE_VOLUME
from droveway.domain.faults import Unreachable
from droveway.domain.volume.placement import BackendFacts
from droveway.drivers.storage.simulated import SimulatedStorage
from droveway.simulation import guest_volumes
from droveway.simulation.together import TOGETHER
from droveway.simulation.world import Parts
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, backends, volumes
from droveway.store.volume.attachments import HeldVolume, NewAttachment
from tests.simulation.caught import SEEDS_MAX, caught_by

PLAYED = [seed for seed in range(1, 2000) if guest_volumes.are_played(seed)][:SEEDS_MAX]


def caught_after(parts: Parts, first: int = 0) -> tuple[int, str]:
    """`first`: the place of the seed with volumes that is tried first."""
    seed, reason = caught_by(parts, PLAYED[first], PLAYED)
    print(f"caught by seed {seed}, number {PLAYED.index(seed)} of those with volumes: {reason}")
    return seed, reason


class DeletesSnapshotsWithClones(SimulatedStorage):
    def _must_have_no_clones(self, snapshot_id: str) -> None:
        pass


def test_a_snapshot_that_is_deleted_with_its_clones_is_caught() -> None:
    _, reason = caught_after(Parts(storage=DeletesSnapshotsWithClones), first=2)
    assert "hang on it" in reason or "does not lie there" in reason


def story(saga: Saga, **changed: dict[str, Any]) -> Parts:
    """With some steps of one story changed."""
    steps = tuple(dataclasses.replace(step, **changed.get(step.name, {})) for step in saga.steps)
    return Parts(stories=TOGETHER | {saga.kind: dataclasses.replace(saga, steps=steps)})


def test_an_attachment_without_its_claim_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that has it loses the row, and not the volume."""
    reserve = attachments.reserve

    def without_looking(tx: Tx, server: Any, new: NewAttachment) -> str:
        held = attachments.of_volume(tx, new.volume_id)
        if held is not None:
            attachments.remove(tx, held["id"])
            volumes.set_(tx, new.volume_id, status="available")
        return reserve(tx, server, new)

    monkeypatch.setattr(attachments, "reserve", without_looking)
    caught_after(Parts(), first=16)


async def pretends(ctx: Context) -> None:
    ctx.notes.withdrawn = True


def test_a_detach_that_is_forgotten_on_undo_is_caught() -> None:
    _, reason = caught_after(story(ATTACH_VOLUME, admit_host={"undo": pretends}), first=3)
    assert "admits" in reason


def test_an_export_that_is_left_when_its_agent_dies_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not answer counts as done."""
    withdraw = held_volumes.withdraw

    async def as_if_done(ctx: Context, held: HeldVolume, host: str, *, force: bool = False) -> None:
        try:
            await withdraw(ctx, held, host, force=force)
        except Unreachable:
            return

    monkeypatch.setattr(held_volumes, "withdraw", as_if_done)
    _, reason = caught_after(Parts(), first=3)
    assert any(one in reason for one in ("admits", "lies on", "forgotten admission")), reason


async def leaves_it(ctx: Context) -> None:
    ctx.notes.is_removed = True


def test_what_a_failed_creation_leaves_is_caught() -> None:
    _, reason = caught_after(story(CREATE_VOLUME, make_volume={"undo": leaves_it}))
    assert "lies on" in reason or "orphaned volume" in reason, reason


def test_a_claim_that_does_not_count_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    facts_of_all = backends.facts_of_all

    def empty(tx: Tx) -> list[BackendFacts]:
        return [msgspec.structs.replace(one, allocated_gb=0) for one in facts_of_all(tx)]

    monkeypatch.setattr(backends, "facts_of_all", empty)
    _, reason = caught_after(Parts(), first=1)
    assert "are promised" in reason
