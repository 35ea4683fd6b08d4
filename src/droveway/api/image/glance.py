"""What Glance offers beyond images, as far as clients look for it: ways of import (none: data is uploaded), stores
(one), tasks and a cache (none of either)."""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.http.router import refusal
from droveway.api.image.images import image_id_of
from droveway.api.wiring import Api
from droveway.domain.faults import Conflict, Forbidden, NotFound
from droveway.store.image import images

STORE = "file"  # as the key image_store calls it
_METHODS = {"description": "Import methods available.", "type": "array", "value": []}


async def import_info(api: Api, request: Request) -> Response:
    return Response(200, {"import-methods": _METHODS})


async def stores(api: Api, request: Request) -> Response:
    return Response(200, {"stores": [{"id": STORE, "default": True, "description": "Files of this cloud"}]})


async def stores_detail(api: Api, request: Request) -> Response:
    store = {"id": STORE, "default": True, "description": "Files of this cloud", "type": "file", "properties": {}}
    return Response(200, {"stores": [store]})


@refusal
async def refuse_import(api: Api, request: Request) -> Response:
    await api.store.read(images.get, image_id_of(request), request.scope)
    raise Conflict("Images are not imported here; upload the data with PUT /v2/images/{id}/file.")


# -- tasks ------------------------------------------------------------------------------------------------------------
async def tasks(api: Api, request: Request) -> Response:
    return Response(200, {"tasks": [], "first": "/v2/tasks", "schema": "/v2/schemas/tasks"})


async def tasks_of_image(api: Api, request: Request) -> Response:
    await api.store.read(images.get, image_id_of(request), request.scope)
    return Response(200, {"tasks": []})


async def show_task(api: Api, request: Request) -> Response:
    raise NotFound(f"There is no task {request.params['task'][:64]}: nothing here is done by one.")


@refusal
async def refuse_task(api: Api, request: Request) -> Response:
    raise Forbidden("Nothing here is done by a task; upload the data of an image with PUT /v2/images/{id}/file.")


# -- cache ------------------------------------------------------------------------------------------------------------
async def cache(api: Api, request: Request) -> Response:
    """The API gives images from its own store; what hosts keep of them is theirs."""
    return Response(200, {"cached_images": [], "queued_images": []})


async def clear_cache(api: Api, request: Request) -> Response:
    """There is nothing in it."""
    return Response(204)


@refusal
async def refuse_cached(api: Api, request: Request) -> Response:
    raise Forbidden("Images are given from the store itself: there is no cache that one could be put into.")


def _schema(name: str, **properties: Any) -> dict[str, Any]:
    return {"name": name, "properties": properties}


_TEXT = {"type": "string"}
_TASK = _schema("task", **dict.fromkeys(("id", "type", "status", "owner", "created_at", "updated_at"), _TEXT))


async def task_schema(api: Api, request: Request) -> Response:
    return Response(200, _TASK)


async def tasks_schema(api: Api, request: Request) -> Response:
    return Response(200, _schema("tasks", tasks={"type": "array", "items": _TASK}, first=_TEXT, schema=_TEXT))
