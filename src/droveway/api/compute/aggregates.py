"""Host aggregates: hosts that have something in common, and the zones that are made of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from droveway.api.compute import service_fields
from droveway.api.compute.fields import View
from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import HOST, METADATA, NAME, of, or_null
from droveway.api.http.request import Request, Response, encode
from droveway.api.http.router import refusal
from droveway.api.http.validate import as_metadata, as_name
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.policy import Need
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import aggregates
from droveway.store.fleet.aggregates import ZONE
from droveway.store.rows import Aggregate

_NUMBER_DIGITS_MAX = 9
_NOT_WHEN_NEW = ("hosts", "metadata")


def _body(request: Request, aggregate: Aggregate) -> dict[str, Any]:
    return service_fields.AGGREGATE.renderer(request.version, is_admin=True)(aggregate, View(""))


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
        return encode(
            {"aggregates": service_fields.AGGREGATE.render(aggregates.list_all(tx), request.version, View(""))}
        )

    return Response(200, await api.store.read(read))


async def show(api: Api, request: Request) -> Response:
    return Response(200, {"aggregate": _body(request, await api.store.read(aggregates.get, _number(request)))})


_ZONE = or_null(of(as_zone, **NAME.schema))


class NewAggregate(Body, frozen=True, kw_only=True):
    zone: Annotated[str | None, _ZONE] = msgspec.field(default=None, name=ZONE)
    name: Annotated[str, NAME]


@takes(NewAggregate, "aggregate")
async def create(api: Api, request: Request, given: NewAggregate) -> Response:
    made = _body(request, await api.store.run(aggregates.create, given.name, given.zone))
    return Response(200, {"aggregate": {name: value for name, value in made.items() if name not in _NOT_WHEN_NEW}})


class ChangedAggregate(Body, frozen=True):
    """Either or both."""

    name: Annotated[str | None, NAME] = None
    zone: Annotated[str | UnsetType | None, _ZONE] = msgspec.field(default=UNSET, name=ZONE)


@takes(ChangedAggregate, "aggregate")
async def update(api: Api, request: Request, given: ChangedAggregate) -> Response:
    number = _number(request)
    if given.name is None and given.zone is UNSET:
        raise BadRequest(f"Invalid input for aggregate: name or {ZONE} is required.")
    changes = {} if given.zone is UNSET else {ZONE: given.zone}
    changed = await api.store.run(aggregates.rename, number, given.name, changes)
    return Response(200, {"aggregate": _body(request, changed)})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(aggregates.remove, _number(request))
    return Response(200)


@refusal
async def images(api: Api, request: Request) -> Response:
    """Since 2.81. Not built."""
    raise NotFound("Hosts here take an image when its first guest comes: there is no cache to be filled beforehand.")


# -- actions ----------------------------------------------------------------------------------------------------------
def _metadata(path: str, value: Any) -> dict[str, str | None]:
    """Texts; null takes one away."""
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {path}: it must be an object of texts and nulls.")
    as_metadata(path, {key: "" if item is None else item for key, item in value.items()})
    if value.get(ZONE) is not None:
        as_zone(f"{path}.{ZONE}", value[ZONE])
    return value


class Host(Body, frozen=True):
    host: Annotated[str, HOST]


class Metadata(Body, frozen=True):
    metadata: Annotated[
        dict[str, str | None],
        of(_metadata, **METADATA.schema | {"additionalProperties": {"type": ["string", "null"], "maxLength": 255}}),
    ]


async def _add_host(api: Api, request: Request, given: Host) -> Response:
    return _changed(request, await api.store.run(aggregates.add_host, _number(request), given.host))


async def _remove_host(api: Api, request: Request, given: Host) -> Response:
    return _changed(request, await api.store.run(aggregates.remove_host, _number(request), given.host))


async def _set_metadata(api: Api, request: Request, given: Metadata) -> Response:
    return _changed(request, await api.store.run(aggregates.set_metadata, _number(request), given.metadata))


def _changed(request: Request, changed: Aggregate) -> Response:
    return Response(200, {"aggregate": _body(request, changed)})


ACTIONS = {
    "add_host": Action(_add_host, Host, Need.ADMIN),
    "remove_host": Action(_remove_host, Host, Need.ADMIN),
    "set_metadata": Action(_set_metadata, Metadata, Need.ADMIN),
}
action = dispatch(ACTIONS, "Its hosts and its metadata.")
