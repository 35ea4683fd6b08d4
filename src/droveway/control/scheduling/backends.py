"""Which backend a volume shall lie on: the request is read from its row, the choice claimed in that transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from droveway.domain.faults import NotFound
from droveway.domain.placement import Plan
from droveway.domain.volume.placement import VolumeRequest
from droveway.scheduler import backends as scheduler
from droveway.store.engine.transaction import Tx
from droveway.store.volume import backends, placements, snapshots, volumes
from droveway.store.volume.rows import VolumeRow


class Choice(msgspec.Struct, frozen=True):
    """`backend` None: none was found, and `reason` says why."""

    ask: VolumeRequest
    plan: Plan
    backend: str | None = None
    races: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        if self.races and self.plan.ranked:
            return f"{scheduler.NOT_FOUND}: those that fitted were taken meanwhile: {'; '.join(self.races)}"
        return scheduler.reason(self.plan)


def to_create(tx: Tx, volume: VolumeRow, requested: str | None, refused: Mapping[str, str]) -> VolumeRequest:
    """For its making; `refused`: the backends that did, with their words. What is made of a snapshot or a volume lies
    where that does."""
    of_type, hints = backends.specs_of_type(tx, volume["volume_type_id"]), volume["hints"] or {}
    source, because = _source(tx, volume)
    only = requested or source
    if requested is not None and source is not None and source != requested:
        because = f"what it is made of lies on {source}, and {requested} was asked for"
        only = ""
    return VolumeRequest(
        volume["size_gb"],
        of_type.name,
        dict(of_type.extra_specs),
        volume["zone"] or None,
        only,
        because,
        dict(refused),
        _of_volumes(tx, volume["project_id"], hints["same_host"]) if hints.get("same_host") else None,
        _of_volumes(tx, volume["project_id"], hints.get("different_host")) or (),
    )


def to_move(tx: Tx, volume: VolumeRow, volume_type_id: str | None, requested: str | None) -> VolumeRequest:
    """For another backend than the one where it lies."""
    of_type = backends.specs_of_type(tx, volume_type_id)
    return VolumeRequest(
        volume["size_gb"],
        of_type.name,
        dict(of_type.extra_specs),
        volume["zone"] or None,
        requested,
        never={volume["host"] or "": "it lies there already"},
    )


def unmet(tx: Tx, backend: str, volume_type_id: str | None) -> str:
    """What that type wants and that backend does not have; empty: nothing."""
    of_type = backends.specs_of_type(tx, volume_type_id)
    ask = VolumeRequest(0, of_type.name, dict(of_type.extra_specs))
    for one in backends.facts_of_all(tx):
        if one.name == backend:
            return scheduler.unmet(one, ask)
    return f"there is no backend {backend}"


def claim_more(tx: Tx, backend: str, more_gb: int, counted_gb: int) -> str:
    """Room for a volume there to grow by so much, of which `counted_gb` are in its row; why there is none."""
    for one in backends.facts_of_all(tx):
        if one.name == backend:
            before = msgspec.structs.replace(one, allocated_gb=one.allocated_gb - counted_gb)
            failing = scheduler.first_failing(before, VolumeRequest(more_gb), scheduler.ROOM)
            if failing is None and not backends.claim(tx, one):
                return f"{backend}: another placement was first"
            return "" if failing is None else f"{backend}: {failing[1]}"
    return f"there is no backend {backend}"


def _source(tx: Tx, volume: VolumeRow) -> tuple[str | None, str]:
    """Raises NotFound when it was deleted meanwhile."""
    if volume["snapshot_id"] is not None:
        of = snapshots.get(tx, volume["snapshot_id"])["volume_id"]
        return volumes.get(tx, of)["host"], f"snapshot {volume['snapshot_id']} lies elsewhere"
    if volume["source_volume_id"] is not None:
        return volumes.get(tx, volume["source_volume_id"])["host"], (
            f"volume {volume['source_volume_id']} lies elsewhere"
        )
    return None, ""


def _of_volumes(tx: Tx, project_id: str, named: Any) -> tuple[str, ...]:
    """Where the volumes of a hint are now; one alone may stand without a list. Another project's is as absent as one
    that never existed."""
    found = set[str]()
    for volume_id in [named] if isinstance(named, str) else list(named or ()):
        try:
            host = volumes.get(tx, str(volume_id), project_id)["host"]
        except NotFound:
            continue
        found |= {host} if host is not None else set()
    return tuple(sorted(found))


def plan(tx: Tx, ask: VolumeRequest) -> Choice:
    """What would be chosen now; nothing is claimed."""
    return Choice(ask, scheduler.place(backends.facts_of_all(tx), ask, int(tx.names.uuid()[:8], 16)))


def choose(tx: Tx, ask: VolumeRequest) -> Choice:
    """A backend for `ask`, claimed; the caller writes the row that holds the claim in the same transaction."""
    facts = {one.name: one for one in backends.facts_of_all(tx)}
    made = scheduler.place(list(facts.values()), ask, int(tx.names.uuid()[:8], 16))
    races = list[str]()
    for fitting in made.ranked:
        if backends.claim(tx, facts[fitting.name]):
            return Choice(ask, made, fitting.name, tuple(races))
        races.append(f"{fitting.name}: another placement was first")
    return Choice(ask, made, races=tuple(races))


def record(tx: Tx, volume_id: str, project_id: str, choice: Choice, kind: str, *, is_first: bool = False) -> None:
    """As it is kept in `volume_placements`."""
    body = {"kind": kind, "ask": choice.ask, "plan": choice.plan, "races": choice.races}
    placements.record(tx, volume_id, project_id, choice.backend, msgspec.to_builtins(body), is_first=is_first)
