"""Resource providers: one for each host that has reported. Placement is a view: nothing is written through it.

Its generation is the number of the host's claims: it rises with every change of what is held there or may be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.placement import queries, view
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.store.compute import inventories
from droveway.store.compute.inventories import Provider
from droveway.store.engine.transaction import Tx

_KEYS = {"name": 0, "uuid": 0, "member_of": 3, "resources": 4, "in_tree": 14, "required": 18}  # each since 1.N


async def listing(api: Api, request: Request) -> Response:
    values = queries.given(request, _KEYS)
    asked = queries.wanted(values, request.version)
    name, uuid = queries.one(values, "name"), queries.uuid_of(values, "uuid")

    def matches(provider: Provider) -> bool:
        return (
            (name is None or provider.name == name)
            and queries.suits(provider, asked)
            and queries.has_capacity(provider, asked.resources, api.settings.placement)
        )

    def read(tx: Tx) -> bytes:
        one = None if uuid is None else inventories.provider(tx, uuid)
        found = inventories.providers(tx) if uuid is None else [] if one is None else [one]
        bodies = (view.provider_body(each, request.version) for each in found if matches(each))
        return encode({"resource_providers": encode_each(bodies)})

    return view.answer(api, request, await api.store.read(read))


async def show(api: Api, request: Request) -> Response:
    provider = await api.store.read(view.find, request)
    return view.answer(api, request, view.provider_body(provider, request.version))


async def _about(api: Api, request: Request, show: Callable[[Provider], dict[str, Any]]) -> Response:
    provider = await api.store.read(view.find, request)
    return view.answer(api, request, {**show(provider), **_generation(provider)})


def _generation(provider: Provider) -> dict[str, int]:
    return {"resource_provider_generation": provider.facts.claims}


# -- what is known of one ---------------------------------------------------------------------------------------------
async def list_inventories(api: Api, request: Request) -> Response:
    settings = api.settings.placement
    return await _about(
        api, request, lambda p: {"inventories": msgspec.to_builtins(view.inventories_of(p.facts, settings))}
    )


async def show_inventory(api: Api, request: Request) -> Response:
    name = request.params["resource_class"]

    def show(provider: Provider) -> dict[str, Any]:
        found = view.inventories_of(provider.facts, api.settings.placement).get(name)
        if found is None:
            raise NotFound(f"No inventory of class {name[:255]} for {provider.facts.uuid}.")
        return dict(msgspec.to_builtins(found))

    return await _about(api, request, show)


async def usages(api: Api, request: Request) -> Response:
    """Of each class of which it has something."""

    def show(provider: Provider) -> dict[str, Any]:
        there = view.inventories_of(provider.facts, api.settings.placement)
        return {"usages": {name: held for name, held in view.used(provider.facts).items() if name in there}}

    return await _about(api, request, show)


async def aggregates(api: Api, request: Request) -> Response:
    provider = await api.store.read(view.find, request)
    generation = _generation(provider) if request.version >= 19 else {}
    return view.answer(api, request, {"aggregates": provider.aggregates, **generation})


async def traits(api: Api, request: Request) -> Response:
    return await _about(api, request, lambda provider: {"traits": sorted(view.traits(provider.facts))})


async def allocations(api: Api, request: Request) -> Response:
    """What each instance and each migration holds there; with the consumer's generation since 1.28."""

    def read(tx: Tx) -> bytes:
        provider = view.find(tx, request)
        held: dict[str, Any] = {}
        for each in inventories.on_host(tx, provider.facts.name):
            more = {"consumer_generation": each.generation} if request.version >= 28 else {}
            held[each.consumer] = {"resources": view.amounts(each), **more}
        return encode({"allocations": held, **_generation(provider)})

    return view.answer(api, request, await api.store.read(read))


# -- what is not written here -----------------------------------------------------------------------------------------
refuse_provider = view.refused(
    "Resource providers follow from hosts: one is there once its host has reported, and goes when its compute service "
    "is deleted.",
    "GET",
)
refuse_inventory = view.refused(
    "Inventories follow from what hosts report and from the ratios and reserves in the configuration of control.", "GET"
)
refuse_aggregates = view.refused(
    "The aggregates of a provider are those its host is in: use 'openstack aggregate add host' and 'remove host'.",
    "GET",
)
refuse_traits = view.refused(
    "The traits of a provider follow from what its host reports of its CPU and from whether its compute service is "
    "enabled.",
    "GET",
)
