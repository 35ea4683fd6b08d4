"""Application credentials and keys of other kinds: what they open, and what ends with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.api.identity_world import People, among_people, names, of_project
from tests.api.world import NOVA


def by_key(key: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {"id": key["id"], "secret": key["secret"], **more}
    return {"methods": ["application_credential"], "application_credential": given}


async def _key(people: People, token: str, user_id: str, status: int = 201, **given: Any) -> Any:
    body = {"application_credential": {"name": "ci", **given}}
    made = await people.ask("POST", f"/users/{user_id}/application_credentials", status, token=token, json=body)
    return made["application_credential"] if status == 201 else made["error"]["message"]


async def test_an_application_credential_from_beginning_to_end(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        red, alice = await people.id_of("project", "red"), await people.id_of("user", "alice")
        token, _ = await people.log_in("alice", of_project(red))
        key = await _key(people, token, alice, roles=[{"name": "reader"}], description="for the builds")
        assert (key["project_id"], names(key["roles"]), key["unrestricted"]) == (red, {"reader"}, False)
        assert len(key["secret"]) >= 43
        bought, body = await people.prove(by_key(key), None)
        assert (body["project"]["id"], names(body["roles"]), body["methods"]) == (
            red,
            {"reader"},
            ["application_credential"],
        )
        assert body["application_credential"] == {"id": key["id"], "name": "ci", "restricted": True}
        assert await people.code(bought, f"{NOVA}/servers") == 200
        assert await people.code(bought, f"{NOVA}/os-keypairs") == 200
        named = {"name": "ci", "secret": key["secret"], "user": {"name": "alice", "domain": {"id": "default"}}}
        await people.prove({"methods": ["application_credential"], "application_credential": named}, None)
        blue = await people.id_of("project", "blue")
        await people.prove(by_key(key), of_project(blue), 401)
        await people.prove({"methods": ["token"], "token": {"id": bought}}, of_project(blue), 401)
        again, body = await people.prove({"methods": ["token"], "token": {"id": bought}}, of_project(red))
        assert names(body["roles"]) == {"reader"}  # a token of a token is no more
        await people.prove({"methods": ["token"], "token": {"id": bought}}, "unscoped", 401)
        shown = await people.ask("GET", f"/users/{alice}/application_credentials/{key['id']}", 200, token=token)
        assert "secret" not in shown["application_credential"]
        await _key(people, token, alice, 409)
        (one,) = (await people.ask("GET", f"/users/{alice}/application_credentials?name=ci", 200, token=token))[
            "application_credentials"
        ]
        assert one["id"] == key["id"]
        await people.ask("DELETE", f"/users/{alice}/application_credentials/{key['id']}", 204, token=token)
        for ended in (bought, again):
            assert await people.code(ended, f"{NOVA}/servers") == 401
        await people.prove(by_key(key), None, 401)
        assert await people.code(token, f"{NOVA}/servers") == 200


async def test_a_restricted_one_makes_no_others_and_sets_no_password(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        admin = await people.id_of("user", "admin")
        key = await _key(people, people.admin, admin)
        bought, _ = await people.prove(by_key(key), None)
        refused = await _key(people, bought, admin, 403, name="other")
        assert refused == "The application credential ci is restricted: it makes no keys and sets no password."
        bob, project = await people.id_of("user", "bob"), await people.id_of("project", "admin")
        for method, path, body in (
            ("PATCH", f"/users/{bob}", {"user": {"password": "mine now"}}),
            ("POST", "/users", {"user": {"name": "x", "password": "y"}}),
            ("POST", f"/users/{admin}/credentials/OS-EC2", {"tenant_id": project}),
            ("POST", "/credentials", {"credential": {"type": "cert", "blob": "x"}}),
            ("DELETE", f"/users/{admin}/application_credentials/{key['id']}", None),
        ):
            await people.ask(method, path, 403, token=bought, **({"json": body} if body else {}))
        free = await _key(people, people.admin, admin, name="free", unrestricted=True)
        bought, body = await people.prove(by_key(free), None)
        assert body["application_credential"]["restricted"] is False
        await _key(people, bought, admin, name="third")


async def test_it_is_worth_nothing_once_a_role_of_it_was_taken(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        red, alice = await people.id_of("project", "red"), await people.id_of("user", "alice")
        await people.give(f"/projects/{red}/users/{alice}", "manager")
        token, _ = await people.log_in("alice", of_project(red))
        key = await _key(people, token, alice, roles=[{"name": "manager"}])
        lesser = await _key(people, token, alice, name="lesser", roles=[{"name": "reader"}])
        bought, _ = await people.prove(by_key(key), None)
        other, _ = await people.prove(by_key(lesser), None)
        await people.take(f"/projects/{red}/users/{alice}", "manager")
        assert await people.code(bought, f"{NOVA}/servers") == 401
        await people.prove(by_key(key), None, 401)
        assert await people.code(other, f"{NOVA}/servers") == 200  # of which nothing was taken
        await people.ask("PATCH", f"/users/{alice}", 200, json={"user": {"enabled": False}})
        assert await people.code(other, f"{NOVA}/servers") == 401
        await people.prove(by_key(lesser), None, 401)


async def test_one_that_is_wrong_is_refused(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        red, alice, bob = [await people.id_of(*one) for one in (("project", "red"), ("user", "alice"), ("user", "bob"))]
        token, _ = await people.log_in("alice", of_project(red))
        rules = await _key(people, token, alice, 400, access_rules=[{"path": "/v2.1/servers", "method": "GET"}])
        assert "access rules are not known here" in rules
        await _key(people, token, alice, 400, roles=[{"name": "admin"}])
        await _key(people, token, alice, 400, expires_at="2020-01-01T00:00:00Z")
        await _key(people, token, alice, 400, name="")
        await _key(people, token, bob, 403)
        await _key(people, people.admin, alice, 403)  # its owner alone
        await _key(people, (await people.log_in("alice", "unscoped"))[0], alice, 403)
        key = await _key(people, token, alice, secret="chosen", expires_at="2099-01-01T00:00:00")
        await people.prove(by_key(key), None)
        errors = [
            await people.prove(by_key(key | {"secret": "wrong"}), None, 401),
            await people.prove(by_key(key | {"id": "f" * 32}), None, 401),
            await people.log_in("alice", None, 401, password="wrong"),
        ]
        assert errors[0] == errors[1] == errors[2]
        people.world.clock.ahead_us += 80 * 365 * 24 * 3600 * 1_000_000
        await people.prove(by_key(key), None, 401)


async def test_keys_of_other_kinds_are_their_owners(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        red, alice = await people.id_of("project", "red"), await people.id_of("user", "alice")
        blue = await people.id_of("project", "blue")
        token, _ = await people.log_in("alice", of_project(red))
        bobs, _ = await people.log_in("bob", of_project(blue))
        path = f"/users/{alice}/credentials/OS-EC2"
        made = (await people.ask("POST", path, 201, token=token, json={"tenant_id": red}))["credential"]
        assert (made["user_id"], made["tenant_id"], made["trust_id"]) == (alice, red, None)
        await people.ask("POST", path, 403, token=token, json={"tenant_id": blue})
        await people.ask("POST", path, 403, token=bobs, json={"tenant_id": blue})
        shown = (await people.ask("GET", f"{path}/{made['access']}", 200, token=token))["credential"]
        assert shown == made
        (listed,) = (await people.ask("GET", path, 200, token=token))["credentials"]
        assert listed == made
        (one,) = (await people.ask("GET", "/credentials?type=ec2", 200, token=token))["credentials"]
        await people.ask("GET", f"/credentials/{one['id']}", 404, token=bobs)
        await people.ask("DELETE", f"/credentials/{one['id']}", 404, token=bobs)
        await people.ask("PATCH", f"/credentials/{one['id']}", 400, token=token, json={"credential": {"type": "cert"}})
        assert (await people.ask("GET", "/credentials", 200, token=bobs))["credentials"] == []
        await people.ask("GET", f"/credentials?user_id={alice}", 403, token=bobs)
        assert len((await people.ask("GET", f"/credentials?user_id={alice}", 200))["credentials"]) == 1
        await people.ask("DELETE", f"{path}/{made['access']}", 204, token=token)
        await people.ask("GET", f"{path}/{made['access']}", 404, token=token)
        wanted = {"credential": {"type": "cert", "blob": "PEM"}}
        cert = (await people.ask("POST", "/credentials", 201, token=token, json=wanted))["credential"]
        assert (cert["user_id"], cert["project_id"]) == (alice, None)
        change = {"credential": {"blob": "PEM2"}}
        changed = await people.ask("PATCH", f"/credentials/{cert['id']}", 200, token=token, json=change)
        assert changed["credential"]["blob"] == "PEM2"
        await people.ask("DELETE", f"/credentials/{cert['id']}", 204, token=token)
        bad = {"credential": {"type": "ec2", "blob": "{}", "project_id": red}}
        await people.ask("POST", "/credentials", 400, token=token, json=bad)
        await people.ask(
            "POST", "/credentials", 403, token=token, json={"credential": {**cert_of("bob"), "user_id": "b"}}
        )


def cert_of(name: str) -> dict[str, str]:
    return {"type": "cert", "blob": name}
