"""What the port `credentials` promises, of the own table and of a real directory (slapd)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from droveway.api.http.pool import ThreadPool
from droveway.api.identity import passwords
from droveway.config.identity import LdapConfig
from droveway.domain.faults import Unreachable
from droveway.drivers.clock import SystemClock
from droveway.drivers.credentials.ldap import Ldap
from droveway.drivers.credentials.own_table import OwnTable
from droveway.ports.credentials import LoginRefusal, Person
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, directories
from lab import directory
from tests.api.identity_world import among_people
from tests.api.world import NOVA
from tests.store import databases

PEOPLE = {"alice": "correct horse", "bob": "päss wörd", "carol": "x" * 500, "dave": "of dave"}
GONE = ("dave",)
TIMEOUT_S = 3.0


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[directory.Slapd]:
    with directory.slapd(tmp_path_factory.mktemp("directory"), PEOPLE, GONE) as made:
        yield made


def settings(slapd: directory.Slapd, **more: Any) -> LdapConfig:
    given = {"domain": "corp", "url": slapd.url, "people_dn": slapd.people_dn, "bind_dn": slapd.bind_dn}
    given |= {"bind_password": slapd.bind_password, "disabled_filter": "(employeeType=gone)", "timeout_s": TIMEOUT_S}
    return LdapConfig(**given | more)


@pytest.fixture(params=["table", pytest.param("ldap", marks=pytest.mark.servers)])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "ldap":
        made = Ldap(settings(request.getfixturevalue("slapd")))
        yield made
        await made.close()
        return
    store, pool = databases.store(SystemClock()), ThreadPool("hashing", 1, 64)

    def write(tx: Tx) -> None:
        accounts.seed(tx, "")
        for name, password in PEOPLE.items():
            accounts.add_user(
                tx, name, passwords.hash_password(password), email=f"{name}@lab", enabled=name not in GONE
            )

    await store.run(write)
    yield OwnTable(store, partial(passwords.matches, pool))
    await store.close()
    pool.close()


async def test_a_name_and_its_password_are_a_person(driver: Any) -> None:
    for name in ("alice", "bob", "carol"):
        person = await driver.verify("default", name, PEOPLE[name])
        assert isinstance(person, Person)
        assert (person.name, person.is_enabled, person.email) == (name, True, f"{name}@lab")
        assert person == await driver.find("default", name)
    keys = {one.key for one in await driver.people("default", 100) if one.name in PEOPLE}
    assert len(keys) == len(PEOPLE)
    assert len(await driver.people("default", 2)) == 2


async def test_anything_else_is_refused_with_its_reason(driver: Any) -> None:
    for name, password, reason in (
        ("alice", "wrong", LoginRefusal.WRONG_PASSWORD),
        ("alice", "", LoginRefusal.WRONG_PASSWORD),
        ("alice", "correct horse ", LoginRefusal.WRONG_PASSWORD),
        ("alice", PEOPLE["bob"], LoginRefusal.WRONG_PASSWORD),
        ("carol", "x" * 499 + "y", LoginRefusal.WRONG_PASSWORD),
        ("dave", PEOPLE["dave"], LoginRefusal.DISABLED),
        ("dave", "wrong", LoginRefusal.WRONG_PASSWORD),
        ("nobody", "correct horse", LoginRefusal.NO_USER),
        ("", "correct horse", LoginRefusal.NO_USER),
    ):
        assert await driver.verify("default", name, password) == reason, (name, password)


@pytest.mark.parametrize(
    "name", ["*", "a*", "alice)(uid=*", "*)(|(uid=*", "alice\0", "alice,ou=people", "x" * 5000, "alice\\2a", "(&)"]
)
async def test_no_name_asks_for_anything_but_that_person(driver: Any, name: str) -> None:
    assert await driver.find("default", name) is None
    assert await driver.verify("default", name, "correct horse") == LoginRefusal.NO_USER


async def test_many_at_once_are_each_answered_for_themselves(driver: Any) -> None:
    asked = [(name, password) for name in ("alice", "bob") for password in (PEOPLE[name], "wrong")] * 5
    found = await asyncio.gather(*(driver.verify("default", *one) for one in asked))
    assert [isinstance(one, Person) for one in found] == [True, False] * 10


# -- of the directory alone -------------------------------------------------------------------------------------------
@pytest.mark.servers
async def test_a_person_keeps_the_key_under_a_new_name_and_a_new_password_counts_at_once(slapd: Any) -> None:
    driver = Ldap(settings(slapd))
    before = await driver.find("corp", "bob")
    slapd.rename("bob", "robert")
    slapd.set_password("robert", "fresh")
    assert await driver.verify("corp", "bob", "fresh") == LoginRefusal.NO_USER
    after = await driver.verify("corp", "ROBERT", "fresh")  # a directory knows no capital letters
    assert isinstance(after, Person) and before is not None
    assert (after.key, after.name) == (before.key, "robert")
    slapd.rename("robert", "bob")
    slapd.set_password("bob", PEOPLE["bob"])
    await driver.close()


@pytest.mark.servers
@pytest.mark.parametrize(
    ("wrong", "answers"),
    [
        ({"bind_password": "wrong"}, False),
        ({"url": "ldap://127.0.0.1:1"}, False),
        ({"people_dn": "ou=nowhere,dc=lab"}, False),
        ({"start_tls": True}, False),
        ({"id_attribute": "telephoneNumber"}, True),
    ],
)
async def test_a_directory_that_cannot_be_asked_is_no_verdict(slapd: Any, wrong: dict[str, Any], answers: bool) -> None:
    driver = Ldap(settings(slapd, **wrong))
    if answers:
        assert await driver.verify("corp", "alice", PEOPLE["alice"]) == LoginRefusal.NO_USER  # it has no usable key
    else:
        with pytest.raises(Unreachable, match="does not answer; try again later"):
            await driver.verify("corp", "alice", PEOPLE["alice"])
    await driver.close()


@pytest.mark.servers
async def test_a_directory_that_hangs_is_bounded_and_harms_no_other_login(slapd: Any, tmp_path: Path) -> None:
    """503 within its time; those of the own table log in meanwhile; when it answers again, so do its people."""
    async with among_people(tmp_path) as people:
        corp = directories.domain_id_of("corp")
        driver = Ldap(settings(slapd, timeout_s=1.0))
        people.world.api.directories = {corp: driver}
        await people.world.store.run(directories.make_domain, "corp")
        slapd.freeze()
        try:
            began_s = time.monotonic()
            hung = [asyncio.create_task(people.log_in("alice", None, 503, PEOPLE["alice"], id=corp)) for _ in range(12)]
            await asyncio.sleep(0.1)
            await people.world.token("alice", "red")
            assert not any(one.done() for one in hung)
            await asyncio.gather(*hung)
            assert time.monotonic() - began_s < 30.0
        finally:
            slapd.thaw()
        for _ in range(60):  # threads that still wait for the hung connections give up within their bound
            reply = await people.world.http.post("/identity/v3/auth/tokens", json=_login("alice", corp))
            if reply.status_code == 201:
                break
            await asyncio.sleep(0.5)
        assert reply.status_code == 201, reply.text
        await driver.close()


def _login(name: str, domain_id: str) -> dict[str, Any]:
    user = {"name": name, "domain": {"id": domain_id}, "password": PEOPLE[name]}
    return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": "unscoped"}}


@pytest.mark.servers
async def test_people_of_a_directory_are_users_like_others(slapd: Any, tmp_path: Path) -> None:
    async with among_people(tmp_path) as people:
        corp = directories.domain_id_of("corp")
        driver = Ldap(settings(slapd))
        people.world.api.directories = {corp: driver}
        await people.world.store.run(directories.make_domain, "corp")
        (alice,) = (await people.ask("GET", f"/users?name=alice&domain_id={corp}", 200))["users"]
        assert (alice["email"], alice["enabled"]) == ("alice@lab", True)
        listed = (await people.ask("GET", f"/users?domain_id={corp}", 200))["users"]
        assert {row["name"] for row in listed if row["enabled"]} == {"alice", "bob", "carol"}
        red = await people.id_of("project", "red")
        await people.give(f"/projects/{red}/users/{alice['id']}", "member")
        token, body = await people.log_in("alice", {"project": {"id": red}}, 201, PEOPLE["alice"], name="corp")
        assert body["user"]["domain"] == {"id": corp, "name": "corp"}
        assert await people.code(token, f"{NOVA}/servers") == 200
        await people.log_in("alice", None, 401, "wrong", name="corp")
        for method, path, body in (
            ("POST", "/users", {"user": {"name": "x", "domain_id": corp}}),
            ("PATCH", f"/users/{alice['id']}", {"user": {"password": "x"}}),
            ("PATCH", f"/users/{alice['id']}", {"user": {"name": "x"}}),
        ):
            refused = (await people.ask(method, path, 403, json=body))["error"]["message"]
            assert refused.startswith("The people of that domain stand in a directory")
        await driver.close()
