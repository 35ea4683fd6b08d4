"""Roles are given and taken away, on projects and on the domain, and every token follows at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.world import BASE, NOVA, V3, World, in_world, login, reason


async def ids(world: World, admin: str) -> dict[str, str]:
    """Of users, projects and roles, by name; `admin` is the role, `admin!` the user, `@admin` the project."""
    found = {}
    for kind, form in (("projects", "@{}"), ("users", "{}!"), ("roles", "{}")):
        for each in (await world.ask("GET", f"{V3}/{kind}", token=admin)).json()[kind]:
            found[form.format(each["name"])] = each["id"]
    return found


async def ask(world: World, token: str, method: str, place: str, user: str, role: str | None = None) -> httpx.Response:
    path = f"{V3}/{place}/users/{user}/roles" + (f"/{role}" if role is not None else "")
    return await world.ask(method, path, token=token)


async def code(world: World, token: str, path: str = f"{NOVA}/servers") -> int:
    return (await world.ask("GET", path, token=token)).status_code


async def test_a_role_given_on_a_project_opens_it_and_one_taken_away_closes_it(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        of = await ids(world, admin)
        red, bob, member = f"projects/{of['@red']}", of["bob!"], of["member"]
        assert (await ask(world, admin, "HEAD", red, bob, member)).status_code == 404
        assert (await world.http.post(f"{V3}/auth/tokens", json=login("bob", "red"))).status_code == 401
        for _ in range(2):  # a second time is harmless
            reply = await ask(world, admin, "PUT", red, bob, member)
            assert (reply.status_code, reply.content) == (204, b"")
        for method in ("HEAD", "GET"):
            assert (await ask(world, admin, method, red, bob, member)).status_code == 204
        held = (await ask(world, admin, "GET", red, bob)).json()
        assert [role["name"] for role in held["roles"]] == ["member"]
        bobs = await world.token("bob", "red")
        assert await code(world, bobs) == 200
        assert (await ask(world, admin, "DELETE", red, bob, member)).status_code == 204
        assert await code(world, bobs) == 401
        assert (await world.http.post(f"{V3}/auth/tokens", json=login("bob", "red"))).status_code == 401
        assert (await ask(world, admin, "DELETE", red, bob, member)).status_code == 404
        assert (await ask(world, admin, "PUT", red, bob, member)).status_code == 204
        assert await code(world, bobs) == 401  # it has ended for good
        assert await code(world, await world.token("bob", "blue")) == 200  # where nothing was changed


async def test_a_token_has_the_rights_of_its_roles_as_they_are_now(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alices = await world.token(), await world.token("alice", "red")
        of = await ids(world, admin)
        red, alice = f"projects/{of['@red']}", of["alice!"]
        assert await code(world, alices, f"{NOVA}/os-services") == 403
        assert (await ask(world, admin, "PUT", red, alice, of["admin"])).status_code == 204
        assert await code(world, alices, f"{NOVA}/os-services") == 200
        assert (await ask(world, alices, "DELETE", red, alice, of["admin"])).status_code == 204  # admin stays one
        assert await code(world, alices, f"{NOVA}/os-services") == 403
        assert await code(world, alices) == 200
        group = {"server_group": {"name": "g", "policies": ["affinity"]}}
        made = await world.ask("POST", f"{NOVA}/os-server-groups", token=alices, json=group)
        assert made.status_code == 200
        assert (await ask(world, admin, "PUT", red, alice, of["reader"])).status_code == 204
        assert (await ask(world, admin, "DELETE", red, alice, of["member"])).status_code == 204
        assert await code(world, alices) == 200
        made = await world.ask("POST", f"{NOVA}/os-server-groups", token=alices, json=group)
        assert made.status_code == 403


async def test_the_last_administrator_stays_one(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        of = await ids(world, admin)
        own, me, role = f"projects/{of['@admin']}", of["admin!"], of["admin"]
        reply = await ask(world, admin, "DELETE", own, me, role)
        assert reply.status_code == 409
        assert reason(reply) == "That is the last administrator; give the role admin to another user before."
        assert (await ask(world, admin, "HEAD", own, me, role)).status_code == 204
        assert (await ask(world, admin, "PUT", "domains/default", of["bob!"], role)).status_code == 204
        assert (await ask(world, admin, "DELETE", own, me, role)).status_code == 409  # who reads identity, and no more
        assert (await ask(world, admin, "PUT", f"projects/{of['@red']}", of["alice!"], role)).status_code == 204
        alices = await world.token("alice", "red")
        assert (await ask(world, admin, "DELETE", own, me, role)).status_code == 204
        assert await code(world, admin, f"{V3}/users") == 401
        assert (await ask(world, alices, "DELETE", f"projects/{of['@red']}", of["alice!"], role)).status_code == 409


async def test_a_role_on_the_domain_buys_a_token_for_it_and_nothing_else(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        of = await ids(world, admin)
        place, alice = "domains/default", of["alice!"]
        body = login("alice", None)
        scopes: tuple[dict[str, Any], ...] = ({"domain": {"id": "default"}}, {"domain": {"name": "Default"}})
        for scope in (*scopes, {"domain": {"id": "nowhere"}}):
            body["auth"]["scope"] = scope
            assert (await world.http.post(f"{V3}/auth/tokens", json=body)).status_code == 401
        assert (await ask(world, admin, "PUT", place, alice, of["admin"])).status_code == 204
        assert (await ask(world, admin, "HEAD", place, alice, of["admin"])).status_code == 204
        for scope in scopes:
            body["auth"]["scope"] = scope
            reply = await world.http.post(f"{V3}/auth/tokens", json=body)
            assert reply.status_code == 201, reply.text
            token = reply.json()["token"]
            assert token["domain"] == {"id": "default", "name": "Default"}
            assert not {"project", "is_domain"} & set(token)
            assert {role["name"] for role in token["roles"]} == {"admin", "manager", "member", "reader"}
            assert token["catalog"]
        alices = reply.headers["x-subject-token"]
        for path in ("/users", "/projects", "/roles", "/role_assignments", "/auth/catalog", "/domains/default"):
            assert await code(world, alices, V3 + path) == 200, path
        domains = (await world.ask("GET", f"{V3}/auth/domains", token=alices)).json()["domains"]
        assert [domain["name"] for domain in domains] == ["Default"]
        for path in (f"{NOVA}/servers", f"{NOVA}/os-services", "/droveway/v1/hosts", "/image/v2/images"):
            reply = await world.ask("GET", path, token=alices)
            assert reply.status_code == 403, path
        assert (await ask(world, alices, "PUT", f"projects/{of['@blue']}", alice, of["reader"])).status_code == 204
        assert (await ask(world, admin, "DELETE", place, alice, of["admin"])).status_code == 204
        assert await code(world, alices, f"{V3}/users") == 401
        assert await code(world, await world.token("alice", "red")) == 200


async def test_role_assignments_tell_both_with_filters_names_and_what_is_implied(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        of = await ids(world, admin)
        await ask(world, admin, "PUT", "domains/default", of["rita!"], of["manager"])

        async def found(query: str) -> list[dict[str, Any]]:
            reply = await world.ask("GET", f"{V3}/role_assignments?{query}", token=admin)
            assert reply.status_code == 200, reply.text
            return list(reply.json()["role_assignments"])

        assert len(await found("")) == 6
        (one,) = await found("scope.domain.id=default&include_names")
        assert one == {
            "role": {"id": of["manager"], "name": "manager"},
            "user": {"id": of["rita!"], "name": "rita", "domain": {"id": "default", "name": "Default"}},
            "scope": {"domain": {"id": "default", "name": "Default"}},
            "links": {"assignment": f"{BASE}{V3}/domains/default/users/{of['rita!']}/roles/{of['manager']}"},
        }
        assert len(await found(f"user.id={of['rita!']}")) == 2
        assert len(await found(f"user.id={of['rita!']}&scope.project.id={of['@red']}")) == 1
        assert {a["user"]["id"] for a in await found(f"role.id={of['member']}")} == {of["alice!"], of["bob!"]}
        for nobodys in ("group.id=x", "scope.OS-INHERIT:inherited_to=projects"):
            assert await found(nobodys) == []
        (of_system,) = await found("scope.system=all")
        assert (of_system["scope"], of_system["user"]["id"]) == ({"system": {"all": True}}, of["admin!"])
        effective = await found(f"user.id={of['alice!']}&effective=True&include_names=1")
        assert [a["role"]["name"] for a in effective] == ["member", "reader"]
        assert {a["links"]["assignment"].rpartition("/")[2] for a in effective} == {of["member"]}
        readers = await found(f"role.id={of['reader']}&effective")
        assert {a["user"]["id"] for a in readers} == {of["admin!"], of["alice!"], of["bob!"], of["rita!"]}


@pytest.mark.parametrize("missing", ["user", "project", "domain", "role"])
async def test_what_there_is_none_of_is_named(tmp_path: Path, missing: str) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        of = await ids(world, admin)
        user = "nobody" if missing == "user" else of["bob!"]
        role = "king" if missing == "role" else of["member"]
        kind = "domain" if missing == "domain" else "project"
        place = f"{kind}s/{'nowhere' if missing == kind else of['@red']}"
        for method in ("PUT", "GET"):
            reply = await ask(world, admin, method, place, user, role)
            assert reply.status_code == 404
            assert reason(reply).startswith(f"Could not find {missing}: ")
        assert (await ask(world, admin, "DELETE", place, user, role)).status_code == 404


async def test_only_administrators_give_roles_and_there_is_no_group_x(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alices = await world.token(), await world.token("alice", "red")
        of = await ids(world, admin)
        for place in (f"projects/{of['@red']}", "domains/default"):
            for method, role in (("PUT", of["admin"]), ("DELETE", of["member"]), ("GET", of["member"]), ("GET", None)):
                assert (await ask(world, alices, method, place, of["alice!"], role)).status_code == 403
            path = f"{V3}/{place}/groups/x/roles/{of['member']}"
            assert (await world.ask("PUT", path, token=admin)).status_code == 404
