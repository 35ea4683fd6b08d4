"""Roles that imply others, that are inherited, on the system and on domains; and what each opens."""

from __future__ import annotations

from pathlib import Path

from tests.api.identity_world import People, among_people, names, of_project
from tests.api.world import BASE, NOVA, V3


async def test_a_role_of_ones_own_implies_others_but_never_itself(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        member, reader = await people.id_of("role", "member"), await people.id_of("role", "reader")
        admin = await people.id_of("role", "admin")
        boss, clerk = await people.make("role", name="boss", description="b"), await people.make("role", name="clerk")
        red = await people.id_of("project", "red")
        await people.user("eve", red, "boss")
        token, body = await people.log_in("eve", of_project(red))
        assert names(body["roles"]) == {"boss"}
        assert await people.code(token, f"{NOVA}/servers") == 403
        await people.ask("PUT", f"/roles/{boss}/implies/{clerk}", 201)
        made = await people.ask("PUT", f"/roles/{clerk}/implies/{member}", 201)
        assert made["role_inference"]["implies"]["name"] == "member"
        assert await people.code(token, f"{NOVA}/servers") == 200  # by boss, clerk, member, reader
        for prior, implied in ((clerk, boss), (member, boss), (reader, boss), (boss, boss)):
            refused = await people.ask("PUT", f"/roles/{prior}/implies/{implied}", 403)
            assert "would imply itself" in refused["error"]["message"]
        await people.ask("PUT", f"/roles/{boss}/implies/{admin}", 403)
        await people.ask("DELETE", f"/roles/{admin}/implies/{await people.id_of('role', 'manager')}", 403)
        await people.ask("HEAD", f"/roles/{boss}/implies/{clerk}", 200)
        await people.ask("HEAD", f"/roles/{boss}/implies/{member}", 404)
        implied = (await people.ask("GET", f"/roles/{boss}/implies", 200))["role_inference"]
        assert names(implied["implies"]) == {"clerk"}
        inferences = (await people.ask("GET", "/role_inferences", 200))["role_inferences"]
        assert {one["prior_role"]["name"] for one in inferences} == {"admin", "manager", "member", "boss", "clerk"}
        await people.ask("DELETE", f"/roles/{clerk}/implies/{member}", 204)
        assert await people.code(token, f"{NOVA}/servers") == 403
        await people.ask("PATCH", f"/roles/{boss}", 200, json={"role": {"name": "chief"}})
        await people.ask("POST", "/roles", 409, json={"role": {"name": "chief"}})
        await people.ask("POST", "/roles", 400, json={"role": {"name": "x", "domain_id": "default"}})
        for method, more in (("PATCH", {"json": {"role": {"name": "x"}}}), ("DELETE", {})):
            await people.ask(method, f"/roles/{admin}", 403, **more)
        await people.ask("DELETE", f"/roles/{boss}", 204)
        assert await people.code(token, f"{NOVA}/servers") == 401


async def test_an_inherited_role_is_held_below_and_not_there(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        top = await people.make("project", name="top")
        low = await people.make("project", name="low", parent_id=top)
        eve, end = await people.user("eve"), "/inherited_to_projects"
        group = await people.make("group", name="g")
        await people.ask("PUT", f"/groups/{group}/users/{eve}", 204)
        await people.give(f"/OS-INHERIT/projects/{top}/users/{eve}", "member", end)
        await people.log_in("eve", of_project(top), 401)
        token, body = await people.log_in("eve", of_project(low))
        assert names(body["roles"]) == {"member", "reader"}
        mine = (await people.ask("GET", "/auth/projects", 200, token=token))["projects"]
        assert [row["name"] for row in mine] == ["low"]
        (one,) = (await people.ask("GET", f"/role_assignments?user.id={eve}&include_names", 200))["role_assignments"]
        assert one["scope"]["OS-INHERIT:inherited_to"] == "projects"
        assert one["links"]["assignment"].startswith(f"{BASE}{V3}/OS-INHERIT/projects/{top}/users/{eve}/roles/")
        effective = (await people.ask("GET", f"/role_assignments?user.id={eve}&effective", 200))["role_assignments"]
        assert [row["scope"] for row in effective] == [of_project(low)] * 2
        held = await people.ask("GET", f"/OS-INHERIT/projects/{top}/users/{eve}/roles{end}", 200)
        assert names(held["roles"]) == {"member"}
        assert (await people.ask("GET", f"/projects/{top}/users/{eve}/roles", 200))["roles"] == []
        await people.take(f"/OS-INHERIT/projects/{top}/users/{eve}", "member", end)
        assert await people.code(token, f"{NOVA}/servers") == 401
        await people.give(f"/OS-INHERIT/domains/default/groups/{group}", "reader", end)
        for project in (top, low, await people.make("project", name="newer")):
            _, body = await people.log_in("eve", of_project(project))
            assert names(body["roles"]) == {"reader"}
        await people.log_in("eve", {"domain": {"id": "default"}}, 401)
        effective = (await people.ask("GET", f"/role_assignments?user.id={eve}&effective", 200))["role_assignments"]
        assert {row["links"]["membership"] for row in effective} == {f"{BASE}{V3}/groups/{group}/users/{eve}"}
        assert len(effective) == len((await people.ask("GET", "/projects", 200))["projects"])
        await people.ask("GET", f"/role_assignments?group.id={group}&effective", 400)
        (one,) = (await people.ask("GET", f"/role_assignments?group.id={group}", 200))["role_assignments"]
        assert one["group"] == {"id": group}


async def test_a_reader_on_the_system_looks_into_identity_and_changes_nothing(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        system, eve = {"system": {"all": True}}, await people.user("eve")
        await people.log_in("eve", system, 401)
        await people.give(f"/system/users/{eve}", "reader")
        token, body = await people.log_in("eve", system)
        assert (body["system"], names(body["roles"]), "project" in body) == ({"all": True}, {"reader"}, False)
        assert (await people.ask("GET", "/auth/system", 200, token=token))["system"] == [{"all": True}]
        for path in ("users", "projects", "domains", "groups", "roles", "role_assignments", "services", "endpoints"):
            await people.ask("GET", f"/{path}", 200, token=token)
        for path in ("users", "projects", "domains", "groups", "roles", "services"):
            await people.ask("POST", f"/{path}", 403, token=token, json={path[:-1]: {"name": "x"}})
        assert await people.code(token, f"{NOVA}/servers") == 403
        await people.take(f"/system/users/{eve}", "reader")
        await people.ask("GET", "/users", 401, token=token)
        token, _ = await people.log_in("admin", system)
        await people.make("project", name="by-system")
        await people.ask("POST", "/roles", 201, token=token, json={"role": {"name": "x"}})


async def test_a_manager_of_a_domain_reaches_that_domain_alone(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        corp = await people.make("domain", name="corp")
        mary = await people.user("mary", domain_id=corp)
        await people.give(f"/domains/{corp}/users/{mary}", "manager")
        token, _ = await people.log_in("mary", {"domain": {"id": corp}}, id=corp)
        project = await _made(people, token, "project", name="lab")
        user = await _made(people, token, "user", name="worker")
        group = await _made(people, token, "group", name="team")
        for row, kind in ((project, "project"), (user, "user"), (group, "group")):
            assert (await people.ask("GET", f"/{kind}s/{row}", 200))[kind]["domain_id"] == corp
        member, admin = await people.id_of("role", "member"), await people.id_of("role", "admin")
        await people.ask("PUT", f"/projects/{project}/users/{user}/roles/{member}", 204, token=token)
        await people.ask("PUT", f"/groups/{group}/users/{user}", 204, token=token)
        await people.ask("PUT", f"/projects/{project}/users/{user}/roles/{admin}", 403, token=token)
        await people.ask("PUT", f"/domains/{corp}/users/{mary}/roles/{admin}", 403, token=token)
        await people.ask("PUT", f"/system/users/{mary}/roles/{member}", 403, token=token)
        boss = await people.make("group", name="bosses", domain_id=corp)
        await people.give(f"/projects/{project}/groups/{boss}", "admin")
        await people.ask("PUT", f"/groups/{boss}/users/{mary}", 403, token=token)  # it would make her an administrator
        mallory = await people.id_of("user", "bob")
        red = await people.id_of("project", "red")
        for method, path, body in (
            ("PATCH", f"/users/{mallory}", {"user": {"email": "x"}}),
            ("DELETE", f"/users/{mallory}", None),
            ("GET", f"/users/{mallory}", None),
            ("PATCH", f"/projects/{red}", {"project": {"description": "x"}}),
            ("DELETE", f"/projects/{red}", None),
            ("GET", f"/projects/{red}", None),
            ("PUT", f"/projects/{red}/users/{user}/roles/{member}", None),
            ("PUT", f"/projects/{project}/users/{mallory}/roles/{member}", None),
            ("PUT", f"/groups/{group}/users/{mallory}", None),
            ("POST", "/users", {"user": {"name": "x", "domain_id": "default"}}),
            ("POST", "/projects", {"project": {"name": "x", "domain_id": "default"}}),
            ("POST", "/projects", {"project": {"name": "x", "parent_id": red}}),
            ("POST", "/domains", {"domain": {"name": "x"}}),
            ("POST", "/roles", {"role": {"name": "x"}}),
            ("GET", "/domains/default", None),
        ):
            await people.ask(method, path, 403, token=token, **({"json": body} if body else {}))
        users = (await people.ask("GET", "/users", 200, token=token))["users"]
        assert {row["name"] for row in users} == {"mary", "worker"}
        assert (await people.ask("GET", "/users?domain_id=default", 200, token=token))["users"] == []
        assert [row["name"] for row in (await people.ask("GET", "/domains", 200, token=token))["domains"]] == ["corp"]
        assert len((await people.ask("GET", "/role_assignments", 200, token=token))["role_assignments"]) == 3
        await people.ask("DELETE", f"/users/{user}", 204, token=token)


async def _made(people: People, token: str, kind: str, **given: str) -> str:
    made = await people.ask("POST", f"/{kind}s", 201, token=token, json={kind: given})
    return str(made[kind]["id"])


async def test_everybody_sees_the_own_assignments_and_managers_those_of_their_project(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        red, alice = await people.id_of("project", "red"), await people.id_of("user", "alice")
        token, _ = await people.log_in("alice", of_project(red))
        await people.ask("GET", f"/role_assignments?user.id={alice}", 200, token=token)
        await people.ask("GET", "/role_assignments", 403, token=token)
        await people.ask("GET", f"/role_assignments?scope.project.id={red}", 403, token=token)
        await people.give(f"/projects/{red}/users/{alice}", "manager")
        found = await people.ask("GET", f"/role_assignments?scope.project.id={red}", 200, token=token)
        assert len(found["role_assignments"]) == 3
        await people.ask("GET", "/role_assignments?user.id=x&group.id=y", 400)
        await people.ask("GET", "/role_assignments?scope.system=all&scope.domain.id=default", 400)
