"""Images as compute showed them before 2.36, and their metadata before 2.39: clients that name no microversion ask for
them here. The images are those of the image service, with the same rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from droveway.api.http import paging
from droveway.api.http.bodies import takes_kind
from droveway.api.http.kinds import of
from droveway.api.http.render import ABSENT, Field, FieldTable, links, seconds
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_integer, as_time_us
from droveway.api.image import image_fields
from droveway.api.image.images import image_id_of
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.rows import ImageRow

LAST, LAST_OF_METADATA = 35, 38  # microversions
_STATUS = {images.ACTIVE: "ACTIVE", images.QUEUED: "SAVING", images.SAVING: "SAVING"}
_PROGRESS = {images.QUEUED: 25, images.SAVING: 50, images.ACTIVE: 100}
_OWN = {*image_fields.SETTABLE, "id", "owner", "os_hidden"}
_SERVER = "instance_uuid"  # the property of a snapshot that names its server


def _links(row: ImageRow, base: str) -> list[dict[str, str]]:
    elsewhere = f"{base}/image/v2/images/{row['id']}"
    alternate = {"rel": "alternate", "type": "application/vnd.openstack.image", "href": elsewhere}
    return [*links(base, "images", row["id"]), alternate]


def _server(row: ImageRow, base: str) -> Any:
    server_id = row["properties"].get(_SERVER)
    return ABSENT if server_id is None else {"id": server_id, "links": links(base, "servers", server_id)}


_BASIC: tuple[Field[ImageRow], ...] = (Field("id", "id"), Field("name", "name"), Field("links", _links))
IMAGE = FieldTable(ImageRow, *_BASIC)
IMAGE_DETAIL = FieldTable(
    ImageRow,
    *_BASIC,
    Field("minRam", "min_ram_mb"),
    Field("minDisk", "min_disk_gb"),
    Field("metadata", "properties"),
    Field("created", lambda row, base: seconds(row["created_at_us"])),
    Field("updated", lambda row, base: seconds(row["updated_at_us"])),
    Field("status", lambda row, base: _STATUS.get(row["status"], "UNKNOWN")),
    Field("progress", lambda row, base: _PROGRESS.get(row["status"], 0)),
    Field("OS-EXT-IMG-SIZE:size", "size_bytes"),
    Field("server", _server),
)


# -- images -----------------------------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    return await _list(api, request, IMAGE)


async def detail(api: Api, request: Request) -> Response:
    return await _list(api, request, IMAGE_DETAIL)


async def show(api: Api, request: Request) -> Response:
    row = await api.store.read(images.get, image_id_of(request), request.scope)
    return Response(200, {"image": IMAGE_DETAIL.renderer(1, is_admin=False)(row, api.settings.base_url)})


async def _list(api: Api, request: Request, table: FieldTable[ImageRow]) -> Response:
    page = paging.asked(api, request)
    given = dict(request.query)
    properties = {name[9:]: value for name, value in given.items() if name.startswith("property-")}
    if "type" in given:
        properties["image_type"] = given["type"]
    if "server" in given:  # an id, or the address of a server
        properties[_SERVER] = given["server"].rpartition("/")[2]
    exact: dict[str, Any] = {"name": given["name"]} if "name" in given else {}
    exact |= {
        column: as_integer(name, given[name], 0)
        for name, column in (("minRam", "min_ram_mb"), ("minDisk", "min_disk_gb"))
        if name in given
    }
    any_of = {}
    if "status" in given:
        any_of["status"] = [status for status, word in _STATUS.items() if word == given["status"].upper()]
    since_us = as_time_us("changes-since", given["changes-since"]) if "changes-since" in given else None
    filters = images.Filters(
        project_id=request.scope,
        exact=exact,
        any_of=any_of,
        properties=properties,
        changed_since_us=since_us,
        marker=page.marker,
        limit=page.limit,
    )
    rows = await api.store.read(_find, filters) if page.limit else []
    items = table.render(rows, 1, api.settings.base_url)
    return Response(200, paging.listed(api, request, page, "images", items, rows))


def _find(tx: Tx, filters: images.Filters) -> list[ImageRow]:
    with paging.marked(filters.marker):
        return list(images.find(tx, filters))


# -- metadata ---------------------------------------------------------------------------------------------------------
async def show_metadata(api: Api, request: Request) -> Response:
    row = await api.store.read(images.get, image_id_of(request), request.scope)
    return Response(200, {"metadata": row["properties"]})


async def show_item(api: Api, request: Request) -> Response:
    row = await api.store.read(images.get, image_id_of(request), request.scope)
    key = request.params["key"]
    return Response(200, {"meta": {key: _item(row["properties"], key)}})


def _item(properties: dict[str, str], key: str) -> str:
    if key not in properties:
        raise NotFound("Metadata item was not found")
    return properties[key]


def _properties(path: str, value: Any) -> dict[str, str]:
    """Checked; a name that the image has for something of its own is none of a property."""
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {path}: it must be an object of texts.")
    for name in value:
        if name in _OWN:
            raise Forbidden(f"Attribute '{name}' is the image's own, and is not changed as metadata.")
    return image_fields.split(value)[1]


_METADATA = of(_properties, type="object", additionalProperties={"type": "string"})
_META = of(_properties, **_METADATA.schema, minProperties=1, maxProperties=1)


@takes_kind(_METADATA, "metadata")
async def add_metadata(api: Api, request: Request, new: dict[str, str]) -> Response:
    return Response(200, {"metadata": await _change(api, request, lambda old: {**old, **new})})


@takes_kind(_METADATA, "metadata")
async def replace_metadata(api: Api, request: Request, new: dict[str, str]) -> Response:
    return Response(200, {"metadata": await _change(api, request, lambda old: new)})


@takes_kind(_META, "meta")
async def set_item(api: Api, request: Request, given: dict[str, str]) -> Response:
    key = request.params["key"]
    if list(given) != [key]:
        raise BadRequest(f"Invalid input for meta: '{key[:64]}' is a required property, and the only one.")
    value = given[key]
    await _change(api, request, lambda old: {**old, key: value})
    return Response(200, {"meta": {key: value}})


async def remove_item(api: Api, request: Request) -> Response:
    key = request.params["key"]

    def without(old: dict[str, str]) -> dict[str, str]:
        _item(old, key)
        return {name: value for name, value in old.items() if name != key}

    await _change(api, request, without)
    return Response(204)


async def _change(api: Api, request: Request, change: Callable[[dict[str, str]], dict[str, str]]) -> dict[str, str]:
    def write(tx: Tx) -> dict[str, str]:
        row = images.owned(tx, image_id_of(request), request.scope)
        properties = change(row["properties"])
        image_fields.check_size(properties, row["tags"])
        changed: dict[str, str] = images.change(tx, row["id"], None, {"properties": properties})["properties"]
        return changed

    return await api.store.run(write)
