"""A host is admitted to a volume for a client that opens it there by itself: a service beside this program, and no
server of ours. It is let go of by FREE_VOLUME, as a server is."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, require
from droveway.control.sagas.volumes.asking import ask, backend_of, message, show_wait, spec_of
from droveway.domain.model import SagaKind
from droveway.domain.volume.disks import DiskSource
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import AttachmentStatus, VolumeSpec, VolumeStatus
from droveway.ports.volume_verbs import AdmitVolume, WithdrawVolume
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.volume import attachments, volumes


class ConnectingNotes(msgspec.Struct):
    backend: str = ""
    volume: VolumeSpec | None = None
    read_only: bool = False
    source: DiskSource | None = None


def look(tx: Tx, ctx: Context) -> None:
    row, held = volumes.get(tx, ctx.subject.id), attachments.get(tx, ctx.params["attachment_id"])
    require(held["volume_id"] == row["id"], f"attachment {held['id']} is one of another volume")
    require(held["host"] is None and held["instance_id"] is None, f"attachment {held['id']} is held already")
    ctx.notes = ConnectingNotes(backend_of(row), spec_of(row), held["read_only"] or row["read_only"])
    attachments.set_(tx, held["id"], status=AttachmentStatus.ATTACHING.value)
    volumes.set_(tx, row["id"], status=VolumeStatus.ATTACHING.value)


def was_looked_at(notes: ConnectingNotes) -> bool:
    return notes.volume is not None


def reserve_again(tx: Tx, ctx: Context) -> None:
    attachments.set_(tx, ctx.params["attachment_id"], status=AttachmentStatus.RESERVED.value)
    volumes.set_(tx, ctx.subject.id, status=VolumeStatus.RESERVED.value)


async def admit_host(ctx: Context) -> None:
    notes: ConnectingNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    host = ctx.params["host"]
    identity = await ctx.store.read(hosts.disk_identity, host)
    verb = AdmitVolume(notes.volume, host, notes.read_only, identity)
    notes.source = (await ask(ctx, notes.backend, ctx.subject.id, verb)).source


async def withdraw_host(ctx: Context) -> None:
    await ask(ctx, ctx.notes.backend, ctx.subject.id, WithdrawVolume(ctx.params["host"]))


def record_admitted(tx: Tx, ctx: Context) -> None:
    attachments.set_(
        tx, ctx.params["attachment_id"], host=ctx.params["host"], source=msgspec.to_builtins(ctx.notes.source)
    )


def record_failure(tx: Tx, ctx: Context) -> None:
    """It stays reserved; the request that waits is told, and so is who asks later."""
    message(tx, ctx, Action.UPDATE_ATTACHMENT, ctx.error)


def say_nothing(tx: Tx, ctx: Context) -> None:
    """What was begun has been taken back."""


ADMIT_CONNECTOR = Saga(
    SagaKind.ADMIT_CONNECTOR,
    ConnectingNotes,
    (
        Step("look", write=look, unwrite=reserve_again, did=was_looked_at),
        Step("admit_host", do=admit_host, undo=withdraw_host, did=was_looked_at),
        Step("record_admitted", write=record_admitted, pivot=True),
    ),
    failed=record_failure,
    undone=say_nothing,
    blocked=show_wait,
)
