"""The resource classes and traits that there are: those that follow from what hosts report. There are none of one's
own."""

from __future__ import annotations

from droveway.api.http.faults import BadQuery
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import FALSE, TRUE
from droveway.api.placement import queries, view
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.domain.traits import KNOWN
from droveway.store.compute import inventories
from droveway.store.engine.transaction import Tx


# -- resource classes -------------------------------------------------------------------------------------------------
def _class(name: str) -> dict[str, object]:
    return {"name": name, "links": [{"rel": "self", "href": f"{view.ROOT}/resource_classes/{name}"}]}


async def list_classes(api: Api, request: Request) -> Response:
    return view.answer(api, request, {"resource_classes": [_class(name) for name in view.CLASSES]})


async def show_class(api: Api, request: Request) -> Response:
    name = request.params["resource_class"]
    if name not in view.CLASSES:
        raise NotFound(f"No such resource class {name[:255]}.")
    return view.answer(api, request, _class(name))


_NO_CLASSES = f"There are no resource classes of one's own: hosts report {', '.join(view.CLASSES)} and nothing else."
refuse_class = view.refused(_NO_CLASSES, "GET")


# -- traits -----------------------------------------------------------------------------------------------------------
async def list_traits(api: Api, request: Request) -> Response:
    """All, or those that `name` says: `in:A,B` or `startswith:A`; with `associated` those that a host has, or none."""
    values = queries.given(request, {"name": 6, "associated": 6})
    name, associated = queries.one(values, "name"), queries.one(values, "associated")
    found = set(KNOWN)
    if name is not None:
        how, _, what = name.partition(":")
        if how == "in" and what:
            found &= set(what.split(","))
        elif how == "startswith" and what:
            found = {trait for trait in found if trait.startswith(what)}
        else:
            raise BadQuery(
                "Badly formatted name parameter. Expected name query string parameter in form: "
                f"?name=[in|startswith]:[name1,name2|prefix]. Got: {name[:200]}"
            )
    if associated is not None:
        if associated.lower() not in TRUE | FALSE:
            raise BadQuery(f'The query parameter "associated" only accepts "true" or "false". Got: {associated[:64]}')
        has = await api.store.read(_on_hosts)
        found = found & has if associated.lower() in TRUE else found - has
    return view.answer(api, request, {"traits": sorted(found)})


def _on_hosts(tx: Tx) -> frozenset[str]:
    seen = {
        (f.cpu_features, f.architecture, f.disabled, f.refused): f for f in (p.facts for p in inventories.providers(tx))
    }
    return frozenset().union(*map(view.traits, seen.values()))


async def show_trait(api: Api, request: Request) -> Response:
    name = request.params["trait"]
    if name not in KNOWN:
        raise NotFound(f"No such trait(s): {name[:255]}.")
    return view.nothing(api, request)


refuse_trait = view.refused(
    "There are no traits of one's own: they follow from what hosts report. Mark hosts by the metadata of an aggregate.",
    "GET",
)
