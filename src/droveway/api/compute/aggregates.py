"""Host aggregates: hosts that have something in common, and the zones that are made of them."""

from __future__ import annotations

from typing import Any

from droveway.api.compute import fields
from droveway.api.compute.fields import View
from droveway.api.http.request import Request, Response, encode
from droveway.api.http.validate import Fields, as_host, as_metadata, as_name, the
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import aggregates
from droveway.store.fleet.aggregates import ZONE
from droveway.store.rows import Aggregate

_NUMBER_DIGITS_MAX = 9
_NOT_WHEN_NEW = ("hosts", "metadata")


def _body(request: Request, aggregate: Aggregate) -> dict[str, Any]:
    return fields.AGGREGATE.renderer(request.version, is_admin=True)(aggregate, View(""))


def _number(request: Request) -> int:
    given = request.params["aggregate"]
    if not (given.isascii() and given.isdigit() and len(given) <= _NUMBER_DIGITS_MAX):
        raise NotFound(f"Aggregate {given[:64]} could not be found.")  # clients try names here first
    return int(given)


def as_zone(name: str, value: Any) -> str:
    """The name of a zone; a colon would end it in `zone:host`."""
    zone = as_name(name, value)
    if ":" in zone:
        raise BadRequest(f"Invalid input for {name}: the name of a zone must not contain a colon.")
    return zone


async def listing(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> bytes:
        return encode({"aggregates": fields.AGGREGATE.render(aggregates.list_all(tx), request.version, View(""))})

    return Response(200, await api.store.read(read))


async def show(api: Api, request: Request) -> Response:
    return Response(200, {"aggregate": _body(request, await api.store.read(aggregates.get, _number(request)))})


async def create(api: Api, request: Request) -> Response:
    body = await request.json(api.settings.max_body_bytes)
    given = Fields(the(body, "aggregate"), "aggregate", ("name", ZONE))
    zone = given.value(ZONE)
    if zone is not None:
        as_zone(given.path(ZONE), zone)
    made = _body(request, await api.store.run(aggregates.create, given.name("name"), zone))
    return Response(200, {"aggregate": {name: value for name, value in made.items() if name not in _NOT_WHEN_NEW}})


async def update(api: Api, request: Request) -> Response:
    number = _number(request)
    body = await request.json(api.settings.max_body_bytes)
    given = Fields(the(body, "aggregate"), "aggregate", ("name", ZONE))
    if "name" not in given and ZONE not in given:
        raise BadRequest(f"Invalid input for aggregate: name or {ZONE} is required.")
    name = given.name("name") if "name" in given else None
    changes: dict[str, str | None] = {}
    if ZONE in given:
        zone = given.value(ZONE)
        changes[ZONE] = None if zone is None else as_zone(given.path(ZONE), zone)
    return Response(200, {"aggregate": _body(request, await api.store.run(aggregates.rename, number, name, changes))})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(aggregates.remove, _number(request))
    return Response(200)


async def images(api: Api, request: Request) -> Response:
    """Since 2.81. Not built."""
    raise NotFound("Hosts here take an image when its first guest comes: there is no cache to be filled beforehand.")


# -- actions ----------------------------------------------------------------------------------------------------------
async def action(api: Api, request: Request) -> Response:
    """One of `add_host`, `remove_host` and `set_metadata`, named by the only member of the body."""
    number = _number(request)
    body = await request.json(api.settings.max_body_bytes)
    name = next(iter(body)) if isinstance(body, dict) and len(body) == 1 else None
    if name == "set_metadata":
        changed = await api.store.run(aggregates.set_metadata, number, _metadata(body[name]))
    elif name == "add_host":
        changed = await api.store.run(aggregates.add_host, number, _host(body[name], name))
    elif name == "remove_host":
        changed = await api.store.run(aggregates.remove_host, number, _host(body[name], name))
    else:
        raise BadRequest("The body must be an object with one of add_host, remove_host and set_metadata.")
    return Response(200, {"aggregate": _body(request, changed)})


def _host(value: Any, name: str) -> str:
    given = Fields(value, name, ("host",))
    return as_host(given.path("host"), given.required("host"))


def _metadata(value: Any) -> dict[str, str | None]:
    given = Fields(value, "set_metadata", ("metadata",))
    changes = given.required("metadata")
    where = given.path("metadata")
    if not isinstance(changes, dict):
        raise BadRequest(f"Invalid input for {where}: it must be an object of texts and nulls.")
    as_metadata(where, {key: "" if item is None else item for key, item in changes.items()})
    if changes.get(ZONE) is not None:
        as_zone(f"{where}.{ZONE}", changes[ZONE])
    return changes
