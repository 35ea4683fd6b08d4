"""The volumes of a server in its stories: a host is let to them before its guest begins there, and taken from them once
nothing of the guest is left there.

Which host is admitted to a volume stands in the row of its attachment. It is written when the volume's backend has said
so, and taken back when the backend has said that it has ended: a backend that does not answer leaves the row as it is,
and the volume is nobody else's meanwhile.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, SpecNotes, require
from droveway.control.sagas.volumes.asking import ask
from droveway.control.sagas.whereabouts import MoveNotes
from droveway.domain.faults import StepFailed, Unreachable
from droveway.domain.model import SagaKind, TaskState
from droveway.domain.volume.disks import DiskSource, are_same_bytes
from droveway.domain.volume.model import AttachmentStatus, VolumeStatus, of_volume
from droveway.ports.volume_verbs import AdmitVolume, WithdrawVolume
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import declared, hosts
from droveway.store.volume import attachments, volumes
from droveway.store.volume.attachments import HeldVolume
from droveway.store.volume.rows import VolumeRow
from droveway.store.work import sagas

USABLE = frozenset({VolumeStatus.AVAILABLE, VolumeStatus.RESERVED, VolumeStatus.ATTACHING, VolumeStatus.IN_USE})


# -- what is asked of backends ----------------------------------------------------------------------------------------
async def admit(ctx: Context, held: HeldVolume, host: str) -> DiskSource:
    identity = await ctx.store.read(hosts.disk_identity, host)
    verb = AdmitVolume(held.volume, host, held.read_only, identity)
    return (await ask(ctx, held.backend, held.volume.volume_id, verb)).source


async def withdraw(ctx: Context, held: HeldVolume, host: str, *, force: bool = False) -> None:
    """From a host that was declared gone it is taken by force: what its guest has open is cut off."""
    force = force or host in await _gone(ctx)
    await ask(ctx, held.backend, held.volume.volume_id, WithdrawVolume(host, force))


async def _gone(ctx: Context) -> set[str]:
    words = await ctx.store.read(declared.words)
    return {word.host for word in words if word.declared == declared.GONE}


# -- all of a server's, at one host -----------------------------------------------------------------------------------
def find(tx: Tx, ctx: Context) -> None:
    """Those of its row; each must be there, and be used by nobody else."""
    held = attachments.held_by(tx, ctx.instance_id)
    for one in held:
        must_be_usable(volumes.get(tx, one.volume.volume_id))
    ctx.notes.volumes = held


def must_be_usable(row: VolumeRow) -> None:
    """Raises StepFailed."""
    why = f": {row['fault']}" if row["fault"] else ""
    require(row["status"] in USABLE, f"volume {row['id']} is {row['status']}{why}")
    require(row["host"] is not None, f"volume {row['id']} lies on no backend")


def has_any(notes: SpecNotes) -> bool:
    return bool(notes.volumes)


async def admit_all(ctx: Context) -> None:
    """The host that was chosen, to each of them. Its name is written before the backend is asked: the saga that frees
    the volume must know that the host may be admitted."""
    notes: SpecNotes = ctx.notes
    for one in notes.volumes:
        await admit_one(ctx, one, notes.host)


async def admit_one(ctx: Context, one: HeldVolume, host: str) -> None:
    await ctx.store.run(_write_host, one.attachment_id, host, None)
    source = await admit(ctx, one, host)
    await ctx.store.run(_write_host, one.attachment_id, host, source)


async def withdraw_one(ctx: Context, one: HeldVolume, host: str) -> None:
    """Nothing of the guest has it open there."""
    await withdraw(ctx, one, host)
    await ctx.store.run(_write_withdrawn, one.attachment_id, host)


def _write_host(tx: Tx, attachment_id: str, host: str, source: DiskSource | None) -> None:
    attachments.set_(tx, attachment_id, host=host, source=None if source is None else msgspec.to_builtins(source))


def take_along(tx: Tx, ctx: Context) -> None:
    """The guest is given them."""
    if ctx.notes.volumes:
        assert ctx.notes.spec is not None, "its host was chosen"
        ctx.notes.spec = msgspec.structs.replace(ctx.notes.spec, volumes=attachments.disks(tx, ctx.instance_id))


async def withdraw_all(ctx: Context) -> None:
    """Nothing of the guest is left on that host. Where a backend does not answer, and the server is to be deleted, that
    is left to its deletion, which waits for none; and so it is where the guest may be left."""
    notes: SpecNotes = ctx.notes
    if notes.is_left:
        return
    for one in notes.volumes:
        try:
            await withdraw(ctx, one, notes.host)
        except (StepFailed, Unreachable):
            if (await ctx.store.read(instances.get, ctx.instance_id))["task_state"] != TaskState.DELETING:
                raise
            return
        await ctx.store.run(_write_withdrawn, one.attachment_id, notes.host)


def _write_withdrawn(tx: Tx, attachment_id: str, host: str) -> None:
    row = attachments.get(tx, attachment_id)
    if row["host"] == host:
        attachments.set_(tx, attachment_id, host=None, source=None)
    if row["to_host"] == host:
        attachments.set_(tx, attachment_id, to_host=None)


def record_in_use(tx: Tx, ctx: Context) -> None:
    """The guest has them."""
    for one in ctx.notes.volumes:
        set_in_use(tx, one.attachment_id, one.volume.volume_id)


def set_in_use(tx: Tx, attachment_id: str, volume_id: str) -> None:
    attachments.set_(tx, attachment_id, status=AttachmentStatus.ATTACHED.value, attached_at_us=tx.now_us)
    volumes.set_(tx, volume_id, status=VolumeStatus.IN_USE.value, previous_status=None)


# -- of one that moves ------------------------------------------------------------------------------------------------
def has_volumes(move: MoveNotes) -> bool:
    return bool(move.volumes)


def moves_with_volumes(move: MoveNotes) -> bool:
    return bool(move.volumes and move.destination)


async def admit_destination(ctx: Context) -> None:
    """To each of them, before its hypervisor opens them; the source stays admitted. What the guest opens there must be
    the same bytes; by which port may differ."""
    move: MoveNotes = ctx.notes
    assert move.spec is not None, "it was found"
    known = {disk.volume_id: disk for disk in move.spec.volumes}
    for one in move.volumes:
        await ctx.store.run(_write_coming, one.attachment_id, move.destination)
        source = await admit(ctx, one, move.destination)
        disk = known.get(one.volume.volume_id)
        is_same = disk is not None and are_same_bytes(source, disk.source)
        require(is_same, f"volume {one.volume.volume_id} is not the same to {move.destination} as to {move.source}")
        assert disk is not None, "it is the same"
        known[disk.volume_id] = msgspec.structs.replace(disk, source=source)
    move.spec_there = msgspec.structs.replace(move.spec, volumes=tuple(known.values()))


def _write_coming(tx: Tx, attachment_id: str, host: str | None) -> None:
    attachments.set_(tx, attachment_id, to_host=host)


async def withdraw_destination(ctx: Context) -> None:
    """The guest is not there; where that is not known, the row keeps both."""
    move: MoveNotes = ctx.notes
    if move.destination in (move.left, move.doomed):
        return
    for one in move.volumes:
        await withdraw(ctx, one, move.destination)
        await ctx.store.run(_write_coming, one.attachment_id, None)


def arrive(tx: Tx, move: MoveNotes) -> None:
    """The destination is where they are open; the source is to be withdrawn."""
    there = {disk.attachment_id: disk.source for disk in move.there.volumes}
    for one in move.volumes:
        source = msgspec.to_builtins(there[one.attachment_id])
        attachments.set_(tx, one.attachment_id, host=move.destination, to_host=move.source, source=source)


async def withdraw_source(ctx: Context) -> None:
    move: MoveNotes = ctx.notes
    for one in move.volumes:
        await withdraw(ctx, one, move.source)
        await ctx.store.run(_write_coming, one.attachment_id, None)


def has_left(move: MoveNotes) -> bool:
    """Some at a host where it is no more."""
    return any(one.left for one in move.volumes)


async def withdraw_stale(ctx: Context) -> None:
    """Of an earlier move, whose source's backend did not answer then."""
    move: MoveNotes = ctx.notes
    for one in move.volumes:
        if one.left:
            await withdraw(ctx, one, one.left)
            await ctx.store.run(_write_coming, one.attachment_id, None)


