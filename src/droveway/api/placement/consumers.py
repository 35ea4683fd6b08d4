"""Allocations and usages: what instances hold, and migrations at their destination. They are the instances' and the
migrations' own rows, so none can be left behind by anybody."""

from __future__ import annotations

from typing import Any

from droveway.api.http.faults import BadQuery
from droveway.api.http.request import Request, Response
from droveway.api.placement import queries, view
from droveway.api.wiring import Api
from droveway.store.compute import inventories
from droveway.store.compute.inventories import ConsumerType, HostClaims
from droveway.store.engine.transaction import Tx

_USAGE_KEYS = {"project_id": 9, "user_id": 9, "consumer_type": 38}  # each since 1.N
_EACH_TYPE = 38


async def allocations(api: Api, request: Request) -> Response:
    """Of one consumer: of an instance by its id, of a migration by its uuid."""

    def read(tx: Tx) -> dict[str, Any]:
        held = inventories.of_consumer(tx, request.params["consumer"])
        place = None if held is None else inventories.place_of(tx, held.host)
        return {"allocations": {}} if held is None or place is None else _body(held, place, request.version)

    return view.answer(api, request, await api.store.read(read))


def _body(held: HostClaims, place: tuple[str, int], version: int) -> dict[str, Any]:
    uuid, generation = place
    body: dict[str, Any] = {"allocations": {uuid: {"generation": generation, "resources": view.amounts(held)}}}
    if version >= 12:
        body |= {"project_id": held.project_id, "user_id": held.user_id}
    if version >= 28:
        body["consumer_generation"] = held.generation
    if version >= _EACH_TYPE:
        body["consumer_type"] = held.type.value
    return body


async def usages(api: Api, request: Request) -> Response:
    """What a project holds, or one user of it; by type of consumer since 1.38."""
    values = queries.given(request, _USAGE_KEYS)
    project_id, user_id = queries.one(values, "project_id"), queries.one(values, "user_id")
    if not project_id:
        raise BadQuery("Invalid query string parameters: 'project_id' is a required property.")
    wanted = queries.one(values, "consumer_type")
    if wanted not in (None, "all", "unknown", *(kind.value for kind in ConsumerType)):
        raise BadQuery(f"Invalid query string parameters: there is no consumer_type {wanted[:64] if wanted else ''}.")
    version = request.version

    def read(tx: Tx) -> dict[str, Any]:
        holdings = inventories.of_project(tx, project_id, user_id)
        return _sums(holdings) if version < _EACH_TYPE else _by_type(holdings, wanted)

    return view.answer(api, request, {"usages": await api.store.read(read)})


def _by_type(holdings: list[HostClaims], wanted: str | None) -> dict[str, Any]:
    groups: dict[str, list[HostClaims]] = {}
    for each in holdings:
        if wanted in (None, "all", each.type.value):
            groups.setdefault("all" if wanted == "all" else each.type.value, []).append(each)
    return {name: {"consumer_count": len(group), **_sums(group)} for name, group in groups.items()}


def _sums(holdings: list[HostClaims]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for each in holdings:
        for name, amount in view.amounts(each).items():
            sums[name] = sums.get(name, 0) + amount
    return sums


_FOLLOW = "Allocations follow from servers and their migrations: create, delete or move the server instead."
refuse = view.refused(_FOLLOW)
refuse_one = view.refused(_FOLLOW, "GET")
