"""A volume more, and one less, of a server: the volume's backend admits its host, then the guest that runs is given it;
and the other way round.

That it is attached is a row that the request wrote: the database takes one of a volume. A guest takes part, as with
interfaces: one that does not let go keeps its volume, and what was to be undone goes forward then. A volume is free
again once its backend has said that the host is admitted no longer; where the host was declared gone it is cut off.
"""

from __future__ import annotations

import contextlib

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, TooLate, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import held_volumes
from droveway.control.sagas.deleted_next import is_deleted_next
from droveway.control.sagas.seen_running import runs_after_all
from droveway.control.sagas.volumes.asking import show_wait, spec_of
from droveway.domain.faults import NotFound, StepFailed, Unreachable
from droveway.domain.model import SagaKind, VmState
from droveway.domain.volume.disks import DiskSource
from droveway.domain.volume.model import AttachmentStatus, VolumeStatus
from droveway.ports.bus import AttachDisk, DetachDisk
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, volumes
from droveway.store.volume.attachments import HeldVolume

HAS_GUEST = frozenset({VmState.ACTIVE, VmState.PAUSED})


class AttachingNotes(msgspec.Struct):
    host: str = ""  # of the server; empty: it has none
    held: HeldVolume | None = None
    runs: bool = False  # the guest is to be asked, too
    source: DiskSource | None = None  # once the host was admitted
    withdrawn: bool = False  # that is over


def _look(tx: Tx, ctx: Context) -> None:
    """The server and the volume as they stand when their turn has come."""
    instance = instances.get(tx, ctx.instance_id)
    by_now = instance["task_state"] or instance["vm_state"]
    is_whole = instance["vm_state"] in HAS_GUEST | {VmState.STOPPED, VmState.SHELVED, VmState.SHELVED_OFFLOADED}
    require(is_whole and instance["task_state"] is None, f"instance {instance['name']} is {by_now} by now")
    volume_id = ctx.params["volume_id"]
    held = {one.volume.volume_id: one for one in attachments.held_by(tx, ctx.instance_id)}.get(volume_id)
    is_same = held is not None and held.attachment_id == ctx.params["attachment_id"]
    require(is_same, f"volume {volume_id} is attached to this server no longer")
    runs = instance["vm_state"] in HAS_GUEST
    ctx.notes = AttachingNotes(instance["host"] or "", held, runs)


def _held(ctx: Context) -> HeldVolume:
    held: HeldVolume | None = ctx.notes.held
    assert held is not None, "it was found"
    return held


async def _attach(ctx: Context) -> None:
    """What of it the guest has already is left as it is."""
    wanted = _held(ctx).volume.volume_id
    disks = await ctx.store.read(attachments.disks, ctx.instance_id)
    disk = next(one for one in disks if one.volume_id == wanted)
    await ctx.ask(ctx.notes.host, AttachDisk(disk), ctx.settings.long_command_timeout_s)


async def _detach(ctx: Context) -> None:
    within_s = ctx.settings.unplug_patience_s
    verb = DetachDisk(_held(ctx).volume.volume_id, within_s)
    await ctx.ask(ctx.notes.host, verb, within_s + ctx.settings.command_timeout_s)


def runs(notes: AttachingNotes) -> bool:
    return notes.runs


def has_host(notes: AttachingNotes) -> bool:
    return bool(notes.host)


def is_stopped(notes: AttachingNotes) -> bool:
    return has_host(notes) and not notes.runs


async def look_at_guest(ctx: Context) -> None:
    ctx.notes.runs = await runs_after_all(ctx, ctx.notes.host)


def is_admitted(notes: AttachingNotes) -> bool:
    return notes.source is not None


def say_nothing(tx: Tx, ctx: Context) -> None:
    """The server is what it was: who asked is told, and its actions tell it later."""


# -- one more ---------------------------------------------------------------------------------------------------------
def find_volume(tx: Tx, ctx: Context) -> None:
    """Once a host was admitted to it, no other server can have it."""
    _look(tx, ctx)
    row = volumes.get(tx, ctx.params["volume_id"])
    held_volumes.must_be_usable(row)
    attachments.set_(tx, ctx.params["attachment_id"], status=AttachmentStatus.ATTACHING.value)
    volumes.set_(tx, row["id"], status=VolumeStatus.ATTACHING.value)


async def admit_host(ctx: Context) -> None:
    ctx.notes.source = await held_volumes.admit(ctx, _held(ctx), ctx.notes.host)


async def withdraw_host(ctx: Context) -> None:
    """What its backend does not do now is left to a saga about the volume alone."""
    notes: AttachingNotes = ctx.notes
    with contextlib.suppress(StepFailed, Unreachable):
        await held_volumes.withdraw(ctx, _held(ctx), notes.host)
        notes.withdrawn = True


def record_admission(tx: Tx, ctx: Context) -> None:
    notes: AttachingNotes = ctx.notes
    if notes.source is not None:
        source = msgspec.to_builtins(notes.source)
        attachments.set_(tx, _held(ctx).attachment_id, host=notes.host, source=source)


def forget_source(tx: Tx, ctx: Context) -> None:
    """No guest is given it any more."""
    attachments.set_(tx, _held(ctx).attachment_id, source=None)


async def detach_again(ctx: Context) -> None:
    """The guest may have it, whatever was answered. One that does not let go of it keeps it, and so does its server."""
    try:
        await _detach(ctx)
    except DeclaredGone:
        return
    except StepFailed:
        if not await is_deleted_next(ctx):
            raise TooLate from None
    except Unreachable:
        if not await is_deleted_next(ctx):
            raise