# -- what is left -----------------------------------------------------------------------------------------------------
async def withdraw_left(ctx: Context) -> None:
    """Of a server that is deleted. `host` in the notes: it may have the guest still, which is cut off then. What a
    backend does not do now is left to a saga about the volume alone."""
    notes: SpecNotes = ctx.notes
    for one in notes.volumes:
        for host in one.hosts:
            try:
                await withdraw(ctx, one, host, force=bool(notes.host))
            except (StepFailed, Unreachable):
                continue
            await ctx.store.run(_write_withdrawn, one.attachment_id, host)


def let_go_of_all(tx: Tx, ctx: Context) -> None:
    """They are not its volumes any more; those that were to go with it do."""
    for row in attachments.of_instance(tx, ctx.instance_id):
        let_go(tx, ctx, row["id"], is_to_go=row["delete_on_termination"], force=bool(ctx.notes.host))


def let_go(tx: Tx, ctx: Context, attachment_id: str, *, is_to_go: bool = False, force: bool = False) -> None:
    """Free once no host is admitted to it any more: now, or by a saga of its own."""
    row = attachments.get(tx, attachment_id)
    volume_id = row["volume_id"]
    admitted = [host for host in (row["host"], row["to_host"]) if host]
    if not admitted:
        attachments.remove(tx, attachment_id)
        _end(tx, ctx, volume_id, is_to_go=is_to_go)
        return
    attachments.set_(tx, attachment_id, instance_id=None, source=None, status=AttachmentStatus.DETACHING.value)
    volumes.set_(tx, volume_id, status=VolumeStatus.DETACHING.value)
    params = {"attachment_id": attachment_id, "hosts": admitted, "is_to_go": is_to_go, "force": force}
    _enqueue(tx, ctx, SagaKind.FREE_VOLUME, volume_id, params)


def _end(tx: Tx, ctx: Context, volume_id: str, *, is_to_go: bool) -> None:
    """Nobody has it."""
    row = volumes.get(tx, volume_id)
    if row["status"] in (VolumeStatus.CREATING, VolumeStatus.DOWNLOADING, VolumeStatus.ERROR) and not is_to_go:
        return
    if is_to_go and not attachments.has_snapshots(tx, volume_id):
        previous = VolumeStatus.AVAILABLE.value
        volumes.set_(tx, volume_id, status=VolumeStatus.DELETING.value, previous_status=previous)
        _enqueue(tx, ctx, SagaKind.DELETE_VOLUME, volume_id, {"cascade": False, "force": False, "previous": previous})
    else:
        volumes.set_(tx, volume_id, status=VolumeStatus.AVAILABLE.value, previous_status=None)


def _enqueue(tx: Tx, ctx: Context, kind: SagaKind, volume_id: str, params: dict[str, object]) -> None:
    """It is the next about that volume."""
    by = sagas.get(tx, ctx.id)
    sagas.enqueue(
        tx, kind, of_volume(volume_id), ctx.project_id, params, request_id=by["request_id"], user_id=by["user_id"]
    )
