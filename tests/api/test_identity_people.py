"""Domains, projects, users and groups are made, changed and removed; what still holds something is not."""

from __future__ import annotations

from pathlib import Path

from droveway.api.wiring import IdentitySettings
from tests.api.identity_world import People, among_people, names, of_project
from tests.api.world import BASE, NOVA, PASSWORD, V3, booted, make_image, make_server


async def test_a_domain_with_its_people_from_beginning_to_end(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        made = (await people.ask("POST", "/domains", 201, json={"domain": {"name": "corp", "description": None}}))[
            "domain"
        ]
        corp = made["id"]
        assert made == {
            "id": corp,
            "name": "corp",
            "description": "",
            "enabled": True,
            "tags": [],
            "options": {},
            "links": {"self": f"{BASE}{V3}/domains/{corp}"},
        }
        await people.ask("POST", "/domains", 409, json={"domain": {"name": "corp"}})
        project = await people.make("project", name="red", domain_id=corp)  # the default domain has one of that name
        user = await people.user("alice", project, domain_id=corp)
        token, _ = await people.log_in("alice", of_project(project), id=corp)
        assert await people.code(token, f"{NOVA}/servers") == 200
        await people.ask("DELETE", f"/domains/{corp}", 403)  # it is enabled
        await people.ask("PATCH", f"/domains/{corp}", 200, json={"domain": {"enabled": False}})
        for path in (f"{NOVA}/servers", "/image/v2/images", f"{V3}/auth/projects", "/volume/v3/volumes"):
            assert await people.code(token, path) == 401
        await people.log_in("alice", None, 401, id=corp)
        await people.ask("PATCH", f"/domains/{corp}", 200, json={"domain": {"enabled": True, "name": "corp2"}})
        assert await people.code(token, f"{NOVA}/servers") == 401  # it has ended for good
        await people.log_in("alice", of_project(project), name="corp2")
        await people.ask("PATCH", f"/domains/{corp}", 200, json={"domain": {"enabled": False}})
        await people.ask("DELETE", f"/domains/{corp}", 204)
        for path in (f"/domains/{corp}", f"/projects/{project}", f"/users/{user}"):
            await people.ask("GET", path, 404)
        await people.ask("PATCH", "/domains/default", 409, json={"domain": {"enabled": False}})  # who would be left?
        await people.ask("DELETE", "/domains/default", 403)


async def test_projects_stand_in_one_another(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        top = await people.make("project", name="top", tags=["a", "b"])
        middle = await people.make("project", name="middle", parent_id=top)
        low = await people.make("project", name="low", parent_id=middle, description="deep", enabled=True)
        shown = (await people.ask("GET", f"/projects/{low}?parents_as_ids&subtree_as_list", 200))["project"]
        assert shown["parents"] == {middle: {top: {"default": None}}}
        assert (shown["parent_id"], shown["subtree"], shown["is_domain"]) == (middle, [], False)
        shown = (await people.ask("GET", f"/projects/{top}?subtree_as_ids&parents_as_list", 200))["project"]
        assert (shown["subtree"], shown["parents"], shown["parent_id"]) == ({middle: {low: None}}, [], "default")
        (inside,) = (await people.ask("GET", f"/projects?parent_id={top}", 200))["projects"]
        assert inside["id"] == middle
        assert len((await people.ask("GET", "/projects?tags=a,b", 200))["projects"]) == 1
        await people.ask("DELETE", f"/projects/{top}", 403)  # another stands in it
        await people.ask("PATCH", f"/projects/{top}", 403, json={"project": {"enabled": False}})
        await people.ask("PATCH", f"/projects/{low}", 200, json={"project": {"enabled": False}})
        await people.ask("PATCH", f"/projects/{low}", 400, json={"project": {"parent_id": top}})
        await people.ask("PATCH", f"/projects/{middle}", 200, json={"project": {"enabled": False}})
        await people.ask("PATCH", f"/projects/{low}", 403, json={"project": {"enabled": True}})
        await people.ask("POST", "/projects", 403, json={"project": {"name": "x", "parent_id": middle}})
        await people.ask("POST", "/projects", 409, json={"project": {"name": "top"}})
        await people.ask("POST", "/projects", 404, json={"project": {"name": "x", "parent_id": "nowhere"}})
        await people.ask("POST", "/projects", 400, json={"project": {"name": "x\ny"}})
        await people.ask("POST", "/projects", 400, json={"project": {"name": "x", "is_domain": True}})
        deep = top
        for number in range(4):
            deep = await people.make("project", name=f"d{number}", parent_id=deep)
        await people.ask("POST", "/projects", 403, json={"project": {"name": "d4", "parent_id": deep}})
        await people.ask("PUT", f"/projects/{top}/tags/c", 201)
        await people.ask("PUT", f"/projects/{top}/tags/c", 201)
        assert (await people.ask("GET", f"/projects/{top}/tags", 200))["tags"] == ["a", "b", "c"]
        await people.ask("GET", f"/projects/{top}/tags/c", 204)
        await people.ask("DELETE", f"/projects/{top}/tags/a", 204)
        await people.ask("DELETE", f"/projects/{top}/tags/a", 404)
        await people.ask("PUT", f"/projects/{top}/tags", 200, json={"tags": ["z"]})
        await people.ask("DELETE", f"/projects/{top}/tags", 204)
        for project in (low, middle):
            await people.ask("DELETE", f"/projects/{project}", 204)


async def test_a_project_with_servers_in_it_is_not_deleted(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        world, red = people.world, await people.id_of("project", "red")
        alice = await world.token("alice", "red")
        image = await make_image(world, alice)
        server = await make_server(world, alice, image)
        await booted(world, server)
        refused = (await people.ask("DELETE", f"/projects/{red}", 409))["error"]["message"]
        assert refused == "The project red still has 1 servers, 1 images: delete them first, or disable it instead."
        assert await people.code(alice, f"{NOVA}/servers/{server}") == 200
        await people.ask("PATCH", f"/projects/{red}", 200, json={"project": {"enabled": False}})
        assert await people.code(alice, f"{NOVA}/servers/{server}") == 401
        await people.ask("DELETE", f"/projects/{await people.id_of('project', 'blue')}", 204)
        await people.ask("DELETE", f"/projects/{await people.id_of('project', 'admin')}", 409)


async def test_users_and_their_groups(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        project = await people.make("project", name="green")
        more = {"email": "eve@example.org", "description": "tester", "default_project_id": project}
        eve = await people.user("eve", **more, options={"lock_password": False})
        shown = (await people.ask("GET", f"/users/{eve}", 200))["user"]
        assert {name: shown[name] for name in more} == more
        assert (shown["password_expires_at"], shown["options"], "password" in str(shown["links"])) == (
            None,
            {"lock_password": False},
            False,
        )
        await people.ask("POST", "/users", 409, json={"user": {"name": "eve"}})
        await people.ask("POST", "/users", 404, json={"user": {"name": "x", "domain_id": "nowhere"}})
        await people.ask("POST", "/users", 404, json={"user": {"name": "x", "default_project_id": "nowhere"}})
        await people.ask("POST", "/users", 400, json={"user": {"name": "x", "options": {"multi_factor": True}}})
        group = await people.make("group", name="testers", description="who test")
        await people.give(f"/projects/{project}/groups/{group}", "member")
        token, body = await people.log_in("eve", None)
        assert "project" not in body
        await people.ask("HEAD", f"/groups/{group}/users/{eve}", 404)
        await people.ask("PUT", f"/groups/{group}/users/{eve}", 204)
        await people.ask("HEAD", f"/groups/{group}/users/{eve}", 204)
        token, body = await people.log_in("eve", None)  # the default project opens now
        assert (body["project"]["id"], names(body["roles"])) == (project, {"member", "reader"})
        mine = (await people.ask("GET", "/auth/projects", 200, token=token))["projects"]
        assert [row["id"] for row in mine] == [project]
        (one,) = (await people.ask("GET", f"/users/{eve}/groups", 200, token=token))["groups"]
        assert one["name"] == "testers"
        (one,) = (await people.ask("GET", f"/groups/{group}/users", 200))["users"]
        assert one["id"] == eve
        await people.ask("DELETE", f"/groups/{group}/users/{eve}", 204)
        assert await people.code(token, f"{NOVA}/servers") == 401
        await people.ask("DELETE", f"/groups/{group}/users/{eve}", 404)
        await people.ask("PUT", f"/groups/{group}/users/{eve}", 204)
        await people.ask("PATCH", f"/groups/{group}", 200, json={"group": {"name": "qa"}})
        token, _ = await people.log_in("eve", None)
        await people.ask("DELETE", f"/groups/{group}", 204)
        assert await people.code(token, f"{NOVA}/servers") == 401
        await people.ask("PATCH", f"/users/{eve}", 200, json={"user": {"name": "eva", "email": None}})
        assert "email" not in (await people.ask("GET", f"/users/{eve}", 200))["user"]
        await people.log_in("eva", None)
        await people.ask("DELETE", f"/users/{eve}", 204)
        await people.log_in("eva", None, 401)


async def test_passwords_are_changed_by_those_who_know_them_and_expire(tmp_path: Path) -> None:

    async with among_people(tmp_path, identity=IdentitySettings(password_expiry_days=30)) as people:
        eve = await people.user("eve", options={"ignore_password_expiry": True})
        assert (await people.ask("GET", f"/users/{eve}", 200))["user"]["password_expires_at"] is None
        await people.ask("PATCH", f"/users/{eve}", 200, json={"user": {"options": {"ignore_password_expiry": None}}})
        token, _ = await people.log_in("eve", None)
        await _change(people, eve, PASSWORD, PASSWORD, 400)
        await _change(people, eve, "wrong", "new one", 401)
        await _change(people, eve, PASSWORD, "new one", 204)
        assert await people.code(token, f"{V3}/auth/projects") == 401
        await people.log_in("eve", None, 401)
        _, body = await people.log_in("eve", None, password="new one")
        assert body["user"]["password_expires_at"].endswith("Z")
        people.world.clock.ahead_us += 31 * 24 * 3600 * 1_000_000
        expired = await people.log_in("eve", None, 401, password="new one")
        assert expired["message"].startswith(f"The password is expired and needs to be changed for user: {eve}.")
        await people.log_in("eve", None, 401, password="wrong")
        await _change(people, eve, "new one", "newer one", 204)
        await people.log_in("eve", None, password="newer one")
        people.admin = await people.world.token()
        await people.ask("PATCH", f"/users/{eve}", 200, json={"user": {"options": {"lock_password": True}}})
        await _change(people, eve, "newer one", "newest one", 403)


async def _change(people: People, user_id: str, old: str, new: str, status: int) -> None:
    body = {"user": {"original_password": old, "password": new}}
    reply = await people.world.http.post(f"{V3}/users/{user_id}/password", json=body)
    assert reply.status_code == status, reply.text
