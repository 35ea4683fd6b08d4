"""`/metadefs`: the properties of images that mean something here, with the values that each may have: made of the very
table by which they are checked (scheduler/image_properties.py), so Horizon offers what is heeded."""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.http.router import refusal
from droveway.api.wiring import Api
from droveway.domain.faults import Forbidden, NotFound
from droveway.scheduler.extra_specs import ANYTHING, FALSE, POSITIVE, SHOWN, TRUTH
from droveway.scheduler.image_properties import KNOWN

NAMESPACE = "Droveway::Image"
RESOURCE_TYPE = "OS::Glance::Image"
SINCE = "2026-11-30T00:00:00Z"  # since when this table is told
_ONE_OF = "one of "
Object = dict[str, Any]


def _property(name: str, pattern: str) -> Object:
    found: Object = {"title": name, "type": "string"}
    shown = SHOWN.get(pattern, "")
    if shown.startswith(_ONE_OF):
        found["enum"] = shown.removeprefix(_ONE_OF).split(", ")
    elif pattern in (TRUTH, FALSE):
        found["type"] = "boolean"
    elif pattern == POSITIVE:
        found |= {"type": "integer", "minimum": 1}
    elif pattern != ANYTHING:
        found["description"] = f"{shown[:1].upper()}{shown[1:]}." if shown else f"As {pattern}."
    return found


PROPERTIES = {name: _property(name, pattern) for name, pattern in sorted(KNOWN.items())}
_ASSOCIATION = {"name": RESOURCE_TYPE, "created_at": SINCE, "updated_at": SINCE}


def _namespace() -> Object:
    path = f"/v2/metadefs/namespaces/{NAMESPACE}"
    return {
        "namespace": NAMESPACE,
        "display_name": "Hardware of guests",
        "description": "Properties of an image that servers made of it heed.",
        "visibility": "public",
        "protected": True,
        "owner": "admin",
        "created_at": SINCE,
        "updated_at": SINCE,
        "self": path,
        "schema": "/v2/schemas/metadefs/namespace",
        "resource_type_associations": [_ASSOCIATION],
    }


def _check(request: Request) -> None:
    namespace = request.params["namespace"]
    if namespace != NAMESPACE:
        raise NotFound(f"Metadata definition namespace={namespace[:64]} was not found.")


async def list_namespaces(api: Api, request: Request) -> Response:
    """By `resource_types` and `visibility`; all of it stands on one page."""
    asked = request.known_query(("resource_types", "visibility", "limit", "marker"))
    types = asked.get("resource_types", RESOURCE_TYPE).split(",")
    is_there = RESOURCE_TYPE in types and asked.get("visibility", "public") == "public" and "marker" not in asked
    found = [_namespace()] if is_there and asked.get("limit") != "0" else []
    first, of = "/v2/metadefs/namespaces", "/v2/schemas/metadefs/namespaces"
    return Response(200, {"namespaces": found, "first": first, "schema": of})


async def show_namespace(api: Api, request: Request) -> Response:
    _check(request)
    return Response(200, {**_namespace(), "properties": PROPERTIES, "objects": [], "tags": []})


async def list_properties(api: Api, request: Request) -> Response:
    _check(request)
    return Response(200, {"properties": PROPERTIES})


async def show_property(api: Api, request: Request) -> Response:
    _check(request)
    name = request.params["name"]
    if name not in PROPERTIES:
        raise NotFound(f"Metadata definition property with name={name[:64]} was not found in namespace={NAMESPACE}.")
    return Response(200, {"name": name, **PROPERTIES[name]})


async def list_objects(api: Api, request: Request) -> Response:
    _check(request)
    return Response(200, {"objects": [], "schema": "/v2/schemas/metadefs/objects"})


async def list_tags(api: Api, request: Request) -> Response:
    _check(request)
    return Response(200, {"tags": [], "schema": "/v2/schemas/metadefs/tags"})


async def list_associations(api: Api, request: Request) -> Response:
    _check(request)
    return Response(200, {"resource_type_associations": [_ASSOCIATION]})


async def list_resource_types(api: Api, request: Request) -> Response:
    return Response(200, {"resource_types": [_ASSOCIATION]})


@refusal
async def refuse(api: Api, request: Request) -> Response:
    raise Forbidden("The properties that images may have here are those that servers heed; this list is not changed.")


# -- schemas ----------------------------------------------------------------------------------------------------------
_TEXT = {"type": "string"}
_NAMESPACE_SCHEMA: Object = {
    "name": "namespace",
    "additionalProperties": False,
    "required": ["namespace"],
    "properties": {
        **dict.fromkeys(("namespace", "display_name", "description", "owner"), _TEXT),
        "visibility": {"type": "string", "enum": ["public", "private"]},
        "protected": {"type": "boolean"},
        **{name: {**_TEXT, "readOnly": True} for name in ("created_at", "updated_at", "schema", "self")},
        "resource_type_associations": {"type": "array", "items": {"type": "object"}},
        "properties": {"type": "object"},
        "objects": {"type": "array", "items": {"type": "object"}},
        "tags": {"type": "array", "items": {"type": "object"}},
    },
}
_RESOURCE_TYPE_SCHEMA: Object = {
    "name": "resource_type_association",
    "properties": dict.fromkeys(("name", "prefix", "properties_target", "created_at", "updated_at"), _TEXT),
}
_PROPERTY_SCHEMA: Object = {
    "name": "property",
    "additionalProperties": True,
    "required": ["name", "title", "type"],
    "properties": dict.fromkeys(("name", "title", "description", "type"), _TEXT),
}


def _several(name: str, items: Object) -> Object:
    return {"name": name, "properties": {name: {"type": "array", "items": items}, "first": _TEXT, "schema": _TEXT}}


SCHEMAS: dict[str, Object] = {
    "namespace": _NAMESPACE_SCHEMA,
    "namespaces": _several("namespaces", _NAMESPACE_SCHEMA),
    "resource_type": _RESOURCE_TYPE_SCHEMA,
    "resource_types": _several("resource_type_associations", _RESOURCE_TYPE_SCHEMA),
    "property": _PROPERTY_SCHEMA,
    "properties": _several("properties", _PROPERTY_SCHEMA),
    "object": {"name": "object", "properties": {"name": _TEXT}},
    "objects": _several("objects", {"type": "object"}),
    "tag": {"name": "tag", "properties": {"name": _TEXT}},
    "tags": _several("tags", {"type": "object"}),
}


async def schema(api: Api, request: Request) -> Response:
    name = request.params["name"]
    if name not in SCHEMAS:
        raise NotFound(f"There is no schema of metadefs {name[:64]}; there is {', '.join(SCHEMAS)}.")
    return Response(200, SCHEMAS[name])
