"""What an audit has found of a volume on a backend, and no row wants, is ended there: hosts that are admitted without
an attachment, snapshots without a row, the whole copy where the volume lies elsewhere.

The rows are looked at anew in the turn of this saga, and what the backend has is asked of it afresh: an older finding
ends nothing. A guest that has the volume open keeps it: a backend refuses then.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step
from droveway.control.sagas.volumes.asking import ask, rest
from droveway.domain.model import SagaKind
from droveway.ports.volume_verbs import DeleteSnapshot, DeleteVolume, ListVolumes, WithdrawVolume
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, snapshots, volumes


class TidyNotes(msgspec.Struct):
    lies_there: bool = True
    hosts: tuple[str, ...] = ()  # that an attachment names
    snapshots: tuple[str, ...] = ()


def look(tx: Tx, ctx: Context) -> None:
    row, held = volumes.get(tx, ctx.subject.id), attachments.of_volume(tx, ctx.subject.id)
    hosts = () if held is None else tuple(host for host in (held["host"], held["to_host"]) if host)
    lies_there = ctx.params["backend"] in (row["host"], row["moving_to"])
    ctx.notes = TidyNotes(lies_there, hosts, tuple(snapshots.of_volume(tx, row["id"])))


async def tidy(ctx: Context) -> None:
    notes, backend, volume_id = ctx.notes, ctx.params["backend"], ctx.subject.id
    listed = await ask(ctx, backend, volume_id, ListVolumes())
    for stored in (one for one in listed.volumes if one.volume_id == volume_id):
        for host in stored.holders:
            if not notes.lies_there or host not in notes.hosts:
                await ask(ctx, backend, volume_id, WithdrawVolume(host))
        for snapshot_id in stored.snapshots:
            if not notes.lies_there or snapshot_id not in notes.snapshots:
                await ask(ctx, backend, volume_id, DeleteSnapshot(snapshot_id))
        if not notes.lies_there:
            await ask(ctx, backend, volume_id, DeleteVolume())


def say_nothing(tx: Tx, ctx: Context) -> None:
    """Nobody has asked for it but the operator, who sees it in the list of sagas."""


TIDY_VOLUME = Saga(
    SagaKind.TIDY_VOLUME,
    TidyNotes,
    (Step("look", write=look, harmless=True), Step("tidy", do=tidy, pivot=True)),
    failed=say_nothing,
    undone=rest,
)
