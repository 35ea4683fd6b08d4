"""The keys of queries that the document tells of are those that handlers read, at each microversion."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from droveway.api.compute import server_filters
from droveway.api.http.microversions import SERIES
from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request
from droveway.api.http.router import Route
from droveway.api.openapi import document, service_of
from droveway.api.placement import queries
from droveway.api.query_keys import KEYS, Key, holding
from droveway.api.routes import ROUTES
from tests.api.world import World, in_world, make_image, make_server

GETS = [route for route in ROUTES if route.method == "GET"]
# They are known, so that they are refused with a reason of their own.
REFUSED = server_filters.UNBUILT | server_filters.INVALID
QUOTAS = "/compute/v2.1/os-quota-sets/{target}"
VALUES = {"server_id": "", "target": "", "host": "h1", "class": "default"}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """What each request is asked for, as it is asked."""
    found: list[frozenset[str]] = []
    known_query, given = Request.known_query, queries.given

    def of_request(self: Request, known: Collection[str], **more: Any) -> dict[str, str]:
        found.append(frozenset(known))
        return known_query(self, known, **more)

    def of_placement(request: Request, known: dict[str, int]) -> dict[str, list[str]]:
        found.append(frozenset(name for name, first in known.items() if first <= request.version))
        return given(request, known)

    monkeypatch.setattr(Request, "known_query", of_request)
    monkeypatch.setattr(queries, "given", of_placement)
    return found


def versions_of(route: Route) -> list[int]:
    """Where anything changes, and just before."""
    series = SERIES.get(service_of(route.path))
    if series is None:
        return [0]
    edges = {series.minimum, series.maximum, route.since, *(key.first for key in KEYS.get(route.path, ()))}
    edges |= {key.last + 1 for key in KEYS.get(route.path, ()) if key.last != FOREVER}
    near = {*edges, *(edge - 1 for edge in edges)}
    least, most = max(series.minimum, route.since), min(series.maximum, route.until)
    return sorted(one for one in near if least <= one <= most)


async def get(world: World, route: Route, token: str, version: int, values: dict[str, str]) -> None:
    path = re.sub(r"{(\w+)}", lambda found: values.get(found[1], "x"), route.path)
    major = {"compute": "2.", "volume": "3.", "placement": "1."}.get(service_of(route.path), "")
    headers = {"OpenStack-API-Version": f"{service_of(route.path)} {major}{version}"} if major else {}
    await world.ask("GET", path, token=token, headers=headers)


async def test_what_is_told_is_what_is_read(tmp_path: Path, read: list[frozenset[str]]) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server = await make_server(world, token, await make_image(world, token))
        shown = await world.ask("GET", "/identity/v3/auth/projects", token=token)
        values = VALUES | {"server_id": server, "target": shown.json()["projects"][0]["id"]}
        by_hand = set()
        for route in GETS:
            if route.path.endswith("/services/events"):  # it does not end
                continue
            for version in versions_of(route):
                read.clear()
                await get(world, route, token, version, values)
                told = {name.rstrip("*") for name in holding(route.path, version)}
                if not read and told:
                    by_hand.add(route.path)
                else:
                    known = frozenset().union(*read)
                    known -= REFUSED if "/servers" in route.path else {"user_id"} if QUOTAS in route.path else set()
                    assert told == known, (route.path, version)
        assert by_hand == set(BY_HAND)


# These look at the query themselves: each with where their keys stand.
BY_HAND = (
    "/identity/v3/auth/tokens",
    "/image/v2/images",
    "/compute/v2.1/os-hosts",
    "/compute/v2.1/images",
    "/compute/v2.1/images/detail",
    *(path for path in KEYS if path.startswith("/volume/v3")),
)


@pytest.mark.parametrize("path", BY_HAND)
def test_keys_that_are_read_by_hand_stand_in_the_handlers_service(path: str) -> None:
    (route,) = [one for one in GETS if one.path == path]
    home = Path(inspect.getfile(route.handler)).parent
    text = "".join(one.read_text() for one in (*home.glob("*.py"), home.parent / "http" / "paging.py"))
    for key in KEYS[path]:
        assert f'"{key.name.rstrip("*")}' in text, key.name


def test_every_path_of_the_table_is_one_and_every_key_is_in_the_document() -> None:
    paths = document(ROUTES)["paths"]
    assert KEYS.keys() <= {route.path for route in GETS}
    for path, keys in KEYS.items():
        told = paths[path]["get"]["parameters"]
        assert [one["name"] for one in told] == [key.name.rstrip("*").rstrip("-") or "property" for key in keys]
        assert {one["in"] for one in told} == {"query"}
    by_name = {one["name"]: one for one in paths["/compute/v2.1/os-server-groups"]["get"]["parameters"]}
    assert by_name["marker"]["x-openstack"] == {"max-ver": "2.74"} and "x-openstack" not in by_name["limit"]
    (since,) = paths["/compute/v2.1/os-hypervisors/{hypervisor}"]["get"]["parameters"]
    assert since["x-openstack"] == {"min-ver": "2.53"}
    asked_for = sum(len(one["get"].get("parameters", ())) for one in paths.values() if "get" in one)
    assert asked_for == sum(map(len, KEYS.values()))


def test_a_key_holds_within_its_microversions() -> None:
    path = "/compute/v2.1/os-server-groups"
    assert (Key("marker", 0, 74) in KEYS[path], "marker" in holding(path, 75), "offset" in holding(path, 75)) == (
        True,
        False,
        True,
    )
    assert holding("/no/such/path", 1) == frozenset()
