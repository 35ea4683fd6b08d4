"""Snapshots of all volumes of a server, of one moment: steps of the story of its image.

Its guest holds its file systems meanwhile, where it can and for as long as its hypervisor lets it: what has not been
made by then is of a moment later, and is as after a loss of power.
"""

from __future__ import annotations

import asyncio
import contextlib

from droveway.control.engine.saga import Context
from droveway.control.sagas.disk_images import CopyNotes
from droveway.control.sagas.volumes.asking import ask
from droveway.domain.faults import NotFound, StepFailed, Unreachable
from droveway.domain.model import VmState
from droveway.domain.volume.model import SnapshotStatus
from droveway.ports.bus import Freeze, Thaw
from droveway.ports.volume_verbs import DeleteSnapshot, SnapshotVolume
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.volume import attachments, snapshots


def find(tx: Tx, ctx: Context) -> None:
    """The volumes of which one is wanted."""
    wanted: dict[str, str] = ctx.params.get("snapshots", {})
    held = attachments.held_by(tx, ctx.instance_id) if wanted else ()
    ctx.notes.volumes = tuple(one for one in held if one.volume.volume_id in wanted)
    ctx.notes.ran = instances.get(tx, ctx.instance_id)["vm_state"] == VmState.ACTIVE


def are_wanted(notes: CopyNotes) -> bool:
    return bool(notes.volumes)


async def make(ctx: Context) -> None:
    notes: CopyNotes = ctx.notes
    wanted: dict[str, str] = ctx.params["snapshots"]
    if notes.ran:
        with contextlib.suppress(StepFailed, Unreachable):
            await ctx.ask(notes.host, Freeze())
    asked = [
        ask(ctx, one.backend, one.volume.volume_id, SnapshotVolume(wanted[one.volume.volume_id]))
        for one in notes.volumes
    ]
    # A control that is ended in the middle waits for nothing more: its host lets the guest go on by itself.
    results = await asyncio.gather(*asked, return_exceptions=True)
    if notes.ran:
        with contextlib.suppress(StepFailed, Unreachable):
            await ctx.ask(notes.host, Thaw())
    for fault in results:
        if isinstance(fault, BaseException):
            raise fault


async def delete(ctx: Context) -> None:
    wanted: dict[str, str] = ctx.params["snapshots"]
    for one in ctx.notes.volumes:
        await ask(ctx, one.backend, one.volume.volume_id, DeleteSnapshot(wanted[one.volume.volume_id]))


def record(tx: Tx, ctx: Context) -> None:
    """They are there, and so is the image that names them. Raises NotFound when its owner has deleted it meanwhile."""
    if ctx.notes.volumes:
        images.set_whole(tx, ctx.params["image_id"])
        for snapshot_id in ctx.params["snapshots"].values():
            snapshots.set_(tx, snapshot_id, status=SnapshotStatus.AVAILABLE.value)


def forget(tx: Tx, ctx: Context) -> None:
    """None of them came to be."""
    for snapshot_id in ctx.params.get("snapshots", {}).values():
        with contextlib.suppress(NotFound):
            snapshots.get(tx, snapshot_id)
            snapshots.remove(tx, snapshot_id)
