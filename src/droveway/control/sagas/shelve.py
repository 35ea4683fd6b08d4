"""Shelve: the server is stopped, its disk becomes an image, and then its host is free of it. Unshelve: it begins from
that image, on any host that fits; or, where its host is not free of it yet, there and from its own disk.

One that begins from a volume leaves that as it is, and nothing is copied.

Its host must have removed it before it is offloaded: on a store that hosts share, a removal that comes late would
delete the disk that the next host has made. So a host that does not answer keeps a shelved server, visibly, until it is
back.
"""

from __future__ import annotations

import contextlib

import msgspec

from droveway.control.engine.saga import Context, NoValidHost, Saga, SpecNotes, Step, require
from droveway.control.sagas import boot, disk_images, held_volumes, ports
from droveway.control.sagas.disk_images import CopyNotes
from droveway.control.sagas.power import find_guest, must_run, record_failure, record_running, set_idle
from droveway.control.scheduling import requests
from droveway.domain.faults import Forbidden, NotFound, StepFailed
from droveway.domain.model import GuestState, SagaKind, TaskState, VmState, of_instance
from droveway.ports.bus import Remove, Start, Stop
from droveway.store.compute import file_cleanups, instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.image import images
from droveway.store.volume import attachments
from droveway.store.work import sagas


# -- shelve -----------------------------------------------------------------------------------------------------------
def find(tx: Tx, ctx: Context) -> None:
    instance = instances.get(tx, ctx.instance_id)
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=False)
    ran = instance["vm_state"] == VmState.ACTIVE
    ctx.notes = CopyNotes(instances.host_of(instance), ctx.params["image_id"], spec=spec, ran=ran)


def has_host(notes: CopyNotes) -> bool:
    return bool(notes.host)


async def stop_guest(ctx: Context) -> None:
    """Paused or suspended memory is not kept: what is shelved boots when it comes back."""
    notes: CopyNotes = ctx.notes
    assert notes.spec is not None
    grace_s = (notes.spec.hardware.power_off_s or ctx.settings.stop_grace_s) if notes.ran else 0.0
    answer = await ctx.ask(notes.host, Stop(grace_s), grace_s + ctx.settings.command_timeout_s)
    require(answer.guest.state is not GuestState.RUNNING, f"{notes.host}: the guest was stopped and still runs")


async def start_again(ctx: Context) -> None:
    if ctx.notes.ran:
        must_run(ctx, await ctx.ask(ctx.notes.host, Start(ctx.notes.spec), ctx.settings.long_command_timeout_s))


def show_upload(tx: Tx, ctx: Context) -> None:
    if disk_images.may_have_copy(ctx.notes):
        disk_images.set_format(tx, ctx)
        instances.show_task(tx, ctx.instance_id, TaskState.SHELVING_IMAGE_UPLOADING)


def record_shelved(tx: Tx, ctx: Context) -> None:
    """And what comes next, where nobody is to wait for it."""
    instances.set_idle(
        tx,
        ctx.instance_id,
        vm_state=VmState.SHELVED.value,
        fault=None,
        power_state=instances.POWER_SHUTDOWN,
        shelved_image_id=ctx.notes.image_id or None,
        shelved_at_us=tx.now_us,
    )
    server_ports.set_status(tx, ctx.instance_id, is_running=False)


def offload_next(tx: Tx, ctx: Context) -> None:
    if ctx.settings.shelved_offload_s == 0:
        offload(tx, ctx.instance_id, ctx.project_id)


def offload(tx: Tx, instance_id: str, project_id: str) -> None:
    """Nobody has asked for it by a request of its own."""
    instances.show_task(tx, instance_id, TaskState.SHELVING_OFFLOADING)
    row = instances.get(tx, instance_id)
    if row["task_state"] == TaskState.SHELVING_OFFLOADING:
        kind = SagaKind.SHELVE_OFFLOAD
        holds = instances.needs_of(tx, instance_id, kind, {})
        sagas.enqueue(tx, kind, of_instance(instance_id), project_id, {}, request_id="", holds=holds)


def end_shelve(tx: Tx, ctx: Context) -> None:
    """One that was held in memory is off now."""
    disk_images.forget_image(tx, ctx)
    if ctx.notes.ran or not ctx.notes.host:
        instances.set_idle(tx, ctx.instance_id)
        if ctx.notes.boot_id:
            instances.set_(tx, ctx.instance_id, ran_boot_id=ctx.notes.boot_id)
        return
    instances.set_idle(tx, ctx.instance_id, vm_state=VmState.STOPPED.value, power_state=instances.POWER_SHUTDOWN)
    server_ports.set_status(tx, ctx.instance_id, is_running=False)


SHELVE = Saga(
    SagaKind.SHELVE,
    CopyNotes,
    (
        Step("find", write=find, harmless=True),
        Step("stop_guest", do=stop_guest, undo=start_again, did=has_host),
        Step(
            "copy_disk",
            do=disk_images.copy_disk,
            undo=disk_images.drop_copy,
            did=disk_images.may_have_copy,
            needed=disk_images.may_have_copy,
            deferred_cleanup=True,
        ),
        Step("show_upload", write=show_upload, harmless=True),
        Step("send_copy", do=disk_images.send_copy, needed=disk_images.may_have_copy, harmless=True),
        Step("record_shelved", write=record_shelved, pivot=True),
        Step("drop_copy", do=disk_images.drop_copy, needed=disk_images.may_have_copy, deferred_cleanup=True),
        Step("offload_next", write=offload_next),
    ),
    failed=record_failure,
    undone=end_shelve,
)


