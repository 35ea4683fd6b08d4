"""Users are made and given passwords by an administrator, and by nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.world import NOVA, V3, in_world, login, sentence

USERS = "/droveway/v1/users"


async def test_a_member_is_made_with_a_project_and_a_password_that_is_shown_once(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        wanted = {"user": {"name": "ada lovelace", "project": "engines"}}
        made = await world.ask("POST", USERS, token=admin, json=wanted)
        assert made.status_code == 201, made.text
        body = made.json()["user"]
        assert {**body, "id": "", "password": ""} == {
            "id": "",
            "name": "ada lovelace",
            "project": "engines",
            "role": "member",
            "password": "",
        }
        adas = await world.token("ada lovelace", "engines", body["password"])
        assert (await world.ask("GET", f"{NOVA}/servers", token=adas)).json() == {"servers": []}
        assert (await world.ask("GET", f"{NOVA}/os-services", token=adas)).status_code == 403
        unscoped = login("ada lovelace", None, body["password"])
        del unscoped["auth"]["scope"]
        found = (await world.http.post(f"{V3}/auth/tokens", json=unscoped)).json()["token"]
        assert found["project"]["name"] == "engines"
        again = await world.ask("POST", USERS, token=admin, json=wanted)
        assert again.status_code == 409
        assert sentence(again) == "There is a user ada lovelace already."
        reader = {"user": {"name": "rita2", "project": "engines", "role": "reader", "password": "hers"}}
        made = await world.ask("POST", USERS, token=admin, json=reader)
        assert "password" not in made.json()["user"]
        assert await world.token("rita2", "engines", "hers")


async def test_another_password_ends_what_the_old_one_had_begun(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alices = await world.token(), await world.token("alice", "red")
        reply = await world.ask("PATCH", USERS, token=admin, json={"user": {"name": "alice"}})
        assert reply.status_code == 200
        assert (await world.ask("GET", f"{V3}/auth/projects", token=alices)).status_code == 401
        assert (await world.http.post(f"{V3}/auth/tokens", json=login("alice", "red"))).status_code == 401
        assert await world.token("alice", "red", reply.json()["user"]["password"])
        chosen = {"user": {"name": "alice", "password": "chosen"}}
        assert "password" not in (await world.ask("PATCH", USERS, token=admin, json=chosen)).json()["user"]
        assert await world.token("alice", "red", "chosen")


@pytest.mark.parametrize(
    ("method", "user", "code"),
    [
        ("POST", {"name": "new"}, 400),
        ("POST", {"name": "", "project": "red"}, 400),
        ("POST", {"name": "new", "project": "x" * 65}, 400),
        ("POST", {"name": "new", "project": "red", "role": "king"}, 400),
        ("POST", {"name": "new", "project": "red", "role": ["member"]}, 400),
        ("POST", {"name": "new", "project": "red", "password": ""}, 400),
        ("POST", {"name": "new", "project": "red", "colour": "blue"}, 400),
        ("PATCH", {"name": "nobody"}, 404),
        ("PATCH", {"name": "admin"}, 409),
        ("PATCH", {"name": "alice", "project": "red"}, 400),
        ("PATCH", [], 400),
    ],
)
async def test_what_is_refused(tmp_path: Path, method: str, user: Any, code: int) -> None:
    async with in_world(tmp_path) as world:
        reply = await world.ask(method, USERS, token=await world.token(), json={"user": user})
        assert reply.status_code == code, reply.text
        assert sentence(reply).endswith(".")
        assert (await world.http.post(f"{V3}/auth/tokens", json=login("new", None))).status_code == 401
        assert await world.token("alice", "red")


async def test_a_member_may_make_nobody(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alices = await world.token("alice", "red")
        for method in ("POST", "PATCH"):
            body = {"user": {"name": "new", "project": "red"}}
            assert (await world.ask(method, USERS, token=alices, json=body)).status_code == 403
