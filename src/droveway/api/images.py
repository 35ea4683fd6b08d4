"""Image v2: everything but the bytes themselves (uploads.py)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sqlalchemy import RowMapping

from droveway.api import image_fields, paging
from droveway.api.request import Request, Response
from droveway.api.validate import as_flag, as_integer, as_text, is_uuid
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.store import images
from droveway.store.transaction import Tx

PAGE = 100
PATCH_TYPES = ("application/openstack-images-v2.1-json-patch", "application/json-patch+json", "application/json")


def owner_of(request: Request) -> str | None:
    """The project whose images the caller may see or change; None for one who may all."""
    return None if request.caller.is_admin else request.caller.project_id


def image_id_of(request: Request) -> str:
    image_id = request.params["id"]
    if not is_uuid(image_id):
        raise NotFound(f"No image found with ID {image_id[:64]}.")
    return image_id


async def create(api: Api, request: Request) -> Response:
    """A queued image, without data."""
    given = await request.json(api.settings.max_body_bytes)
    if not isinstance(given, dict):
        raise BadRequest("Invalid input: the body must be an object.")
    values = dict(given)
    image_id = values.pop("id", None)
    if image_id is None:
        image_id = api.names.uuid()
    elif not isinstance(image_id, str) or not is_uuid(image_id):
        raise BadRequest("Invalid input for id: it is not a UUID.")
    owner = _owner(request, values.pop("owner", None))
    columns, properties = image_fields.split(values)
    _may_publish(request, columns)
    new = images.NewImage(
        id=image_id,
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
    row = await api.store.run(images.create, new)
    location = f"{api.settings.base_url}/image/v2/images/{image_id}".encode()
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
    row = await api.store.read(images.get, image_id_of(request), owner_of(request))
    return Response(200, image_fields.body(row))


async def delete(api: Api, request: Request) -> Response:
    """The row first: a crash in between leaves a file that the next start clears away."""
    image_id = image_id_of(request)
    await api.store.run(images.remove, image_id, owner_of(request))
    path = images.path_of(api.settings.images_directory, image_id)
    await api.files.run(path.unlink, missing_ok=True)
    return Response(204)


# -- list -------------------------------------------------------------------------------------------------------------
_COLUMNS = {
    "id": "id", "name": "name", "status": "status", "visibility": "visibility", "owner": "project_id",
    "disk_format": "disk_format", "container_format": "container_format", "checksum": "checksum",
    "os_hash_value": "sha512",
}  # fmt: skip
_NUMBERS = {"min_ram": "min_ram_mb", "min_disk": "min_disk_gb"}
_SORTS = {
    "name": "name", "status": "status", "container_format": "container_format", "disk_format": "disk_format",
    "size": "size_bytes", "id": "id", "created_at": "created_at_us", "updated_at": "updated_at_us",
}  # fmt: skip
_IGNORED = frozenset(("member_status", "os_hash_algo"))


async def listing(api: Api, request: Request) -> Response:
    filters = _filters(api, request)
    if filters is None:
        rows: list[RowMapping] = []
    else:
        rows = list(await api.store.read(_find, filters))
    query = [(name, value) for name, value in request.query if name != "marker"]
    suffix = f"?{urlencode(query)}" if query else ""
    body: dict[str, Any] = {
        "images": [image_fields.body(row) for row in rows],
        "first": f"/v2/images{suffix}",
        "schema": "/v2/schemas/images",
    }
    if filters is not None and rows and len(rows) == filters.limit:
        body["next"] = f"/v2/images?{urlencode([*query, ('marker', rows[-1]['id'])])}"
    return Response(200, body)


def _find(tx: Tx, filters: images.Filters) -> list[RowMapping]:
    try:
        return list(images.find(tx, filters))
    except NotFound:
        raise BadRequest(f"Invalid input for marker: there is no image {filters.marker}.") from None


def _filters(api: Api, request: Request) -> images.Filters | None:
    """None when nothing can match."""
    exact: dict[str, Any] = {}
    any_of: dict[str, list[str]] = {}
    tags: list[str] = []
    properties: dict[str, str] = {}
    sizes: dict[str, int] = {}
    page: dict[str, str] = {}
    sort: list[tuple[str, bool]] = []
    for name, value in request.query:
        if name in _COLUMNS:
            if value.startswith("in:"):
                any_of[_COLUMNS[name]] = _words(value[3:])
            elif not (name == "visibility" and value == "all"):
                exact[_COLUMNS[name]] = value
        elif name in _NUMBERS:
            exact[_NUMBERS[name]] = as_integer(name, value, 0)
        elif name == "protected":
            exact["protected"] = as_flag(name, value)
        elif name in ("size_min", "size_max"):
            sizes[name] = as_integer(name, value, 0, 2**62)
        elif name == "tag":
            tags.append(value)
        elif name == "os_hidden":
            if as_flag(name, value):
                return None
        elif name == "sort":
            sort = [_sort(*part.partition(":")[::2]) for part in value.split(",")]
        elif name in ("limit", "marker", "sort_key", "sort_dir"):
            page[name] = value
        elif name not in _IGNORED:
            properties[name] = value
    if not sort and ("sort_key" in page or "sort_dir" in page):
        sort = [_sort(page.get("sort_key", "created_at"), page.get("sort_dir", ""))]
    limit = as_integer("limit", page.get("limit", str(PAGE)), 0)
    return images.Filters(
        project_id=owner_of(request), exact=exact, any_of=any_of, tags=tags, properties=properties,
        size_min=sizes.get("size_min"), size_max=sizes.get("size_max"), marker=page.get("marker"),
        sort=paging.order(sort, len(_SORTS)), limit=min(limit, api.settings.page_max),
    )  # fmt: skip


def _words(text: str) -> list[str]:
    """`a,b,"with, comma"`: the values of an `in:` filter."""
    words, current, quoted = [], "", False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            words.append(current)
            current = ""
        else:
            current += character
    if quoted:
        raise BadRequest("Invalid input for a filter: its quotation mark is not closed.")
    return [*words, current]


def _sort(key: str, direction: str) -> tuple[str, bool]:
    if key not in _SORTS or direction not in ("", "asc", "desc"):
        raise BadRequest(
            f"Invalid sort {key[:40]}:{direction[:40]}; keys are {', '.join(_SORTS)}, directions asc and desc."
        )
    return _SORTS[key], direction != "asc"


# -- change -----------------------------------------------------------------------------------------------------------
async def patch(api: Api, request: Request) -> Response:
    """JSON patch on the top level of an image, all of it or nothing."""
    content_type = (request.header(b"content-type") or "").partition(";")[0]
    if content_type not in PATCH_TYPES:
        raise BadRequest(f"An image is changed by a JSON patch of type {PATCH_TYPES[0]}.")
    operations = await request.json(api.settings.max_body_bytes)
    if not isinstance(operations, list):
        raise BadRequest("Invalid input: a JSON patch is a list of operations.")
    row = await api.store.run(_patch, request, image_id_of(request), operations)
    return Response(200, image_fields.body(row))


def _patch(tx: Tx, request: Request, image_id: str, operations: list[Any]) -> RowMapping:
    row = images.owned(tx, image_id, owner_of(request))
    columns: dict[str, Any] = {}
    properties = dict(row["properties"])
    for operation in operations:
        op, name, value = _operation(operation)
        if name in image_fields.SETTABLE:
            column, check = image_fields.SETTABLE[name]
            if op == "remove":
                raise Forbidden(f"Attribute '{name}' cannot be removed.")
            if (
                column in ("disk_format", "container_format")
                and row["status"] != images.QUEUED
                and value != row[column]
            ):
                raise Forbidden(f"Attribute '{name}' can only be changed while the image has no data.")
            columns[column] = check(value)
        elif name in ("id", "owner", "os_hidden"):
            raise Forbidden(f"Attribute '{name}' cannot be changed here.")
        elif op == "remove":
            if properties.pop(name, None) is None:
                raise BadRequest(f"The image has no property {name}.")
        else:
            properties[name] = image_fields.check_property(name, value)
    if len(properties) > image_fields.PROPERTIES_MAX:
        raise BadRequest(f"An image has at most {image_fields.PROPERTIES_MAX} properties of its own.")
    _may_publish(request, columns)
    return images.change(tx, image_id, owner_of(request), {**columns, "properties": properties})


def _operation(operation: Any) -> tuple[str, str, Any]:
    if not isinstance(operation, dict):
        raise BadRequest("Invalid input: an operation of a JSON patch is an object.")
    op, path = operation.get("op"), operation.get("path")
    if op not in ("add", "replace", "remove") or not isinstance(path, str) or not path.startswith("/"):
        raise BadRequest("Invalid input: an operation has op add, replace or remove, and a path that begins with /.")
    name = path[1:].replace("~1", "/").replace("~0", "~")
    if op != "remove" and "value" not in operation:
        raise BadRequest(f"Invalid input: the operation on {name[:64]} has no value.")
    return op, name, operation.get("value")


async def add_tag(api: Api, request: Request) -> Response:
    return await _change_tag(api, request, present=True)


async def remove_tag(api: Api, request: Request) -> Response:
    return await _change_tag(api, request, present=False)


async def _change_tag(api: Api, request: Request, *, present: bool) -> Response:
    tag = as_text("tag", request.params["tag"], 255, 1)

    def write(tx: Tx) -> None:
        row = images.owned(tx, image_id_of(request), owner_of(request))
        tags = set(row["tags"])
        if not present and tag not in tags:
            raise NotFound(f"The image has no tag {tag}.")
        wanted = tags | {tag} if present else tags - {tag}
        images.change(tx, row["id"], None, {"tags": sorted(wanted)})

    await api.store.run(write)
    return Response(204)


async def schema(api: Api, request: Request) -> Response:
    return Response(200, image_fields.schema())


async def list_schema(api: Api, request: Request) -> Response:
    return Response(200, image_fields.list_schema())
