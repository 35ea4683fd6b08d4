"""Listings of Networking: filters, fields, order, pages and their links, tags; and what is asked about the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import insert

from droveway.store.schema import services
from tests.api.network_world import NET, change, get, make, make_subnet, networked, refused, send
from tests.api.world import World


async def names(world: World, token: str, query: str) -> list[str]:
    return [one["name"] for one in await get(world, token, query)]


async def five(world: World, token: str) -> list[dict[str, Any]]:
    return [
        await make(world, token, "networks", name=name, description=name[0]) for name in ("a1", "b1", "a2", "b2", "c")
    ]


async def test_filters_fields_and_order(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        made = await five(world, alice)
        await change(world, alice, f"networks/{made[4]['id']}", admin_state_up=False)
        for query, found in (
            ("networks", ["a1", "b1", "a2", "b2", "c"]),
            ("networks?name=b1&name=c", ["b1", "c"]),
            (f"networks?id={made[0]['id']}&id={made[3]['id']}", ["a1", "b2"]),
            ("networks?admin_state_up=False", ["c"]),
            ("networks?admin_state_up=true&description=b", ["b1", "b2"]),
            ("networks?shared=True", []),
            ("networks?revision_number=2", ["c"]),
            (f"networks?tenant_id={made[0]['project_id']}&name=c", ["c"]),
            ("networks?sort_key=name&sort_dir=desc", ["c", "b2", "b1", "a2", "a1"]),
            ("networks?sort_key=description&sort_dir=desc&sort_key=name&sort_dir=asc", ["c", "b1", "b2", "a1", "a2"]),
        ):
            assert await names(world, alice, query) == found, query
        assert (await get(world, alice, "networks?name=c&fields=id&fields=name"))[0] == {
            "id": made[4]["id"],
            "name": "c",
        }


@pytest.mark.parametrize(
    "query",
    [
        "colour=red",
        "sort_key=colour",
        "sort_key=name&sort_dir=up",
        "sort_key=name&sort_dir=asc&sort_dir=desc",
        "sort_dir=asc",
        "limit=-1",
        "limit=x",
        "marker=nothing",
        "admin_state_up=perhaps",
        "mtu=x",
        "&".join(["sort_key=name"] * 9),
    ],
)
async def test_what_is_no_question(tmp_path: Path, query: str) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        assert (await refused(world, alice, "GET", f"networks?{query}"))[0] in (400, 404)


async def test_pages_and_their_links(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        await five(world, alice)

        async def page(path: str) -> tuple[list[str], dict[str, str]]:
            body = (await send(world, alice, "GET", path)).json()
            links = {one["rel"]: one["href"] for one in body.get("networks_links", [])}
            return [one["name"] for one in body["networks"]], links

        def path_of(href: str) -> str:
            parts = urlsplit(href)
            return f"{parts.path.removeprefix(NET + '/')}?{parts.query}"

        seen, links = await page("networks?limit=2&sort_key=name")
        assert (seen, set(links)) == (["a1", "a2"], {"next"})
        second, links = await page(path_of(links["next"]))
        assert (second, set(links)) == (["b1", "b2"], {"next", "previous"})
        last, more = await page(path_of(links["next"]))
        assert (last, set(more)) == (["c"], {"previous"})
        back, _ = await page(path_of(links["previous"]))
        assert back == ["a1", "a2"]
    async with networked(tmp_path / "small", page_max=3) as world:
        alice = await world.token("alice", "red")
        await five(world, alice)
        whole, links = await page("networks")
        assert (whole, set(links)) == (["a1", "b1", "a2"], {"next"})
        assert (await page(path_of(links["next"])))[0] == ["b2", "c"]


async def test_ports_by_address_and_group(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = (await make(world, alice, "networks"))["id"]
        subnet = (await make_subnet(world, alice, network, "10.0.0.0/24"))["id"]
        group = (await make(world, alice, "security-groups", name="g"))["id"]
        for name, groups in (("p1", [group]), ("p2", [])):
            await make(world, alice, "ports", network_id=network, name=name, security_groups=groups)
        for query, found in (
            ("fixed_ips=ip_address=10.0.0.4", ["p2"]),
            (f"fixed_ips=subnet_id={subnet}&name=p1", ["p1"]),
            ("fixed_ips=ip_address_substr=0.0.3", ["p1"]),
            (f"fixed_ips=subnet_id={network}", []),
            (f"security_groups={group}", ["p1"]),
            ("device_owner=", ["p1", "p2"]),
            ("device_owner=network:dhcp", [""]),
            ("status=DOWN&name=p2", ["p2"]),
        ):
            assert await names(world, alice, f"ports?{query}") == found, query
        assert (await refused(world, alice, "GET", "ports?fixed_ips=10.0.0.4"))[0] == 400


async def test_tags(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        one, other, plain = [await make(world, alice, "networks", name=name) for name in ("one", "other", "plain")]
        path = f"networks/{one['id']}/tags"
        assert (await send(world, alice, "PUT", path, {"tags": ["red", "blue"]})).json() == {"tags": ["blue", "red"]}
        assert (await send(world, alice, "POST", path, {"tags": ["red", 'q"']})).json() == {
            "tags": ["blue", 'q"', "red"]
        }
        assert (await send(world, alice, "PUT", f"networks/{other['id']}/tags/red")).status_code == 201
        assert (await send(world, alice, "GET", f"{path}/blue")).status_code == 204
        assert (await refused(world, alice, "GET", f"{path}/green"))[:2] == (404, "TagNotFound")
        for query, found in (
            ("tags=red", ["one", "other"]),
            ("tags=red,blue", ["one"]),
            ("tags-any=blue,green", ["one"]),
            ("not-tags=red,blue", ["other", "plain"]),
            ("not-tags-any=red,blue", ["plain"]),
            ("tags=re", []),
            ("tags=q%22", ["one"]),
            ("tags=_ed", []),
        ):
            assert await names(world, alice, f"networks?{query}") == found, query
        assert (await refused(world, bob, "GET", path))[0] == 404
        assert (await send(world, alice, "DELETE", f"{path}/blue")).status_code == 204
        assert (await refused(world, alice, "DELETE", f"{path}/blue"))[1] == "TagNotFound"
        assert (await send(world, alice, "DELETE", path)).status_code == 204
        assert (await get(world, alice, path)) == []
        for wrong in ({"tags": ["a,b"]}, {"tags": "a"}, {"tags": [""]}, {"tags": [f"t{n}" for n in range(51)]}):
            assert (await refused(world, alice, "PUT", path, wrong))[0] == 400
        for resource in ("subnets", "ports", "routers", "floatingips", "security-groups"):
            assert (await refused(world, alice, "GET", f"{resource}/{plain['id']}/tags"))[0] == 404


async def test_what_the_service_says_of_itself(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, admin = await world.token("alice", "red"), await world.token()
        aliases = {one["alias"] for one in await get(world, alice, "extensions")}
        assert {"security-group", "router", "external-net", "standard-attr-tag"} <= aliases
        assert not {"trunk", "qos", "address-group", "dvr", "l3-ha"} & aliases
        assert (await get(world, alice, "extensions/router"))["name"] == "Neutron L3 Router"
        assert (await refused(world, alice, "GET", "extensions/qos"))[:2] == (404, "ExtensionNotFound")
        assert await get(world, admin, "agents") == []
        assert await get(world, alice, "availability_zones") == []
        assert await get(world, alice, "agents") == []
        assert (await refused(world, admin, "GET", "agents/x"))[:2] == (404, "AgentNotFound")
        resources = await world.http.get(NET)
        assert {"networks", "ports"} <= {one["collection"] for one in resources.json()["resources"]}


async def test_agents_are_the_services_that_bear_neutrons_name(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin = await world.token()
        agents = {"host": "h1", "binary": "neutron-linuxbridge-agent", "topic": "network", "zone": ""}
        row = {"id": 77, "uuid": world.api.names.uuid(), "created_at_us": world.clock.now_us(), **agents}
        await world.store.run(lambda tx: tx.execute(insert(services).values(row)) and None)
        (agent,) = await get(world, admin, "agents")
        assert (agent["host"], agent["binary"], agent["agent_type"]) == (
            "h1",
            "neutron-linuxbridge-agent",
            "Linux bridge agent",
        )
        assert (agent["alive"], agent["admin_state_up"], agent["availability_zone"]) == (False, True, "nova")
        assert await get(world, admin, f"agents/{agent['id']}") == agent
        assert [one["id"] for one in await get(world, admin, "agents?host=h1&alive=False")] == [agent["id"]]
        assert await get(world, admin, "agents?host=h2") == []
        assert await get(world, await world.token("alice", "red"), "agents") == []  # nobody else is shown one
        zones = await get(world, admin, "availability_zones")
        assert {(one["name"], one["resource"]) for one in zones} == {("nova", "network"), ("nova", "router")}


async def test_what_is_said_as_it_would_be_anyway_needs_no_administrator(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = await make(world, alice, "networks", name="n", shared=False, **{"router:external": False})
        pool = await make(world, alice, "subnetpools", name="p", prefixes=["10.0.0.0/16"], shared=False)
        assert (network["shared"], pool["shared"], pool["is_default"]) == (False, False, False)
        for path, single, said in (
            ("networks", "network", {"shared": True}),
            ("subnetpools", "subnetpool", {"prefixes": ["10.1.0.0/16"], "is_default": True}),
        ):
            assert (await refused(world, alice, "POST", path, {single: {"name": "no", **said}}))[0] == 403
        changed = {"network": {"shared": False}}  # what is there was decided
        assert (await refused(world, alice, "PUT", f"networks/{network['id']}", changed))[0] == 403


async def test_tags_are_told_in_their_order(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = await make(world, alice, "networks", name="n")
        await send(world, alice, "POST", f"networks/{network['id']}/tags", {"tags": ["red", "green"]})
        reply = await send(world, alice, "POST", f"networks/{network['id']}/tags", {"tags": ["blue", "red"]})
        assert reply.json() == {"tags": ["blue", "green", "red"]}


async def test_what_is_shared_is_not_tagged_by_others(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin, bob = await world.token(), await world.token("bob", "blue")
        shared = (await make(world, admin, "networks", shared=True))["id"]
        assert await get(world, bob, f"networks/{shared}/tags") == []
        assert (await refused(world, bob, "PUT", f"networks/{shared}/tags/x"))[:2] == (403, "PolicyNotAuthorized")
