"""The OpenAPI 3.1 document of this API, made of the table of routes and the bodies that its handlers declare.

GET /droveway/v1/openapi.json

What it says of a path is what the router does: the methods, who may call them, from which microversion to which, and
the body. `x-openstack` carries the microversions, as OpenStack's own documents do; where a method does different things
at different microversions, its body is one of several. Keys of queries are those of api/query_keys.py, where they may
be made up by clients as one object. Bodies of replies are not described: they are those of the OpenStack API.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import msgspec

from droveway.api.http.bodies import JSON_TYPE, SEVERAL_MAX, RequestBody, Schema, body_of, schema
from droveway.api.http.faults import COMPUTE, PLACEMENT, VOLUME
from droveway.api.http.microversions import SERIES
from droveway.api.http.render import FOREVER
from droveway.api.http.router import Route
from droveway.api.query_keys import KEYS, Key
from droveway.domain.policy import Need
from droveway.domain.policy import described as to_words

OPENAPI = "3.1.0"
_MICROVERSION = {"$ref": "#/components/parameters/microversion"}
_COMPONENTS = {
    "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
    "parameters": {
        "microversion": {
            "name": "OpenStack-API-Version",
            "in": "header",
            "schema": {"type": "string"},
            "description": "The microversion, such as `compute 2.90`; the least one when it is not there.",
        },
    },
}


@lru_cache(1)
def encoded(routes: tuple[Route, ...]) -> bytes:
    return msgspec.json.encode(document(routes))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document as plain values."""
    paths: dict[str, dict[str, Any]] = {}
    together: dict[tuple[str, str], list[Route]] = {}
    for route in routes:
        together.setdefault((route.path, route.method), []).append(route)
    for (path, method), several in together.items():
        item = paths.setdefault(path, _item(path, several[0]))
        item[method.lower()] = _operation(several)
    info = {
        "title": "Droveway",
        "version": version("droveway"),
        "license": {"name": "Apache-2.0"},
        "description": "A control plane for KVM hosts. What is not here is answered with 404.",
    }
    return {"openapi": OPENAPI, "info": info, "paths": paths, "components": _COMPONENTS}


def service_of(path: str) -> str:
    return path.split("/")[1]


def _item(path: str, route: Route) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", path)
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    if service_of(path) in SERIES and route.need is not Need.PUBLIC:
        parameters.append(_MICROVERSION)
    return {"parameters": parameters} if parameters else {}


def _operation(several: list[Route]) -> dict[str, Any]:
    first = several[0]
    found: dict[str, Any] = {
        "operationId": _identifier(first),
        "tags": [service_of(first.path) or "root"],
        "description": "\n\n".join(_description(route) for route in several),
        "responses": {"default": {"description": "As the OpenStack API of that service says; faults are JSON too."}},
        "security": [] if first.need is Need.PUBLIC else [{"token": []}],
    }
    if first.method == "GET" and (queried := [_query_key(key, first) for key in KEYS.get(first.path, ())]):
        found["parameters"] = queried
    versions = [noted for route in several if (noted := _versions(route))]
    if versions:
        found["x-openstack"] = versions[0] if len(several) == 1 else {"versions": versions}
    bodies = [(route, body) for route in several if (body := body_of(route.handler)) is not None]
    if bodies:
        found["requestBody"] = _request_body(bodies, len(several))
    return found


def _query_key(key: Key, route: Route) -> Schema:
    """`NAME*`: that key, also with a suffix; `*` and `PREFIX-*`: any key, or any with that prefix."""
    described: Schema = {
        "name": key.name.rstrip("*").rstrip("-") or "property",
        "in": "query",
        "schema": {"type": "string"},
    }
    if key.name == "*" or key.name.endswith("-*"):
        any_name = {"type": "object", "additionalProperties": {"type": "string"}}
        what = (
            f"Any key {key.name}, by its own name."
            if key.name != "*"
            else "Any other key: a property, by its own name."
        )
        described |= {"schema": any_name, "style": "form", "explode": True, "description": what}
    elif key.name.endswith("*"):
        described["description"] = "Also with a suffix, which names a group of the request."
    noted = _span(route, key.first, key.last)
    return described | ({"x-openstack": noted} if noted else {})


def _identifier(route: Route) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", route.path).strip("_")
    return f"{route.method.lower()}_{words or 'root'}"


def _description(route: Route) -> str:
    described = inspect.getdoc(route.handler) or ""
    return f"{' '.join(described.split())} {to_words(route.need)}".strip()


def major_of(route: Route) -> str:
    """Of its microversions: "2."; empty where there are none."""
    return {COMPUTE: "2.", PLACEMENT: "1.", VOLUME: "3."}.get(service_of(route.path), "")


def _versions(route: Route) -> dict[str, str]:
    return _span(route, route.since, route.until)


def _span(route: Route, first: int, last: int) -> dict[str, str]:
    major, series = major_of(route), SERIES.get(service_of(route.path))
    found: dict[str, str] = {}
    if series is not None and first > series.minimum:
        found["min-ver"] = f"{major}{first}"
    if series is not None and last != FOREVER:
        found["max-ver"] = f"{major}{last}"
    return found


def _request_body(bodies: list[tuple[Route, RequestBody]], operations: int) -> dict[str, Any]:
    media_types = tuple(dict.fromkeys(kind for _, body in bodies for kind in body.media_types))
    schemas = []
    for route, body in bodies:
        noted = _versions(route)
        where = {"x-openstack": noted} if noted and operations > 1 else {}
        schemas.append(body_schema(body, major_of(route)) | where)
    one = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    is_needed = len(bodies) == operations and JSON_TYPE in media_types
    return {"required": is_needed, "content": {kind: {"schema": one} for kind in media_types}}


def body_schema(body: RequestBody, major: str) -> Schema:
    if body.actions:
        several = []
        for name, one in body.actions.items():
            inner = _in_wrapper(schema(one.form, major), name)
            noted = {"x-openstack": {"max-ver": f"{major}{one.until}"}} if one.until != FOREVER else {}
            several.append(inner | {"description": to_words(one.need)} | noted)
        return {"oneOf": several}
    assert body.form is not None, "a body has a form, or actions"
    inner = schema(body.form, major)
    if body.plural:
        many: Schema = {"type": "array", "items": inner, "minItems": 1, "maxItems": SEVERAL_MAX}
        return {"oneOf": [_in_wrapper(inner, body.wrapper), _in_wrapper(many, body.plural)]}
    return _in_wrapper(inner, body.wrapper) if body.wrapper else inner


def _in_wrapper(inner: Schema, name: str) -> Schema:
    return {"type": "object", "properties": {name: inner}, "required": [name], "additionalProperties": False}
