"""What a verb about one guest asks of the hypervisor."""

from __future__ import annotations

from droveway.agents.move_trials import must_pass
from droveway.domain.model import Guest, GuestState
from droveway.ports.bus import (
    AbortCopy,
    AdjustCopy,
    Admit,
    AttachDisk,
    BeginCopy,
    CheckDestination,
    CheckSource,
    CopyDisk,
    DetachDisk,
    Dismiss,
    DropCopy,
    DropDisk,
    DropFiles,
    Freeze,
    GrowDisk,
    InjectNmi,
    KeepArrival,
    Pause,
    Plug,
    PowerCycle,
    Prepare,
    PrepareArrival,
    PrepareDisk,
    ReadConsole,
    ReadDiagnostics,
    ReadLocalFiles,
    Release,
    Remove,
    RemoveProbe,
    ReplaceDisk,
    ResumePostCopy,
    SendCopy,
    Start,
    Stop,
    Suspend,
    Thaw,
    Unpause,
    Unplug,
    Verb,
)
from droveway.ports.hypervisor import Hypervisor
from droveway.ports.kept_disk_verbs import ForgetKept, GrowRoot, KeepDisk, RestoreDisk
from droveway.ports.replies import (
    Answer,
    ConsoleText,
    Diagnostics,
    GuestAdmitted,
    GuestFrozen,
    GuestStatus,
    LocalFilesRead,
    SourceChecked,
)


async def carry_out(h: Hypervisor, boot_id: str, instance_id: str, verb: Verb) -> Answer | None:
    """The answer; None for `as it stands now`. Raises what the hypervisor does."""
    match verb:
        case ReadConsole(length_lines):
            return ConsoleText(await h.console(instance_id, length_lines))
        case ReadDiagnostics():
            return Diagnostics(await h.diagnostics(instance_id))
        case CopyDisk(copy):
            return await h.copy_disk(instance_id, copy)
        case Freeze():
            held = await h.freeze(instance_id)
            return GuestFrozen(await h.guest(instance_id), held, boot_id)
        case Remove(root_pool):
            await h.remove(instance_id, root_pool)
            return GuestStatus(Guest(instance_id, GuestState.ABSENT), boot_id)
        case ReadLocalFiles():
            return LocalFilesRead(await h.local_files(instance_id))
        case CheckSource(probe, asks_pool):
            must_pass(await h.check_outgoing(instance_id))
            seen, in_pool = await h.sees_probe(probe), asks_pool and await h.sees_probe_in_pool(probe)
            load = (await h.loads((instance_id,))).get(instance_id)
            return SourceChecked(await h.guest(instance_id), seen, boot_id, in_pool, load)
        case Admit(spec):
            if (await h.guest(instance_id)).state is not GuestState.RUNNING:  # or a late message meets the arrived
                await h.admit(spec)
            return GuestAdmitted(await h.guest(instance_id), h.endpoint(), boot_id)
    await _live(h, instance_id, verb)
    await _change(h, instance_id, verb)
    await _move(h, instance_id, verb)
    return None


async def _live(h: Hypervisor, instance_id: str, verb: Verb) -> None:
    match verb:
        case Prepare(spec, ticket, documents):
            await h.prepare(spec, ticket, documents)
        case Start(spec):
            await h.start(spec)
        case Stop(grace_s):
            await h.stop(instance_id, grace_s)
        case PowerCycle(spec, grace_s):
            await h.stop(instance_id, grace_s)
            await h.start(spec)
        case Pause():
            await h.pause(instance_id)
        case Unpause():
            await h.unpause(instance_id)
        case Suspend():
            await h.suspend(instance_id)
        case InjectNmi():
            await h.inject_nmi(instance_id)
        case SendCopy(copy, ticket):
            await h.send_copy(instance_id, copy, ticket)
        case DropCopy(copy):
            await h.drop_copy(instance_id, copy)
        case PrepareDisk(spec, disk, ticket):
            await h.prepare_disk(spec, disk, ticket)
        case DropDisk(disk):
            await h.drop_disk(instance_id, disk)
        case ReplaceDisk(spec, documents, keeps_ephemeral):
            await h.replace_disk(spec, documents, keeps_ephemeral)


async def _change(h: Hypervisor, instance_id: str, verb: Verb) -> None:
    """What it has of devices."""
    match verb:
        case Plug(nic, model):
            await h.plug(instance_id, nic, model)
        case Unplug(nic, within_s):
            await h.unplug(instance_id, nic, within_s)
        case AttachDisk(disk):
            await h.attach_disk(instance_id, disk)
        case DetachDisk(volume_id, within_s):
            await h.detach_disk(instance_id, volume_id, within_s)
        case GrowDisk(volume_id, size_gb):
            await h.grow_disk(instance_id, volume_id, size_gb)
        case Thaw():
            await h.thaw(instance_id)


async def _move(h: Hypervisor, instance_id: str, verb: Verb) -> None:
    match verb:
        case CheckDestination(spec, source_cpu_xml, probe, asks_pool):
            must_pass(await h.check_incoming(spec, source_cpu_xml))
            await h.write_probe(probe, in_pool=asks_pool and bool(spec.root_pool))
        case RemoveProbe(probe, in_pool):
            await h.remove_probe(probe, in_pool=in_pool)
        case Dismiss():
            await h.dismiss(instance_id)
        case PrepareArrival(spec, files, mark, room_bytes, ticket, over_commits):
            await h.prepare_arrival(spec, files, mark, room_bytes, ticket, over_commits)
        case KeepArrival():
            await h.keep_arrival(instance_id)
        case DropFiles(mark):
            await h.drop_files(instance_id, mark)
        case BeginCopy(spec, to, files, target):
            await h.begin_migration(spec, to, files, target)
        case AdjustCopy(change):
            await h.adjust_migration(instance_id, change)
        case ResumePostCopy(spec, to, files):
            await h.resume_post_copy(spec, to, files)
        case AbortCopy():
            await h.abort_migration(instance_id)
        case KeepDisk(mark):
            await h.keep_disk(instance_id, mark)
        case GrowRoot(size_gb):
            await h.grow_root(instance_id, size_gb)
        case RestoreDisk(mark):
            await h.restore_disk(instance_id, mark)
        case ForgetKept(mark):
            await h.forget_kept(instance_id, mark)
        case Release():
            await h.release(instance_id)
