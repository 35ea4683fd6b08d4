"""Services ask whose a signature is: what the right one opens, what ends it, and how every wrong one reads."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from keystoneclient.contrib.ec2.utils import Ec2Signer
from sqlalchemy import select
from structlog.testing import capture_logs

from droveway.api.identity import attempts
from droveway.api.identity.attempts import AttemptBounds
from droveway.api.identity.credentials import id_of_access
from droveway.api.wiring import IdentitySettings
from droveway.store.identity import keys
from droveway.store.identity.tables import tokens
from tests.api.identity_world import People, among_people, names, of_project
from tests.api.world import BASE, NOVA

Key = dict[str, Any]


async def _key(people: People, user: str = "alice", project: str = "red") -> Key:
    token, _ = await people.log_in(user, of_project(await people.id_of("project", project)))
    user_id, project_id = await people.id_of("user", user), await people.id_of("project", project)
    path = f"/users/{user_id}/credentials/OS-EC2"
    made: Key = (await people.ask("POST", path, 201, token=token, json={"tenant_id": project_id}))["credential"]
    return made


def _now(form: str = "%Y-%m-%dT%H:%M:%SZ", ahead_s: float = 0.0) -> str:
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + ahead_s, UTC).strftime(form)


def version_2(key: Key, ahead_s: float = 0.0) -> dict[str, Any]:
    params = {"Action": "Describe", "SignatureVersion": "2", "Timestamp": _now(ahead_s=ahead_s)}
    asked = {"host": "cloud:8773", "verb": "GET", "path": "/", "params": params}
    signature = Ec2Signer(key["secret"]).generate(copy.deepcopy(asked))
    return {"access": key["access"], "signature": signature, **asked}


def version_4(key: Key, ahead_s: float = 0.0) -> dict[str, Any]:
    when = _now("%Y%m%dT%H%M%SZ", ahead_s)
    said = f"Credential={key['access']}/{when[:8]}/here/ec2/aws4_request,SignedHeaders=host;x-amz-date,Signature=later"
    headers = {"Host": "cloud:8773", "X-Amz-Date": when, "Authorization": f"AWS4-HMAC-SHA256 {said}"}
    asked = {"host": "cloud:8773", "verb": "POST", "path": "/", "params": {}, "headers": headers}
    asked["body_hash"] = hashlib.sha256(b"Action=Describe").hexdigest()
    return {"access": key["access"], "signature": Ec2Signer(key["secret"]).generate(asked), **asked}


def of_s3(key: Key) -> dict[str, Any]:
    text = f"AWS4-HMAC-SHA256\n20261201T000000Z\n20261201/here/s3/aws4_request\n{hashlib.sha256().hexdigest()}"
    signing = f"AWS4{key['secret']}".encode()
    for part in ("20261201", "here", "s3", "aws4_request"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, text.encode(), "sha256").hex()
    return {"access": key["access"], "signature": signature, "token": base64.urlsafe_b64encode(text.encode()).decode()}


async def _service(people: People) -> str:
    """The token of somebody with the role service and no other."""
    project_id = await people.make("project", name="services")
    await people.user("swift", project_id, "service")
    token, _ = await people.log_in("swift", of_project(project_id))
    return str(token)


async def _bought(people: People, service: str, signed: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    reply = await people.world.ask("POST", "/identity/v3/ec2tokens", token=service, json={"credentials": signed})
    assert reply.status_code == 200, reply.text
    return reply.headers["x-subject-token"], reply.json()["token"]


async def test_a_signature_buys_a_token_for_the_project_of_its_key(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        service, key = await _service(people), await _key(people)
        for signed in (version_2(key), version_4(key)):
            token, body = await _bought(people, service, signed)
            assert (body["user"]["name"], body["project"]["name"], body["methods"]) == (
                "alice",
                "red",
                ["ec2credential"],
            )
            assert names(body["roles"]) == {"member", "reader"} and body["catalog"]
            assert await people.code(token, f"{NOVA}/servers") == 200
        port_left_out = {**version_2(key), "host": "cloud"}
        port_left_out["signature"] = Ec2Signer(key["secret"]).generate(copy.deepcopy(port_left_out))
        await _bought(people, service, {**port_left_out, "host": "cloud:8773"})
        for name in ("credential", "ec2Credentials"):
            await people.ask("POST", "/ec2tokens", 200, token=service, json={name: version_2(key)})


async def test_it_opens_no_more_than_the_key(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        service, key = await _service(people), await _key(people)
        alice, red = await people.id_of("user", "alice"), await people.id_of("project", "red")
        token, _ = await _bought(people, service, version_4(key))
        await people.ask("POST", f"/users/{alice}/credentials/OS-EC2", 403, token=token, json={"tenant_id": red})
        again, _ = await people.prove({"methods": ["token"], "token": {"id": token}}, of_project(red))
        await people.ask("POST", f"/users/{alice}/credentials/OS-EC2", 403, token=again, json={"tenant_id": red})
        await people.prove({"methods": ["token"], "token": {"id": token}}, "unscoped", 401)
        await people.ask("DELETE", f"/users/{alice}/credentials/OS-EC2/{key['access']}", 204)
        for ended in (token, again):
            assert await people.code(ended, f"{NOVA}/servers") == 401
        await people.ask("POST", "/ec2tokens", 401, token=service, json={"credentials": version_4(key)})


async def test_s3_is_told_whose_it_is_and_given_nothing_that_opens(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        service, key = await _service(people), await _key(people)
        reply = await people.world.ask("POST", "/identity/v3/s3tokens", token=service, json={"credentials": of_s3(key)})
        assert reply.status_code == 200 and "x-subject-token" not in reply.headers
        assert reply.json()["token"]["project"]["name"] == "red"
        assert len(await _tokens_of(people, "alice")) == 1  # of the login that made the key
        for bad in ({"token": "not base64!"}, {"token": ""}, {"signature": ""}):
            await people.ask("POST", "/s3tokens", 401, token=service, json={"credentials": {**of_s3(key), **bad}})


async def _tokens_of(people: People, user: str) -> list[Any]:
    user_id = await people.id_of("user", user)
    query = select(tokens.c.hash).where(tokens.c.user_id == user_id)
    return await people.world.store.read(lambda tx: list(tx.execute(query)))


async def test_who_may_ask(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        key = await _key(people)
        alice, _ = await people.log_in("alice", of_project(await people.id_of("project", "red")))
        for path in ("ec2tokens", "s3tokens"):
            await people.ask("POST", f"/{path}", 403, token=alice, json={"credentials": version_2(key)})
            nobody = await people.world.http.post(f"/identity/v3/{path}", json={"credentials": version_2(key)})
            assert nobody.status_code == 401


async def test_every_wrong_one_reads_the_same_and_the_log_says_what_was_wrong(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        service, key, bobs = await _service(people), await _key(people), await _key(people, "bob", "blue")
        good = version_2(key)
        await people.ask("PATCH", f"/users/{await people.id_of('user', 'bob')}", 200, json={"user": {"enabled": False}})
        old = {**version_2(key), "params": {**good["params"], "SignatureVersion": "1"}}
        wrong = {
            "there is no such key": {**good, "access": "0" * 32},
            "the signature is wrong": {**good, "signature": "x"},
            "how it is signed": {"access": key["access"], "signature": "x"},
            "version 1": old,
            "too long ago": version_2(key, -3600),
            "a time to come": version_4(key, 3600),
            "disabled": version_2(bobs),
        }
        answers = []
        for reason, signed in wrong.items():
            with capture_logs() as logs:
                answers.append(await people.ask("POST", "/ec2tokens", 401, token=service, json={"credentials": signed}))
            (line,) = [one for one in logs if one["event"] == "login refused"]
            assert reason in line["because"], (reason, line)
            assert key["secret"] not in repr(logs)
        answers.append(await people.ask("POST", "/ec2tokens", 401, token=service, json={}))
        assert all(one == answers[0] for one in answers)


async def test_one_that_was_overheard_is_not_good_for_longer_with_another_time_beside_its_own(tmp_path: Path) -> None:
    """Parameters of a POST are no part of what version 4 signs."""
    async with among_people(tmp_path) as people:
        service, key = await _service(people), await _key(people)
        old = {**version_4(key, -3600), "params": {"Timestamp": _now()}}
        await people.ask("POST", "/ec2tokens", 401, token=service, json={"credentials": old})
        new = {**version_4(key), "params": {"Timestamp": _now(ahead_s=-3600)}}
        await people.ask("POST", "/ec2tokens", 200, token=service, json={"credentials": new})


async def test_a_secret_of_nothing_signs_nothing(tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        service, key = await _service(people), await _key(people)
        user_id, project_id = await people.id_of("user", "alice"), await people.id_of("project", "red")
        blob = json.dumps({"access": key["access"], "secret": ""})
        body = {"type": "ec2", "blob": blob, "user_id": user_id, "project_id": project_id}
        await people.ask("POST", "/credentials", 400, json={"credential": body})
        await people.world.store.run(keys.update_credential, id_of_access(key["access"]), {"blob": blob})  # of before
        signed = version_2({**key, "secret": ""})
        await people.ask("POST", "/ec2tokens", 401, token=service, json={"credentials": signed})


async def test_who_signs_wrongly_elsewhere_locks_nobody_out(tmp_path: Path) -> None:
    bounds = IdentitySettings(attempts=AttemptBounds(per_user=3, per_address=5, window_s=60))
    async with among_people(tmp_path, identity=bounds) as people:
        service, key = await _service(people), await _key(people)
        bad = {**version_2(key), "signature": "x"}
        there = httpx.ASGITransport(app=people.world.app, client=("192.0.2.66", 4000))
        async with httpx.AsyncClient(transport=there, base_url=BASE) as elsewhere:
            sent: Any = {"headers": {"X-Auth-Token": service}, "json": {"credentials": bad}}
            codes = [(await elsewhere.post("/identity/v3/ec2tokens", **sent)).status_code for _ in range(4)]
        assert codes == [401, 401, 401, 429]
        await people.ask("POST", "/ec2tokens", 200, token=service, json={"credentials": version_2(key)})


async def test_wrong_ones_are_bounded_a_key_and_bodies_in_size(tmp_path: Path) -> None:
    bounds = IdentitySettings(attempts=AttemptBounds(per_user=3, per_address=5, window_s=60))
    async with among_people(tmp_path, identity=bounds) as people:
        service, key, bobs = await _service(people), await _key(people), await _key(people, "bob", "blue")
        for _ in range(3):
            bad = {**version_2(key), "signature": "x"}
            await people.ask("POST", "/ec2tokens", 401, token=service, json={"credentials": bad})
        await people.ask("POST", "/ec2tokens", 429, token=service, json={"credentials": version_2(key)})
        for _ in range(3):  # the service asks for many keys from one address
            await people.ask("POST", "/ec2tokens", 200, token=service, json={"credentials": version_2(bobs)})
        for big in (
            {"params": {str(number): "" for number in range(300)}},
            {"headers": {"a": "x" * 20_000}},
            {"path": 5},
            {"params": []},
        ):
            await people.ask("POST", "/ec2tokens", 400, token=service, json={"credentials": {**version_2(bobs), **big}})
        await people.log_in("alice", None)  # logins of people are counted apart


async def test_signatures_of_made_up_keys_do_not_let_wrong_passwords_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts are kept of so many keys alone: those of people's logins are others."""
    monkeypatch.setattr(attempts, "KEYS_MAX", 5)
    bounds = IdentitySettings(attempts=AttemptBounds(per_user=2, per_address=50, window_s=60))
    async with among_people(tmp_path, identity=bounds) as people:
        service = await _service(people)
        for _ in range(2):
            await people.log_in("alice", None, 401, password="wrong")
        for number in range(5):
            bad = {"access": str(number), "signature": "x"}
            await people.ask("POST", "/ec2tokens", 401, token=service, json={"credentials": bad})
        await people.log_in("alice", None, 429)
