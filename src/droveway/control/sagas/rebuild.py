"""Rebuild: the server begins anew from an image, on its host, with its id, its ports and its claim.

Its new disk is made beside the old one while it runs on, so an image that cannot be had harms nothing. The pivot is a
write: with it the server is that of the new image, and only then does its host end it and put the new disk in its
place.
"""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.control.engine.saga import Context, Saga, Step
from droveway.control.sagas import spare_disks
from droveway.control.sagas.power import must_run, record_failure, record_running, record_stopped, set_idle
from droveway.control.sagas.spare_disks import SpareNotes
from droveway.domain.guest_data import Document, GuestKey
from droveway.domain.model import SagaKind, SpareDisk, TaskState, VmState
from droveway.ports.bus import ReplaceDisk, Start
from droveway.store.compute import guest_data, instances
from droveway.store.engine.transaction import Tx
from droveway.store.image import images

COLUMNS = (
    *("name", "hostname", "description", "metadata", "image_id", "image_properties", "key_name"),
    *("access_ipv4", "access_ipv6", "auto_disk_config"),
)


def find_guest(tx: Tx, ctx: Context) -> None:
    instance = instances.get(tx, ctx.instance_id)
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=False)
    image = images.ref(tx, ctx.params["image_id"], ctx.settings.images_path)
    spec = msgspec.structs.replace(spec, image=image)
    ctx.notes = SpareNotes(instances.host_of(instance), spec, instance["vm_state"] != VmState.STOPPED)


async def prepare_disk(ctx: Context) -> None:
    await spare_disks.prepare(ctx, SpareDisk.REBUILD)


async def drop_disk(ctx: Context) -> None:
    await spare_disks.drop(ctx, SpareDisk.REBUILD)


def become(tx: Tx, ctx: Context) -> None:
    """From here on it is a server of that image, whatever else was asked for with it among that."""
    given: dict[str, Any] = ctx.params
    instances.set_(tx, ctx.instance_id, **{name: given[name] for name in COLUMNS if name in given})
    instances.show_task(tx, ctx.instance_id, TaskState.REBUILD_SPAWNING)
    if "user_data" in given or "key" in given:
        key = msgspec.convert(given["key"], GuestKey) if given.get("key") else None
        guest_data.change(tx, ctx.instance_id, given, key)
    spec = instances.spec(tx, instances.get(tx, ctx.instance_id), ctx.settings.images_path, with_image=False)
    ctx.notes.spec = msgspec.structs.replace(spec, rescue=False)


async def replace_disk(ctx: Context) -> None:
    spec = ctx.notes.spec
    documents = await ctx.store.read(_documents, ctx.instance_id) if spec.config_drive else ()
    verb = ReplaceDisk(spec, documents, ctx.params.get("preserve_ephemeral", False))
    await ctx.ask(ctx.notes.host, verb, ctx.settings.long_command_timeout_s)


def _documents(tx: Tx, instance_id: str) -> tuple[Document, ...]:
    return guest_data.for_drive(tx, instances.get(tx, instance_id))


def starts(notes: SpareNotes) -> bool:
    return notes.starts


async def start_guest(ctx: Context) -> None:
    must_run(ctx, await ctx.ask(ctx.notes.host, Start(ctx.notes.spec), ctx.settings.long_command_timeout_s))


def record(tx: Tx, ctx: Context) -> None:
    """One that was off stays off."""
    if ctx.notes.starts:
        record_running(tx, ctx)
        instances.set_(tx, ctx.instance_id, launched_at_us=tx.now_us)
    else:
        record_stopped(tx, ctx)


REBUILD = Saga(
    SagaKind.REBUILD,
    SpareNotes,
    (
        Step("find_guest", write=find_guest, harmless=True),
        Step(
            "prepare_disk",
            do=prepare_disk,
            undo=drop_disk,
            did=spare_disks.may_have_disk,
        ),
        Step("become", write=become, pivot=True),
        Step("replace_disk", do=replace_disk),
        Step("start_guest", do=start_guest, needed=starts),
        Step("record", write=record),
    ),
    failed=record_failure,
    undone=set_idle,
)
