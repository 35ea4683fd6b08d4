"""Image v2: everything but the bytes themselves (uploads.py)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from droveway.api.http import paging
from droveway.api.http.bodies import sends, takes_kind
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.http.validate import as_text, is_dashed_uuid, is_uuid
from droveway.api.image import image_fields, image_files, image_filters, image_patch
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Busy, Forbidden, NoSpace, NotFound, StoreRefused
from droveway.store.compute import quotas
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.rows import ImageRow


def image_id_of(request: Request) -> str:
    """One id has one spelling, in small letters, however it was written. Without dashes it is one of an older release,
    which let such ids in."""
    image_id = request.params["id"]
    if not is_uuid(image_id):
        raise NotFound(f"No image found with ID {image_id[:64]}.")
    return image_id.lower() if is_dashed_uuid(image_id) else image_id


@takes_kind(image_fields.NEW)
async def create(api: Api, request: Request, values: dict[str, Any]) -> Response:
    """A queued image, without data."""
    image_id = values.pop("id", None)
    if image_id is None:
        image_id = api.names.uuid()
    elif not isinstance(image_id, str) or not is_dashed_uuid(image_id):
        raise BadRequest("Invalid input for id: it is not a UUID of the form 01234567-89ab-cdef-0123-456789abcdef.")
    owner = _owner(request, values.pop("owner", None))
    columns, properties = image_fields.split(values)
    _may_publish(request, columns)
    new = images.NewImage(
        id=image_id.lower(),
        project_id=owner,
        name=columns.get("name"),
        visibility=columns.get("visibility", "shared"),
        protected=columns.get("protected", False),
        container_format=columns.get("container_format"),
        disk_format=columns.get("disk_format"),
        min_ram_mb=columns.get("min_ram_mb", 0),
        min_disk_gb=columns.get("min_disk_gb", 0),
        properties=properties,
        tags=columns.get("tags", []),
    )

    def write(tx: Tx) -> ImageRow:
        quotas.claim_image(tx, owner, api.settings.quotas)
        return images.create(tx, new)

    row = await api.store.run(write)
    location = f"{api.settings.base_url}/image/v2/images/{row['id']}".encode()
    return Response(201, image_fields.body(row), headers=[(b"location", location)])


def _owner(request: Request, asked: Any) -> str:
    own = request.caller.project_id or ""
    if asked is None or asked == own:
        return own
    if not request.caller.is_admin:
        raise Forbidden("You are not permitted to create images owned by another project.")
    return as_text("owner", asked, 64, 1)


def _may_publish(request: Request, columns: dict[str, Any]) -> None:
    if columns.get("visibility") == "public" and not request.caller.is_admin:
        raise Forbidden("Only an administrator may make an image public.")


async def show(api: Api, request: Request) -> Response:
    row = await api.store.read(images.get, image_id_of(request), request.scope)
    return Response(200, image_fields.body(row))


async def delete(api: Api, request: Request) -> Response:
    """Its data first: on a full disk the row can be written only then. After a crash in between it is deleted again.
    And once more, for an upload may have ended in between; its id is used by no other image now. What servers use stays
    for their hosts (host_images.py)."""
    image_id, path = image_id_of(request), images.path_of(api.settings.images_directory, image_id_of(request))
    is_used = await api.store.read(images.check_removable, image_id, request.scope)
    if not is_used:
        await api.files.run(image_files.remove, path)
    if await api.store.run(images.remove, image_id, request.scope, keep_data=is_used) and not is_used:
        with suppress(NoSpace, StoreRefused, Busy):  # the next start tries again
            await api.files.run(image_files.remove, path)
    return Response(204)


# -- list -------------------------------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    filters = image_filters.asked(api, request, request.scope)
    query = paging.query_without_marker(request)

    def read(tx: Tx) -> bytes:
        rows = [] if filters is None else _find(tx, filters)
        body: dict[str, Any] = {
            "images": encode_each(image_fields.body(row) for row in rows),
            "first": f"/v2/images?{urlencode(query)}" if query else "/v2/images",
            "schema": "/v2/schemas/images",
        }
        if filters is not None and rows and len(rows) == filters.limit:
            body["next"] = f"/v2/images?{paging.next_query(request, rows[-1]['id'])}"
        return encode(body)

    return Response(200, await api.store.read(read))


def _find(tx: Tx, filters: images.Filters) -> list[ImageRow]:
    try:
        return list(images.find(tx, filters))
    except NotFound:
        raise BadRequest(f"Invalid input for marker: there is no image {filters.marker}.") from None


# -- change -----------------------------------------------------------------------------------------------------------
@sends(*image_patch.MEDIA_TYPES, schema=image_patch.SCHEMA)
async def patch(api: Api, request: Request) -> Response:
    """All of it or nothing."""
    form = image_patch.form_of(request)
    operations = image_patch.operations(await request.json(api.settings.max_body_bytes), form)

    def write(tx: Tx) -> ImageRow:
        row = images.owned(tx, image_id_of(request), request.scope)
        patched = image_patch.Patched(row)
        for operation in operations:
            patched.apply(operation)
        _may_publish(request, patched.columns)
        return images.change(tx, row["id"], request.scope, patched.values())

    return Response(200, image_fields.body(await api.store.run(write)))


async def add_tag(api: Api, request: Request) -> Response:
    return await _change_tag(api, request, present=True)


async def remove_tag(api: Api, request: Request) -> Response:
    return await _change_tag(api, request, present=False)


async def _change_tag(api: Api, request: Request, *, present: bool) -> Response:
    tag = as_text("tag", request.params["tag"], 255, 1)

    def write(tx: Tx) -> None:
        row = images.owned(tx, image_id_of(request), request.scope)
        tags = set(row["tags"])
        if not present and tag not in tags:
            raise NotFound(f"The image has no tag {tag}.")
        wanted = image_fields.check_tags(sorted(tags | {tag} if present else tags - {tag}))
        image_fields.check_size(row["properties"], wanted)
        images.change(tx, row["id"], None, {"tags": wanted})

    await api.store.run(write)
    return Response(204)


# -- given out, or not ------------------------------------------------------------------------------------------------
async def deactivate(api: Api, request: Request) -> Response:
    """Only an administrator gets its data now, and no server is made of it; those that were go on."""
    await api.store.run(images.set_active, image_id_of(request), active=False)
    return Response(204)


async def reactivate(api: Api, request: Request) -> Response:
    await api.store.run(images.set_active, image_id_of(request), active=True)
    return Response(204)


async def schema(api: Api, request: Request) -> Response:
    return Response(200, image_fields.schema())


async def list_schema(api: Api, request: Request) -> Response:
    return Response(200, image_fields.list_schema())
