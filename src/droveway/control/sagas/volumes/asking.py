"""What the stories of volumes have in common: how the service of a backend is asked, and how a failure is told.

Everything that is done to a volume or to its snapshots is asked about the volume, under whose fence it stands.
"""

from __future__ import annotations

from typing import Any, TypeVar

from droveway.control.engine.saga import Context, require
from droveway.domain import service_kinds
from droveway.domain.faults import StepFailed, Unreachable
from droveway.domain.model import SubjectKind
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.disks import DiskFormat
from droveway.domain.volume.lifecycle import ATTACHED
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import AttachmentStatus, StoredVolume, VolumeSpec, VolumeStatus, of_volume
from droveway.ports.verb import VerbWithReply
from droveway.ports.volume_verbs import ListVolumes
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, messages, snapshots, volumes
from droveway.store.volume.rows import VolumeRow
from droveway.store.work import sagas

R = TypeVar("R")
_OF_ATTACHMENT = {
    AttachmentStatus.ATTACHED: VolumeStatus.IN_USE,
    AttachmentStatus.ATTACHING: VolumeStatus.ATTACHING,
    AttachmentStatus.DETACHING: VolumeStatus.DETACHING,
}


async def ask(ctx: Context, backend: str, volume_id: str, verb: VerbWithReply[R]) -> R:
    """The service of that backend, about that volume; it may take as long as its bytes do. Raises StepFailed,
    Unreachable, Stale, NotYet."""
    host, service = service_kinds.address_of(backend, VOLUME)
    return await ctx.ask(host, verb, ctx.settings.long_command_timeout_s, of_volume(volume_id), service)


async def stored(ctx: Context, backend: str, volume_id: str) -> tuple[bool, StoredVolume | None]:
    """What the backend has of the volume now, and whether that is known. A refusal says that nothing was done by this
    command, and not by an earlier one whose answer was lost."""
    try:
        listed = await ask(ctx, backend, volume_id, ListVolumes())
    except (StepFailed, Unreachable):
        return False, None
    return True, next((one for one in listed.volumes if one.volume_id == volume_id), None)


def spec_of(row: VolumeRow, size_gb: int | None = None) -> VolumeSpec:
    return VolumeSpec(row["id"], size_gb or row["size_gb"], DiskFormat(row["disk_format"]))


def message(tx: Tx, ctx: Context, action: Action, sentence: str) -> None:
    """To who asked for it: without the name of the host, which is the operator's."""
    for prefix in (f"{ctx.asked}: ", f"{ctx.asked} "):
        sentence = sentence.removeprefix(prefix) if ctx.asked else sentence
    messages.say(tx, ctx.project_id, sagas.get(tx, ctx.id)["request_id"], ctx.subject, action, sentence)


def fail(tx: Tx, ctx: Context, action: Action, status: str) -> None:
    """It could not be done: the volume or the snapshot says why, and so does a message."""
    set_(tx, ctx, status=status, fault=ctx.error)
    message(tx, ctx, action, ctx.error)


def show_wait(tx: Tx, ctx: Context) -> None:
    """A backend does not answer, and must: what is under way ends when it does."""
    set_(tx, ctx, fault=f"it waits for its backend: {ctx.waits_for}")


def set_(tx: Tx, ctx: Context, **values: Any) -> None:
    """Of what the saga is about."""
    rows = snapshots if ctx.subject.kind is SubjectKind.SNAPSHOT else volumes
    rows.set_(tx, ctx.subject.id, **values)


def backend_of(row: VolumeRow) -> str:
    """Where it lies. Raises StepFailed."""
    require(row["host"] is not None, "it never got a backend; delete it and create it again")
    return row["host"] or ""


def previous(tx: Tx, ctx: Context) -> str:
    """As the volume rests again: as before, but that its server may have let it go while this waited, or taken it."""
    return status_now(tx, ctx.subject.id, ctx.params.get("previous"))


def status_now(tx: Tx, volume_id: str, before: str | None) -> str:
    held = attachments.of_volume(tx, volume_id)
    if before not in (None, *ATTACHED, VolumeStatus.AVAILABLE):
        return str(before)
    if held is None:
        return VolumeStatus.AVAILABLE.value
    return _OF_ATTACHMENT.get(AttachmentStatus(held["status"]), VolumeStatus.RESERVED).value


def rest(tx: Tx, ctx: Context) -> None:
    """It failed, which has been said, and there is nothing more to undo."""
