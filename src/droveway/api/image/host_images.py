"""The data of images for hosts that do not see the files: each request shows a ticket (domain/image_tickets.py), and no
token of a user.

A fetch may begin anywhere, so one that broke off goes on with the same ticket; once the last byte has been given, the
ticket is spent. How many are under way at once is bounded, by host and in all: the others are told to come again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator

import structlog

from droveway.api.http.faults import Gone, NoSuchRange, ResourceChanged, WrongMediaType
from droveway.api.http.request import Disconnected, Request, Response
from droveway.api.image import image_files, uploads
from droveway.api.image.images import image_id_of
from droveway.api.own import certificates
from droveway.api.wiring import Api
from droveway.domain.faults import Busy, Fault, Forbidden, NoSpace, StoreRefused, Unauthorized
from droveway.domain.image_tickets import TICKET_HEADER, VERIFIER_HEADER, VERIFIER_MAX, Claims, Direction
from droveway.store.image import image_tickets, images

log = structlog.get_logger("droveway.images")
PER_HOST_MAX = 4
STREAM_MAX_S = 3600.0  # then the connection ends, and the host goes on with another one
SWEEP_EVERY_S = 300.0
SWEPT_MAX = 100
SPEND_TRIES = 3
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


async def give(api: Api, request: Request) -> Response:
    """GET of an image's data, or of the rest of it."""
    claims = await _admitted(api, request, Direction.FETCH)
    row = await api.store.read(images.for_host, claims.image_id)
    if row is None:
        raise Gone(f"The data of image {claims.image_id} is no longer there: no server uses it.")
    assert row["size_bytes"] is not None and row["sha512"] is not None, f"image {row['id']} has data, and no size"
    size, etag = row["size_bytes"], f'"{row["sha512"]}"'
    if size > claims.max_bytes:
        raise Forbidden(f"Image {row['id']} has {size} bytes, and this ticket is for {claims.max_bytes}.")
    if request.header(b"if-match") not in (None, "*", etag):
        raise ResourceChanged(f"The data of image {row['id']} is not what this host has a part of: begin again.")
    first, last = _range(request.header(b"range"), size)
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(last - first + 1).encode()),
        (b"accept-ranges", b"bytes"),
        (b"etag", etag.encode()),
    ]
    is_part = (first, last) != (0, size - 1)
    if is_part:
        headers.append((b"content-range", f"bytes {first}-{last}/{size}".encode()))
    if request.method == "HEAD":
        return Response(200, headers=headers)
    stream = _given(api, claims, first, last - first + 1, size)
    await anext(stream)  # it has begun: from here on it ends, too, whatever becomes of the request
    return Response(206 if is_part else 200, headers=headers, stream=stream)


def _range(asked: str | None, size: int) -> tuple[int, int]:
    """The first and the last byte; all of them where no range is asked for that is understood here. Raises
    NoSuchRange."""
    found = _RANGE.fullmatch(asked or "")
    if found is None:
        return 0, size - 1
    first, last = int(found[1]), min(int(found[2]) if found[2] else size - 1, size - 1)
    if first > last:
        raise NoSuchRange(f"There is nothing in {asked}: the image has {size} bytes.")
    return first, last


async def _given(api: Api, claims: Claims, first: int, count: int, size: int) -> AsyncGenerator[bytes, None]:
    """First nothing, once it may be given; then its bytes. Raises Busy."""
    streams = api.image_streams
    if streams.total() >= api.settings.image_streams_max:
        raise Busy(f"{streams.total()} images are being fetched from this API, which is its bound; come again.")
    if streams[claims.host] >= PER_HOST_MAX:
        raise Busy(f"Host {claims.host} fetches {PER_HOST_MAX} images already, which is the bound; come again.")
    streams[claims.host] += 1
    until_s = api.clock.monotonic_s() + STREAM_MAX_S
    try:
        with await uploads.opened(api, claims.image_id) as file:
            file.seek(first)
            yield b""
            async with contextlib.aclosing(uploads.pieces(api, file, count)) as pieces:
                async for piece in pieces:
                    yield piece
                    if api.clock.monotonic_s() > until_s:
                        raise Disconnected(f"Host {claims.host} has fetched for {STREAM_MAX_S:.0f} s.")
        if first + count == size:
            await _spend(api, claims)
    finally:
        streams[claims.host] -= 1
        if not streams[claims.host]:
            del streams[claims.host]


async def _spend(api: Api, claims: Claims) -> None:
    for _ in range(SPEND_TRIES):
        try:
            await api.store.run(image_tickets.spend, claims)
            return
        except Busy:
            await api.clock.sleep(0.5)
    log.warning(
        "a ticket that was used up could not be recorded; it ends with its key", image=claims.image_id, host=claims.host
    )


async def take(api: Api, request: Request) -> Response:
    """PUT of an image's data by a host: the image is queued, and no other upload is under way."""
    if (request.header(b"content-type") or "").partition(";")[0].strip() != "application/octet-stream":
        raise WrongMediaType("Image data is sent as application/octet-stream.")
    claims = await _admitted(api, request, Direction.SEND)
    most = min(claims.max_bytes, api.settings.max_image_bytes)
    await uploads.take(api, request, claims.image_id, None, most, lambda tx: image_tickets.spend(tx, claims))
    return Response(204)


async def _admitted(api: Api, request: Request, direction: Direction) -> Claims:
    ticket = request.header(TICKET_HEADER.encode())
    verifier = request.header(VERIFIER_HEADER.encode()) or ""
    if not ticket or len(verifier) > VERIFIER_MAX:
        raise Unauthorized(
            "The data of an image is given to hosts here, with a ticket; users find it at /image/v2/images/ID/file."
        )
    claims = await api.store.read(image_tickets.admit, ticket, image_id_of(request), direction, verifier)
    if request.certificate is not None:  # on the agents' listener
        await certificates.serial_of(api, request, claims.host)
    return claims


# -- what no server needs any more ------------------------------------------------------------------------------------
async def sweep(api: Api) -> None:
    """Delete the data of images that were deleted while servers used them, and that none uses now."""
    for image_id in await api.store.read(images.unused, SWEPT_MAX):
        path = images.path_of(api.settings.images_directory, image_id)
        with contextlib.suppress(NoSpace, StoreRefused):  # it is tried again
            await api.files.run(image_files.remove, path)
            await api.store.run(images.forget_data, image_id)


async def sweep_always(api: Api) -> None:
    """Until cancelled."""
    while True:
        await api.clock.sleep(SWEEP_EVERY_S)
        try:
            await sweep(api)
        except Fault as fault:
            log.warning("unused image data could not be deleted; it is tried again", because=fault.reason)
