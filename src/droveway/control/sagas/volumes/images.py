"""The bytes of a volume become an image: its service sends them to an API, with a ticket (decision 022).

Whether the image has arrived is in its row, whatever the service says.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, NotYet, TicketNeeded
from droveway.control.sagas import tickets
from droveway.control.sagas.volumes.asking import ask
from droveway.domain import service_kinds
from droveway.domain.faults import NotFound, StepFailed
from droveway.domain.volume.model import VolumeSpec
from droveway.ports.volume_verbs import SendVolume
from droveway.store.engine.transaction import Tx
from droveway.store.image import images

GIB = 1 << 30
FORMAT_SHARE, FORMAT_BYTES = 0.01, 64 << 20  # what a format of images may have beside the bytes of a volume


async def send(ctx: Context, backend: str, volume: VolumeSpec, image_id: str, disk_format: str) -> None:
    """Until the row says that it is there. A service that was stopped in the middle asks for another ticket, and begins
    anew."""
    if not ctx.settings.api_urls:
        raise StepFailed("no API is named to which hosts could send an image: see agents.api_urls")
    if await has_arrived(ctx, image_id):
        return
    verb = SendVolume(volume, image_id, disk_format)
    try:
        try:
            await ask(ctx, backend, volume.volume_id, verb)
        except TicketNeeded as needed:
            await ctx.store.run(_begin_anew, image_id)
            host, _ = service_kinds.address_of(backend, service_kinds.VOLUME)
            most_bytes = int(volume.size_gb * GIB * (1 + FORMAT_SHARE)) + FORMAT_BYTES
            ticket = await tickets.to_send(ctx, host, image_id, most_bytes, needed.challenge)
            await ask(ctx, backend, volume.volume_id, msgspec.structs.replace(verb, ticket=ticket))
    except StepFailed:
        if not await has_arrived(ctx, image_id):
            raise
        return
    if not await has_arrived(ctx, image_id):
        raise NotYet(ctx.settings.retry_s, f"image {image_id} is to arrive")


def _begin_anew(tx: Tx, image_id: str) -> None:
    """The service sends nothing now, so no upload of it is under way; one that an API still has does not end well."""
    row = images.get(tx, image_id, None)
    if row["status"] == images.SAVING:
        images.give_up_upload(tx, image_id, row["generation"])


async def has_arrived(ctx: Context, image_id: str) -> bool:
    """Raises StepFailed when it was deleted."""
    try:
        row = await ctx.store.read(images.get, image_id, None)
    except NotFound:
        raise StepFailed(f"image {image_id} was deleted while it was made") from None
    return row["status"] in images.WITH_DATA


def forget(tx: Tx, image_id: str, *, also_whole: bool = False) -> None:
    """One that never came to be. One that has arrived after all stays: it is whole."""
    try:
        row = images.get(tx, image_id, None)
    except NotFound:
        return
    if also_whole or row["status"] not in images.WITH_DATA:
        images.remove(tx, image_id, None)