# -- offload ----------------------------------------------------------------------------------------------------------
async def remove_guest(ctx: Context) -> None:
    await ctx.ask(ctx.notes.host, Remove(ctx.notes.spec.root_pool), ctx.settings.long_command_timeout_s)


def record_offloaded(tx: Tx, ctx: Context) -> None:
    server_ports.unbind(tx, ctx.instance_id, ctx.notes.host)
    instances.set_idle(
        tx,
        ctx.instance_id,
        vm_state=VmState.SHELVED_OFFLOADED.value,
        host=None,
        held_cells=None,
        root_pool=None,
        ran_boot_id=None,
        power_state=instances.POWER_SHUTDOWN,
    )
    hosts.touch(tx, ctx.notes.host)


def find_all(tx: Tx, ctx: Context) -> None:
    find_guest(tx, ctx)
    ctx.notes.volumes = attachments.held_by(tx, ctx.instance_id)


SHELVE_OFFLOAD = Saga(
    SagaKind.SHELVE_OFFLOAD,
    SpecNotes,
    (
        Step("find_guest", write=find_all, harmless=True),
        Step("remove_guest", do=remove_guest, pivot=True),
        Step("withdraw_host", do=held_volumes.withdraw_all, needed=held_volumes.has_any),
        Step("record_offloaded", write=record_offloaded),
    ),
    failed=record_failure,
    undone=set_idle,
)


# -- unshelve ---------------------------------------------------------------------------------------------------------
class UnshelveNotes(SpecNotes):
    chosen: bool = False  # a host for it, of which nothing was left before


def choose_host(tx: Tx, ctx: Context) -> None:
    """Its own, where that has it still; or the best."""
    instance = instances.get(tx, ctx.instance_id)
    if instance["host"] is not None:
        find_guest(tx, ctx)
        ctx.notes = UnshelveNotes(ctx.notes.host, ctx.notes.spec)
        return
    if left := file_cleanups.of_instance(tx, ctx.instance_id):
        raise StepFailed(f"{left[0]['host']} has not deleted yet what an earlier stay of it has left there")
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=False)
    is_copied = attachments.root_of(tx, ctx.instance_id) is None
    image = images.ref(tx, instance["shelved_image_id"] or "", ctx.settings.images_path) if is_copied else None
    decision = ctx.placer.choose(tx, requests.to_boot(tx, instance, ctx.params))
    if decision.host is None:
        raise NoValidHost(decision, may_wait=False)
    ctx.decision = decision
    held = msgspec.to_builtins(decision.cells) if decision.cells else None
    root_pool = decision.root_pool if is_copied else ""
    instances.set_(tx, ctx.instance_id, host=decision.host, held_cells=held, root_pool=root_pool or None)
    spec = msgspec.structs.replace(spec, image=image, cells=decision.cells, root_pool=root_pool)
    has_ports = server_ports.has_any(tx, ctx.instance_id)
    ctx.notes = UnshelveNotes(decision.host, spec, has_ports=has_ports, chosen=True)
    held_volumes.find(tx, ctx)


def is_chosen(notes: UnshelveNotes) -> bool:
    return notes.chosen


def forget_copy_of_host(tx: Tx, ctx: Context) -> None:
    """It is its own again, and the image that it was is of no use."""
    record_running(tx, ctx)
    image_id = instances.get(tx, ctx.instance_id)["shelved_image_id"]
    instances.set_(tx, ctx.instance_id, shelved_image_id=None, shelved_at_us=None, launched_at_us=tx.now_us)
    if image_id is not None:
        with contextlib.suppress(NotFound, Forbidden):  # its owner has deleted it, or has kept it
            images.remove(tx, image_id, None, keep_data=True)


def note_failure(tx: Tx, ctx: Context) -> None:
    if ctx.host_failed:
        ctx.placer.failed(ctx.notes.host)
    record_failure(tx, ctx)


UNSHELVE = Saga(
    SagaKind.UNSHELVE,
    UnshelveNotes,
    (
        Step("choose_host", write=choose_host, unwrite=boot.release_host, did=is_chosen),
        Step("bind_ports", write=ports.bind, unwrite=ports.unbind, did=ports.is_bound),
        Step(
            "admit_host",
            do=held_volumes.admit_all,
            needed=held_volumes.has_any,
            undo=held_volumes.withdraw_all,
            did=held_volumes.has_any,
        ),
        Step("take_along", write=held_volumes.take_along, harmless=True),
        Step("prepare_guest", do=boot.prepare_guest, undo=boot.remove_guest, did=is_chosen, needed=is_chosen),
        Step("await_ports", do=ports.await_in_force, needed=ports.is_bound, harmless=True),
        Step("start_guest", do=boot.start_guest, pivot=True),
        Step("record", write=forget_copy_of_host),
    ),
    failed=note_failure,
    undone=set_idle,
)
