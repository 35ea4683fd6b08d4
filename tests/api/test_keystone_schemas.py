"""Identity beside Keystone's own schemas: what it answers, what it takes, and what it refuses."""

from __future__ import annotations

import copy
import gzip
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.api.identity_world import People, among_people
from tests.api.world import V3

CALLS: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "keystone_schemas.json.gz").read_bytes())
)
MADE: dict[str, dict[str, Any]] = {  # by the collection: a body that is right, but for its name
    "domains": {"description": "d", "enabled": False},
    "projects": {"description": "p", "tags": ["a"]},
    "users": {"password": "a secret word", "email": "a@b.example", "description": "u"},
    "groups": {"description": "g"},
    "roles": {"description": "r"},
    "regions": {"description": "r"},
    "services": {"type": "t", "description": "s"},
    "endpoints": {"interface": "public", "url": "http://192.0.2.1/x"},
    "credentials": {"type": "cert", "blob": "b"},
    "users/{id}/application_credentials": {"description": "k"},
}
NAMELESS = {"regions", "credentials"}
VALUES: tuple[Any, ...] = (None, True, False, 0, 7, "", "x", "x" * 65, "x" * 256, [], ["a"], {}, {"a": "b"}, ["a", "a"])
# Where we differ: (collection, member), and why.
STRICTER = {
    ("domains", "explicit_domain_id"): "the id of a domain is made here",
    ("domains", "tags"): "domains have no tags",
    ("projects", "is_domain"): "a project is no domain",
    ("users", "federated"): "nobody is federated",
    ("roles", "domain_id"): "roles of one domain alone are not built",
    ("endpoints", "description"): "endpoints have none, and Keystone knows it only as one of the members that it keeps",
    ("endpoints", "id"): "the id is made here",
    ("endpoints", "region"): "one that is not there is refused behind the schema by Keystone, too",
    ("endpoints", "region_id"): "the same",
    ("endpoints", "service_id"): "the same",
    ("credentials", "id"): "the id is made here",
    ("users/{id}/application_credentials", "id"): "the id is made here",
    ("users/{id}/application_credentials", "system"): "they are good for a project",
    ("users/{id}/application_credentials", "expires_at"): "what is no time is refused behind the schema, too",
}
LAXER = {
    ("projects", "tags"): "a tag that stands there twice is one",
    ("projects", "is_domain"): "what says no is none",
    ("services", "name"): "an empty name is none",
}
UNSAID = (None, "", 0)  # is taken as what was not said, where Keystone refuses it
SHORT = "characters long"  # every text has a bound here, and what has to say something is not empty
NO_FLAG = "'' is not a boolean"  # Keystone takes it for one


def _is_known(collection: str, member: str, value: Any, message: str, *, is_right: bool) -> bool:
    if is_right:
        return SHORT in message or NO_FLAG in message or (collection, member) in STRICTER
    is_long = member == "description" and isinstance(value, str) and len(value) > 255
    return value in UNSAID or is_long or (collection, member) in LAXER


def _single(collection: str) -> str:
    return collection.rpartition("/")[2].removesuffix("s")


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with among_people(tmp_path) as found:
        yield found


async def _make(people: People, collection: str, numbers: Any, **more: Any) -> tuple[int, Any]:
    """The status and the answer of one that is made."""
    given = copy.deepcopy(MADE[collection])
    if collection not in NAMELESS:
        given["name"] = f"n{next(numbers)}"
    if collection == "endpoints":
        given["service_id"] = (await people.ask("GET", "/services", 200))["services"][0]["id"]
    if collection == "credentials":
        given |= {"user_id": await people.id_of("user", "alice"), "blob": f"b{next(numbers)}"}
    path = "/" + collection.replace("{id}", await people.id_of("user", "admin"))
    body = {_single(collection): {name: value for name, value in (given | more).items() if value is not LEFT_OUT}}
    reply = await people.world.ask("POST", V3 + path, token=people.admin, json=body)
    return reply.status_code, (reply.json(), body)


LEFT_OUT = object()


def _wrong(call: str, what: str, value: Any) -> list[str]:
    schema = CALLS[call][what]
    return [f"{call}: {'/'.join(map(str, one.path))}: {one.message[:200]}" for one in _errors(schema, value)]


def _errors(schema: Any, value: Any) -> list[Any]:
    return list(Draft202012Validator(schema).iter_errors(value))


@pytest.mark.parametrize("collection", MADE)
async def test_what_is_answered_is_as_keystone_says(people: People, collection: str) -> None:
    numbers = itertools.count()
    status, (made, _) = await _make(people, collection, numbers)
    assert status == 201, made
    wrong = _wrong(f"POST /{collection}", "response", made)
    path = "/" + collection.replace("{id}", await people.id_of("user", "admin"))
    wrong += _wrong(f"GET /{collection}", "response", await people.ask("GET", path, 200))
    one = f"{path}/{made[_single(collection)]['id']}"
    if f"GET /{collection}/{{id}}" in CALLS:
        wrong += _wrong(f"GET /{collection}/{{id}}", "response", await people.ask("GET", one, 200))
        changed = {_single(collection): {"description": "new"} if collection != "credentials" else {"blob": "c"}}
        if collection != "endpoints":
            assert not _wrong(f"PATCH /{collection}/{{id}}", "request", changed)
            told = await people.ask("PATCH", one, 200, json=changed)
            wrong += _wrong(f"PATCH /{collection}/{{id}}", "response", told)
    assert not wrong, "\n".join(wrong)


async def test_lists_of_roles_and_tags_are_as_keystone_says(people: People) -> None:
    project = await people.id_of("project", "red")
    asked = {"tags": ["b", "a"]}
    assert not _wrong("PUT /projects/{id}/tags", "request", asked)
    told = await people.ask("PUT", f"/projects/{project}/tags", 200, json=asked)
    wrong = _wrong("PUT /projects/{id}/tags", "response", told)
    for call, path in (
        ("GET /projects/{id}/tags", f"/projects/{project}/tags"),
        ("GET /role_assignments", "/role_assignments"),
        ("GET /role_assignments", "/role_assignments?include_names=true"),
        ("GET /role_inferences", "/role_inferences"),
    ):
        wrong += _wrong(call, "response", await people.ask("GET", path, 200))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("collection", MADE)
async def test_what_is_taken_and_refused_is_as_keystone_says(people: People, collection: str) -> None:
    """Each member with each of many values: what Keystone's schema takes is taken, and what it refuses refused."""
    call, numbers, differences = f"POST /{collection}", itertools.count(), []
    schema = CALLS[call]["request"]
    members = schema["properties"][_single(collection)]["properties"]
    for member in sorted(members):
        for value in VALUES:
            status, (said, body) = await _make(people, collection, numbers, **{member: value})
            is_right = not _errors(schema, body)
            if is_right is (status == 201) or status in (404, 409, 403):  # nothing of that id, taken, not of a caller
                continue
            message = said["error"]["message"] if status != 201 else "taken"
            if not _is_known(collection, member, value, message, is_right=is_right):
                word = "takes" if is_right else "refuses"
                differences.append(f"{collection} {member} = {value!r:.40}: Keystone {word}: {message:.150}")
    assert not differences, "\n".join(differences)
