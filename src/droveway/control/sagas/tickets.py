"""Tickets for the data of images, as sagas hand them to hosts with their commands (domain/image_tickets.py)."""

from __future__ import annotations

from droveway.control.engine.saga import Context
from droveway.domain.image_tickets import Direction, ImageTicket
from droveway.domain.model import ImageRef
from droveway.store.image import image_tickets


async def to_fetch(ctx: Context, host: str, image: ImageRef, challenge: str) -> ImageTicket:
    """For that host, to fetch all of that image, once."""
    return await _issued(ctx, image.id, host, Direction.FETCH, image.size_bytes, challenge)


async def to_send(ctx: Context, host: str, image_id: str, size_bytes: int, challenge: str) -> ImageTicket:
    """For that host, to send so many bytes as the data of that image, once."""
    return await _issued(ctx, image_id, host, Direction.SEND, size_bytes, challenge)


async def _issued(
    ctx: Context, image_id: str, host: str, direction: Direction, size_bytes: int, challenge: str
) -> ImageTicket:
    asked = (image_id, host, direction, size_bytes, challenge)
    token = await ctx.store.read(image_tickets.issue, *asked)
    if token is None:
        await ctx.store.run(image_tickets.replace, 0)
        token = await ctx.store.read(image_tickets.issue, *asked)
    assert token is not None, "there is a key now"
    return ImageTicket(token, ctx.settings.api_urls)
