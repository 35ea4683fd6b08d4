"""What identity must refuse: who may not, the last administrator's end, tokens that have ended, and wrong logins."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from structlog.testing import capture_logs

from droveway.api.http.router import Route
from droveway.api.identity import passwords
from droveway.api.identity.attempts import AttemptBounds, Attempts
from droveway.api.routes import ROUTES
from droveway.api.wiring import IdentitySettings
from droveway.domain.faults import TooMany
from droveway.domain.policy import OF_ONESELF, REQUIREMENTS, Need, refusal
from droveway.store.engine.transaction import Tx
from droveway.store.identity import tokens as token_rows
from droveway.store.identity.tables import tokens
from tests.api.identity_world import People, among_people, of_project
from tests.api.world import NOVA, PASSWORD, V3, World, in_world, login

EVERYWHERE = (f"{NOVA}/servers", "/image/v2/images", "/volume/v3/volumes", f"{V3}/auth/projects", "/network/v2.0/ports")
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
IDENTITY_NEEDS = frozenset(need for need in REQUIREMENTS if need.value.startswith("identity"))


def _path(route: Route) -> str:
    return re.sub(r"{(\w+)}", "x", route.path)


async def _codes(world: World, token: str, routes: list[Route]) -> set[tuple[int, str]]:
    """What each answers at the last microversion that it has."""
    found = set()
    for route in routes:
        minor = min(route.until, 100)
        headers = {"OpenStack-API-Version": f"compute 2.{max(minor, 1)}"} if "/compute/" in route.path else {}
        if "/volume/" in route.path:
            headers = {"OpenStack-API-Version": "volume 3.71"}
        if "/placement/" in route.path:
            headers = {"OpenStack-API-Version": "placement 1.39"}
        reply = await world.ask(route.method, _path(route), token=token, headers=headers, json={})
        found.add((reply.status_code, f"{route.method} {route.path}" if reply.status_code != 403 else ""))
    return found


async def test_a_member_at_every_route_of_an_administrator_and_a_reader_at_every_change(tmp_path: Path) -> None:
    """403 each, before anything of the request is looked at."""
    async with in_world(tmp_path) as world:
        on = [route for route in ROUTES if not route.path.startswith("/network/")]
        member = await world.token("alice", "red")
        admins = [route for route in on if route.need is Need.ADMIN or route.need in IDENTITY_NEEDS]
        assert len(admins) > 120
        assert await _codes(world, member, admins) == {(403, "")}
        reader = await world.token("rita", "red")
        changes = [route for route in on if route.need is Need.MEMBER and route.method in CHANGES]
        assert len(changes) > 15
        assert await _codes(world, reader, changes) == {(403, "")}
        unscoped = await world.token("alice", None)
        everything = [route for route in on if route.need not in {Need.PUBLIC, Need.TOKEN, *OF_ONESELF}]
        assert await _codes(world, unscoped, everything) == {(403, "")}


def test_who_may_what_is_one_table() -> None:
    """Each need has its line there, and is described."""
    assert REQUIREMENTS.keys() == set(Need) - {Need.PUBLIC, Need.TOKEN}

    class Bearer:
        user_id, role_names, domain_id, is_system = "u", frozenset({"reader"}), None, False
        project_id: str | None = "p"

    bearer = Bearer()
    assert refusal(Need.READER, bearer) is None
    assert refusal(Need.MEMBER, bearer) == "This needs the role member in the project of the token."
    assert refusal(Need.USER_READER, bearer, "u") is None
    assert refusal(Need.OWNER, bearer, "other") == "This is for that user alone."
    assert refusal(Need.IDENTITY_AUDITOR, bearer) == (
        "This needs the role admin on a project or a domain or the system or the role reader on the system, "
        "and a token for that."
    )


async def test_the_last_administrator_cannot_end_itself(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        me, project = await people.id_of("user", "admin"), await people.id_of("project", "admin")
        refused = "That is the last administrator; give the role admin to another user before."
        for method, path, body in (
            ("PATCH", f"/users/{me}", {"user": {"enabled": False}}),
            ("PATCH", f"/projects/{project}", {"project": {"enabled": False}}),
            ("DELETE", f"/projects/{project}/users/{me}/roles/{await people.id_of('role', 'admin')}", None),
        ):
            said = await people.ask(method, path, 409, **({"json": body} if body else {}))
            assert said["error"]["message"] == refused
        await people.ask("DELETE", f"/users/{me}", 409)
        await people.ask("PATCH", f"/users/{me}", 409, json={"user": {"password": "x"}})
        await people.ask("PATCH", f"/users/{me}", 409, json={"user": {"name": "x"}})
        eve, group = await people.user("eve"), await people.make("group", name="admins")
        await people.give(f"/projects/{project}/groups/{group}", "admin")
        await people.ask("PATCH", f"/users/{me}", 409, json={"user": {"enabled": False}})  # the group is empty
        await people.ask("PUT", f"/groups/{group}/users/{eve}", 204)
        await people.ask("PATCH", f"/users/{me}", 200, json={"user": {"enabled": False}})
        await people.ask("GET", "/users", 401)
        people.admin, _ = await people.log_in("eve", of_project(project))
        for method, path in (
            ("DELETE", f"/groups/{group}/users/{eve}"),
            ("DELETE", f"/groups/{group}"),
            ("DELETE", f"/users/{eve}"),
        ):
            assert (await people.ask(method, path, 409))["error"]["message"] == refused


@pytest.mark.parametrize("what", ["user", "project", "domain"])
async def test_a_token_of_what_is_disabled_is_refused_at_once_everywhere(tmp_path: Path, what: str) -> None:
    async with among_people(tmp_path) as people:
        corp = await people.make("domain", name="corp")
        project = await people.make("project", name="p", domain_id=corp)
        eve = await people.user("eve", project, domain_id=corp)
        token, _ = await people.log_in("eve", of_project(project), id=corp)
        assert await people.code(token, EVERYWHERE[0]) == 200  # it is remembered now
        which = {"user": eve, "project": project, "domain": corp}[what]
        await people.ask("PATCH", f"/{what}s/{which}", 200, json={what: {"enabled": False}})
        assert {await people.code(token, path) for path in EVERYWHERE[:4]} == {401}
        await people.log_in("eve", of_project(project), 401, id=corp)
        await people.ask("PATCH", f"/{what}s/{which}", 200, json={what: {"enabled": True}})
        assert await people.code(token, EVERYWHERE[0]) == 401
        await people.log_in("eve", of_project(project), id=corp)


@pytest.mark.parametrize("length", [73, passwords.PASSWORD_MAX])
async def test_every_character_of_a_long_password_counts(tmp_path: Path, length: int) -> None:
    async with among_people(tmp_path) as people:
        password = "ä" * (length - 1) + "x"
        await people.make("user", name="eve", password=password)
        await people.log_in("eve", None, password=password)
        for wrong in (password[:-1], password[:-1] + "y", password[:72], ""):
            await people.log_in("eve", None, 401, password=wrong)
        too_long = {"user": {"name": "x", "password": "x" * (passwords.PASSWORD_MAX + 1)}}
        refused = (await people.ask("POST", "/users", 400, json=too_long))["error"]["message"]
        assert "1 to 4096 are accepted" in refused
        await people.make("user", name="without")
        for none in ("", "x"):
            await people.log_in("without", None, 401, password=none)


async def test_ten_thousand_tokens_of_one_user_are_a_thousand(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        first, body = await people.log_in("alice", None)
        assert await people.code(first, f"{V3}/auth/projects") == 200

        def write(tx: Tx) -> None:
            row = {"audit_id": "a", "user_id": body["user"]["id"], "methods": ["token"], "is_system": False}
            row |= {"expires_at_us": 2**62}
            tx.execute(insert(tokens), [row | {"hash": f"{n}", "issued_at_us": tx.now_us + n} for n in range(10_000)])

        await people.world.store.run(write)
        newest, _ = await people.log_in("alice", None)
        assert await people.code(first, f"{V3}/auth/projects") == 401
        assert await people.code(newest, f"{V3}/auth/projects") == 200
        count = select(func.count()).select_from(tokens).where(tokens.c.user_id == body["user"]["id"])
        held = await people.world.store.read(lambda tx: tx.execute(count).scalar_one())
        assert held == token_rows.TOKENS_PER_USER_MAX


# -- wrong logins -----------------------------------------------------------------------------------------------------
async def test_wrong_logins_read_the_same_and_the_log_says_what_was_wrong(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        await people.ask("PATCH", f"/users/{await people.id_of('user', 'bob')}", 200, json={"user": {"enabled": False}})
        person = {"methods": ["password"], "password": {"user": {"id": "f" * 32, "password": "x"}}}
        with capture_logs() as logs:
            answers = [
                await people.log_in("alice", None, 401, password="wrong"),
                await people.log_in("nobody\nroot", None, 401, password="wrong"),
                await people.log_in("alice", None, 401, name="nowhere"),
                await people.log_in("bob", None, 401),
                await people.prove(person, None, 401),
            ]
        assert all(one == answers[0] for one in answers)
        lines = [one for one in logs if one["event"] == "login refused"]
        assert [one["because"] for one in lines] == [
            "the password is wrong",
            "there is no such user",
            "there is no such user",
            "the user is disabled",
            "there is no such user",
        ]
        assert {one["from"] for one in lines} == {"127.0.0.1"} and lines[1]["user"] == "nobody\nroot"


async def test_wrong_logins_are_bounded_a_user_and_an_address(tmp_path: Path) -> None:
    bounds = IdentitySettings(attempts=AttemptBounds(per_user=3, per_address=8, window_s=60))
    async with among_people(tmp_path, identity=bounds) as people:
        for name in ("alice", "nobody"):
            for _ in range(3):
                await people.log_in(name, None, 401, password="wrong")
            refused = await people.log_in(name, None, 429, password="wrong")
            assert refused["message"].startswith("There were too many wrong logins for this user; try again in ")
        await people.log_in("alice", None, 429)  # the right one is not told from a wrong one
        reply = await people.world.http.post(f"{V3}/auth/tokens", json=login("alice", "red"))
        assert (reply.status_code, 0 < int(reply.headers["retry-after"]) <= 60) == (429, True)
        await people.log_in("bob", None)
        for name in ("x", "y"):
            await people.log_in(name, None, 401)
        refused = await people.log_in("bob", None, 429)
        assert refused["message"].startswith("There were too many wrong logins from 127.0.0.1; try again in ")


async def test_many_right_logins_at_once_are_let_in_and_many_wrong_ones_are_not() -> None:
    attempts = Attempts(AttemptBounds(per_user=4, per_address=100, window_s=60))

    async def one(user: str, *, is_wrong: bool, at_s: float = 0.0) -> bool:
        try:
            attempt = await attempts.begin(user, "1.2.3.4", at_s)
        except TooMany:
            return False
        await asyncio.sleep(0)
        attempt.end(is_wrong=is_wrong)
        return True

    assert all(await asyncio.gather(*(one("right", is_wrong=False) for _ in range(40))))
    assert sum(await asyncio.gather(*(one("wrong", is_wrong=True) for _ in range(40)))) == 4
    assert not await one("wrong", is_wrong=False, at_s=59.0)
    assert await one("wrong", is_wrong=False, at_s=60.0)
    assert await one("other", is_wrong=False)


async def test_every_change_has_its_line(tmp_path: Path) -> None:
    """Who, what, from where, and what became of it; no secret in it."""
    async with among_people(tmp_path) as people:
        alice = await people.world.token("alice", "red")
        with capture_logs() as logs:
            eve = await people.user("eve")
            await people.ask("DELETE", f"/users/{eve}", 403, token=alice)
            await people.ask("GET", f"/users/{eve}", 200)
            await people.log_in("eve", None, 401, password="not that")
        made, refused, tried = [one for one in logs if one["event"] == "change"]
        users = "/identity/v3/users"
        assert (made["method"], made["path"], made["status"], made["by"]) == ("POST", users, 201, "admin")
        assert made["on"].startswith("project:") and made["user_id"] and made["from"] == "127.0.0.1"
        assert made["request_id"].startswith("req-") and made["log_level"] == "info"
        assert (refused["method"], refused["path"]) == ("DELETE", f"{users}/{eve}")
        assert (refused["status"], refused["by"]) == (403, "alice")
        assert (tried["path"], tried["status"], "by" in tried) == ("/identity/v3/auth/tokens", 401, False)
        for secret in (PASSWORD, "not that", people.admin, alice):
            assert secret not in repr(logs)


async def _told(people: People, token: str) -> dict[str, set[str]]:
    listed = (await people.ask("GET", "/auth/catalog", 200, token=token))["catalog"]
    return {one["type"]: {row["url"] for row in one["endpoints"]} for one in listed}


async def test_the_catalog_is_made_of_rows(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        own = await _told(people, people.admin)
        assert own.keys() == {"compute", "identity", "image", "placement", "block-storage", "volumev3"}
        await people.ask("POST", "/regions", 201, json={"region": {"id": "two", "parent_region_id": "RegionOne"}})
        await people.ask("PATCH", "/regions/RegionOne", 400, json={"region": {"parent_region_id": "two"}})
        await people.ask("PUT", "/regions/two", 409, json={"region": {}})
        service = await people.make("service", type="object-store", name="swift")
        body = {
            "service_id": service,
            "interface": "public",
            "region_id": "two",
            "url": "http://s/v1/AUTH_$(project_id)s",
        }
        endpoint = await people.make("endpoint", **body)
        project = await people.id_of("project", "admin")
        assert (await _told(people, people.admin))["object-store"] == {f"http://s/v1/AUTH_{project}"}
        system, _ = await people.log_in("admin", {"system": {"all": True}})
        assert (await _told(people, system))["object-store"] == set()
        await people.ask("DELETE", "/regions/two", 409)
        for wrong in ({"interface": "secret"}, {"service_id": "x"}, {"region_id": "x"}, {"url": "http://a b"}):
            await people.ask("POST", "/endpoints", 400, json={"endpoint": body | wrong})
        await people.ask("PATCH", f"/endpoints/{endpoint}", 200, json={"endpoint": {"enabled": False}})
        assert (await _told(people, people.admin))["object-store"] == set()
        rows = (await people.ask("GET", f"/endpoints?service_id={service}", 200))["endpoints"]
        assert [row["url"] for row in rows] == [body["url"]]
        await people.ask("DELETE", f"/services/{service}", 204)
        await people.ask("GET", f"/endpoints/{endpoint}", 404)
        await people.ask("DELETE", "/regions/two", 204)
        (volume,) = (await people.ask("GET", "/services?type=volumev3", 200))["services"]
        await people.ask("DELETE", f"/services/{volume['id']}", 409)
        await people.ask("PATCH", f"/services/{volume['id']}", 409, json={"service": {"type": "x"}})
        await people.ask("PATCH", f"/services/{volume['id']}", 200, json={"service": {"enabled": False}})
        assert (await _told(people, people.admin)).keys() == own.keys() - {"volumev3"}
