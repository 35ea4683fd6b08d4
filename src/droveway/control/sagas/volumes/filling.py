"""A volume is filled from an image: its service fetches that where it has not got it."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, TicketNeeded
from droveway.control.sagas import tickets
from droveway.control.sagas.volumes.asking import ask
from droveway.domain import service_kinds
from droveway.domain.model import ImageRef
from droveway.domain.volume.model import VolumeSpec
from droveway.ports.volume_verbs import FillVolume


async def fill(ctx: Context, backend: str, volume: VolumeSpec, image: ImageRef) -> None:
    """A service that has not got the image answers so, and is asked again with a ticket. Raises StepFailed when the
    volume holds what it held."""
    verb = FillVolume(volume, image)
    try:
        await ask(ctx, backend, volume.volume_id, verb)
    except TicketNeeded as needed:
        host, _ = service_kinds.address_of(backend, service_kinds.VOLUME)
        ticket = await tickets.to_fetch(ctx, host, image, needed.challenge)
        await ask(ctx, backend, volume.volume_id, msgspec.structs.replace(verb, ticket=ticket))
