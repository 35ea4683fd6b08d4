"""Logging in and out, and every way in which that must fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import select

from droveway.api.identity import passwords
from droveway.api.wiring import hash_token
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.identity import tokens as token_rows
from droveway.store.identity.tables import tokens
from tests.api.world import BASE, PASSWORD, V3, World, in_world, login, reason

TOKENS = f"{V3}/auth/tokens"


async def test_a_password_buys_a_scoped_token_with_a_catalog(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        reply = await world.http.post(TOKENS, json=login("admin", "admin"))
        assert reply.status_code == 201
        token = reply.json()["token"]
        assert set(token) == {
            "methods",
            "user",
            "audit_ids",
            "expires_at",
            "issued_at",
            "project",
            "is_domain",
            "roles",
            "catalog",
        }
        assert token["user"]["name"] == "admin"
        assert token["user"]["domain"] == {"id": "default", "name": "Default"}
        assert token["project"]["name"] == "admin"
        assert {role["name"] for role in token["roles"]} == {"admin", "manager", "member", "reader"}
        assert {service["type"] for service in token["catalog"]} == {
            "identity",
            "compute",
            "image",
            "block-storage",
            "volumev3",
            "placement",
        }
        urls = {e["url"] for s in token["catalog"] if s["type"] == "compute" for e in s["endpoints"]}
        assert urls == {f"{BASE}/compute/v2.1"}
        assert token["expires_at"].endswith("Z")
        assert "." in token["expires_at"]
        assert reply.headers["x-openstack-request-id"].startswith("req-")


async def test_scopes_by_id_by_default_and_none(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        projects = (await world.ask("GET", f"{V3}/projects?name=admin", token=token)).json()["projects"]
        body = login("admin", "admin")
        body["auth"]["scope"] = {"project": {"id": projects[0]["id"]}}
        assert (await world.http.post(TOKENS, json=body)).json()["token"]["project"]["name"] == "admin"
        del body["auth"]["scope"]
        assert (await world.http.post(TOKENS, json=body)).json()["token"]["project"]["name"] == "admin"  # the default
        unscoped = (await world.http.post(TOKENS, json=login("admin", None))).json()["token"]
        assert not {"project", "roles", "catalog"} & set(unscoped)


async def test_a_token_buys_another_that_ends_no_later(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        first = await world.token("alice", None)
        auth: dict[str, Any] = {"identity": {"methods": ["token"], "token": {"id": first}}}
        auth["scope"] = {"project": {"name": "red", "domain": {"id": "default"}}}
        reply = await world.http.post(TOKENS, json={"auth": auth})
        assert reply.status_code == 201
        headers = {"X-Subject-Token": first}
        shown = await world.ask("GET", TOKENS, token=reply.headers["x-subject-token"], headers=headers)
        assert reply.json()["token"]["expires_at"] == shown.json()["token"]["expires_at"]
        mine = await world.ask("GET", f"{V3}/auth/projects", token=first)
        assert [project["name"] for project in mine.json()["projects"]] == ["red"]


WRONG: list[dict[str, Any]] = [
    login("admin", "admin", "wrong"),
    login("nobody", "admin"),
    login("admin", "nowhere"),
    login("alice", "blue"),  # there is such a project, and she has no role there
    {"auth": {"identity": {"methods": ["totp"]}}},
    {"auth": {"identity": {"methods": ["token"], "token": {"id": "forged"}}}},
    {"auth": {**login("alice", None)["auth"], "scope": {"system": {"all": True}}}},
]


@pytest.mark.parametrize("body", WRONG)
async def test_a_wrong_login_is_401_and_leaves_no_token(tmp_path: Path, body: dict[str, Any]) -> None:
    async with in_world(tmp_path) as world:
        reply = await world.http.post(TOKENS, json=body)
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == 401
        assert reason(reply).endswith(".")
        assert "x-subject-token" not in reply.headers


async def test_wrong_password_and_unknown_user_read_the_same(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        one = await world.http.post(TOKENS, json=login("admin", "admin", "wrong"))
        two = await world.http.post(TOKENS, json=login("nobody", "admin", "wrong"))
        assert one.json() == two.json()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"auth": []},
        {"auth": {"identity": {}}},
        {"auth": {"identity": {"methods": "password"}}},
        {"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "admin", "password": "x"}}}}},
        {"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": 7, "password": "x"}}}}},
    ],
)
async def test_a_malformed_login_is_400(tmp_path: Path, body: dict[str, Any]) -> None:
    async with in_world(tmp_path) as world:
        reply = await world.http.post(TOKENS, json=body)
        assert reply.status_code == 400, reply.text
        assert reason(reply)


async def test_expired_forged_and_missing_tokens_are_401(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        path = f"{V3}/projects"
        assert (await world.ask("GET", path, token=token)).status_code == 200
        for other in (token[:-1] + ("A" if token[-1] != "A" else "B"), "x" * 5000, "\x7f"):
            reply = await world.ask("GET", path, token=other)
            assert reply.status_code == 401
            assert "www-authenticate" in reply.headers
        assert (await world.http.get(path)).status_code == 401
        world.clock.ahead_us = 24 * 3600 * 1_000_000 + 1
        reply = await world.ask("GET", path, token=token)
        assert reply.status_code == 401
        assert "expired" in reason(reply)


async def test_a_revoked_token_ends_at_once_and_no_other(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        one, two = await world.token(), await world.token()
        for token in (one, two):  # both are in the cache now
            assert (await world.ask("GET", f"{V3}/users", token=token)).status_code == 200
        reply = await world.ask("DELETE", TOKENS, token=two, headers={"X-Subject-Token": one})
        assert reply.status_code == 204
        assert reply.content == b""
        assert (await world.ask("GET", f"{V3}/users", token=one)).status_code == 401
        assert (await world.ask("GET", f"{V3}/users", token=two)).status_code == 200
        gone = await world.ask("GET", TOKENS, token=two, headers={"X-Subject-Token": one})
        assert gone.status_code == 404


async def test_a_new_password_and_a_disabled_user_end_tokens_at_once(tmp_path: Path) -> None:
    async def _hash(world: World) -> str:
        user = await world.store.read(accounts.find_user, name="admin")
        assert user is not None
        return str(user["password_hash"])

    async with in_world(tmp_path) as world:
        for change in ("password", "disabled"):
            token = await world.token("alice", "red")
            shown = await world.ask("GET", TOKENS, token=token, headers={"X-Subject-Token": token})
            user_id = shown.json()["token"]["user"]["id"]
            if change == "password":
                await world.store.run(accounts.set_password, user_id, (await _hash(world)))
            else:
                await world.store.run(accounts.update_user, user_id, {"enabled": False})
            reply = await world.ask("GET", f"{V3}/auth/projects", token=token)
            assert reply.status_code == 401
        assert (await world.http.post(TOKENS, json=login("alice", "red"))).status_code == 401


async def test_who_may_look_at_whose_token(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        assert (await world.ask("GET", TOKENS, token=alice, headers={"X-Subject-Token": alice})).status_code == 200
        assert (await world.ask("GET", TOKENS, token=admin, headers={"X-Subject-Token": alice})).status_code == 200
        assert (await world.ask("GET", TOKENS, token=alice, headers={"X-Subject-Token": bob})).status_code == 403
        assert (await world.ask("DELETE", TOKENS, token=alice, headers={"X-Subject-Token": bob})).status_code == 403
        head = await world.ask("HEAD", TOKENS, token=admin, headers={"X-Subject-Token": bob})
        assert head.status_code == 200
        assert head.content == b""
        assert (await world.ask("GET", TOKENS, token=alice)).status_code == 400


async def test_tokens_are_stored_only_as_hashes_and_cleared_when_expired(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        found = await world.store.read(token_rows.find_token, hash_token(token))
        assert found is not None
        assert await world.store.read(token_rows.find_token, token) is None
        world.clock.ahead_us = 25 * 3600 * 1_000_000
        await world.token()
        world.clock.ahead_us = 0
        assert await world.store.read(token_rows.find_token, hash_token(token)) is None


async def test_a_user_holds_a_bounded_number_of_tokens_and_the_oldest_go(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        bobs, first = await world.token("bob", "blue"), await world.token("alice", "red")
        user_id = (await _shown(world, first))["user"]["id"]
        assert (await world.ask("GET", f"{V3}/auth/projects", token=first)).status_code == 200  # it is in the cache

        def issue(tx: Tx) -> None:
            for number in range(token_rows.TOKENS_PER_USER_MAX - 1):
                token_rows.issue_token(
                    tx,
                    token_hash=f"{number}",
                    audit_id="a",
                    user_id=user_id,
                    project_id=None,
                    methods=["token"],
                    expires_at_us=2**62,
                )

        await world.store.run(issue)
        assert (await world.ask("GET", f"{V3}/auth/projects", token=first)).status_code == 200
        newest = await world.token("alice", "red")
        assert (await world.ask("GET", f"{V3}/auth/projects", token=first)).status_code == 401
        for token in (bobs, newest):
            assert (await world.ask("GET", f"{V3}/auth/projects", token=token)).status_code == 200
        held = await world.store.read(lambda tx: tx.execute(select(tokens).where(tokens.c.user_id == user_id)).all())
        assert len(held) == token_rows.TOKENS_PER_USER_MAX


async def _shown(world: World, token: str) -> dict[str, Any]:
    reply = await world.ask("GET", TOKENS, token=token, headers={"X-Subject-Token": token})
    return dict(reply.json()["token"])


async def test_identity_is_readable_by_its_own_and_by_admins(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        for collection, count in (("domains", 1), ("projects", 3), ("users", 4), ("roles", 5), ("role_assignments", 5)):
            reply = await world.ask("GET", f"{V3}/{collection}", token=admin)
            assert reply.status_code == 200
            assert len(reply.json()[collection]) == count
            assert (await world.ask("GET", f"{V3}/{collection}", token=alice)).status_code == 403
        users = (await world.ask("GET", f"{V3}/users?name=alice", token=admin)).json()["users"]
        assert [user["name"] for user in users] == ["alice"]
        assert (await world.ask("GET", f"{V3}/users/{users[0]['id']}", token=alice)).status_code == 200
        bob = (await world.ask("GET", f"{V3}/users?name=bob", token=admin)).json()["users"][0]
        assert (await world.ask("GET", f"{V3}/users/{bob['id']}", token=alice)).status_code == 403
        assert (await world.ask("GET", f"{V3}/users/nobody", token=admin)).status_code == 404
        named = (await world.ask("GET", f"{V3}/role_assignments?include_names=True", token=admin)).json()
        on_projects = [a for a in named["role_assignments"] if "project" in a["scope"]]
        who = {(a["user"]["name"], a["role"]["name"], a["scope"]["project"]["name"]) for a in on_projects}
        assert ("rita", "reader", "red") in who


async def test_seeding_twice_changes_nothing(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        assert not await world.store.run(accounts.seed, "another hash")
        assert await world.token("admin", "admin", PASSWORD)


def test_passwords_are_verified_and_nobodys_fits_none() -> None:
    hashed = passwords.hash_password("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=20480,t=2,p=1$")
    assert passwords.verify(hashed, "correct horse")
    assert not passwords.verify(hashed, "correct horse ")
    assert not passwords.verify("not a hash", "correct horse")
    with pytest.raises(VerifyMismatchError):  # it is a real hash, so that checking it takes as long as any
        PasswordHasher().verify(passwords.HASH_OF_NO_USER, "")