def record_attached(tx: Tx, ctx: Context) -> None:
    held = _held(ctx)
    held_volumes.set_in_use(tx, held.attachment_id, held.volume.volume_id)
    instances.set_idle(tx, ctx.instance_id)


def forget(tx: Tx, ctx: Context) -> None:
    """The volume is nobody's: at once, or when its backend has said so."""
    instances.set_idle(tx, ctx.instance_id)
    attachment_id = ctx.params["attachment_id"]
    try:
        row = attachments.get(tx, attachment_id)
    except NotFound:
        return
    notes: AttachingNotes = ctx.notes
    may_be_admitted = bool(notes.host) and not notes.withdrawn
    attachments.set_(tx, row["id"], host=notes.host if may_be_admitted else None)
    held_volumes.let_go(tx, ctx, row["id"])


ATTACH_VOLUME = Saga(
    SagaKind.ATTACH_VOLUME,
    AttachingNotes,
    (
        Step("find_volume", write=find_volume, harmless=True),
        Step("admit_host", do=admit_host, needed=has_host, undo=withdraw_host, did=has_host),
        Step("record_admission", write=record_admission, unwrite=forget_source, did=is_admitted),
        Step("look_at_guest", do=look_at_guest, needed=is_stopped, harmless=True),
        Step("attach_disk", do=_attach, needed=runs, undo=detach_again, did=runs),
        Step("record_attached", write=record_attached, pivot=True),
    ),
    failed=say_nothing,
    undone=forget,
)


# -- one less ---------------------------------------------------------------------------------------------------------
def find_disk(tx: Tx, ctx: Context) -> None:
    _look(tx, ctx)
    held = _held(ctx)
    require(not held.is_root, f"volume {held.volume.volume_id} is the root disk of the server, which begins from it")
    attachments.set_(tx, held.attachment_id, status=AttachmentStatus.DETACHING.value)
    volumes.set_(tx, held.volume.volume_id, status=VolumeStatus.DETACHING.value)


async def detach_disk(ctx: Context) -> None:
    """Of a guest on a host that was declared gone it is cut off instead: its backend does that."""
    with contextlib.suppress(DeclaredGone):
        await _detach(ctx)


async def attach_again(ctx: Context) -> None:
    """It is the server's still: what the guest has let go of it gets back."""
    try:
        await _attach(ctx)
    except DeclaredGone:
        return
    except (StepFailed, Unreachable):
        if not await is_deleted_next(ctx):
            raise


def record_let_go(tx: Tx, ctx: Context) -> None:
    """From here on no guest is given it."""
    forget_source(tx, ctx)


async def withdraw_each(ctx: Context) -> None:
    """From every host that may be admitted, and what a backend does not do now is left to a saga about the volume."""
    notes, held = ctx.notes, _held(ctx)
    with contextlib.suppress(StepFailed, Unreachable):
        for host in held.hosts:
            await held_volumes.withdraw(ctx, held, host)
        notes.withdrawn = True


def record_detached(tx: Tx, ctx: Context) -> None:
    held = _held(ctx)
    if ctx.notes.withdrawn:
        attachments.set_(tx, held.attachment_id, host=None, to_host=None)
    held_volumes.let_go(tx, ctx, held.attachment_id)
    instances.set_idle(tx, ctx.instance_id)


def end_detach(tx: Tx, ctx: Context) -> None:
    """It is attached as it was, also where the server was found to be doing something else by then."""
    if ctx.notes.held is not None:
        instances.set_idle(tx, ctx.instance_id)
    with contextlib.suppress(NotFound):
        row = attachments.get(tx, ctx.params["attachment_id"])
        if row["instance_id"] == ctx.instance_id:
            attachments.set_(tx, row["id"], status=AttachmentStatus.ATTACHED.value)
            volumes.set_(tx, row["volume_id"], status=VolumeStatus.IN_USE.value)


DETACH_VOLUME = Saga(
    SagaKind.DETACH_VOLUME,
    AttachingNotes,
    (
        Step("find_disk", write=find_disk, harmless=True),
        Step("look_at_guest", do=look_at_guest, needed=is_stopped, harmless=True),
        Step("detach_disk", do=detach_disk, needed=runs, undo=attach_again, did=runs),
        Step("record_let_go", write=record_let_go, pivot=True),
        Step("withdraw_each", do=withdraw_each, needed=has_host),
        Step("record_detached", write=record_detached),
    ),
    failed=say_nothing,
    undone=end_detach,
)


# -- what a server has left -------------------------------------------------------------------------------------------
class FreeingNotes(msgspec.Struct):
    pass


def begin_freeing(tx: Tx, ctx: Context) -> None:
    """Nobody is to have it from here on."""


async def withdraw_hosts(ctx: Context) -> None:
    """As long as it takes: until then the volume is nobody else's."""
    row = await ctx.store.read(volumes.get, ctx.subject.id)
    held = HeldVolume(ctx.params["attachment_id"], spec_of(row), row["host"] or "")
    for host in ctx.params["hosts"]:
        await held_volumes.withdraw(ctx, held, host, force=ctx.params["force"])


def record_free(tx: Tx, ctx: Context) -> None:
    attachments.set_(tx, ctx.params["attachment_id"], host=None, to_host=None)
    held_volumes.let_go(tx, ctx, ctx.params["attachment_id"], is_to_go=ctx.params["is_to_go"])


FREE_VOLUME = Saga(
    SagaKind.FREE_VOLUME,
    FreeingNotes,
    (
        Step("begin_freeing", write=begin_freeing, pivot=True),
        Step("withdraw_hosts", do=withdraw_hosts),
        Step("record_free", write=record_free),
    ),
    failed=say_nothing,
    undone=say_nothing,
    blocked=show_wait,
)
