"""Identity v3: logins, tokens that are checked, and a long list."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.api_rows.control_alone import ControlAlone
from benchmarks.claims import Claim, progress
from droveway.api.wiring import Api, ApiSettings
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.engine.transaction import DiskStore

V3 = "/identity/v3"
LOGINS, CHECKS, LISTS, RUNS = 20, 500, 10, 5
PROJECTS = 1000


def measure(cloud: ControlAlone) -> Iterator[Claim]:
    progress("logins")
    person = {"name": "admin", "domain": {"id": "default"}, "password": cloud.auth["password"]}
    project = {"project": {"name": "admin", "domain": {"id": "default"}}}
    by_password = {"methods": ["password"], "password": {"user": person}}
    cloud.token = _log_in(cloud, by_password, project)
    used = _best(cloud, lambda: _log_in(cloud, by_password, project), LOGINS)
    yield Claim("POST token by password: CPU", used, 60.0, "ms", f"{_best_of(LOGINS)}; Keystone: 218")
    wrong = {**by_password, "password": {"user": {**person, "password": "wrong"}}}
    used = _best(cloud, lambda: _log_in(cloud, wrong, project, 401), LOGINS)
    yield Claim("... that is refused: CPU", used, 60.0, "ms", _best_of(LOGINS))
    by_key = _application_credential(cloud)
    used = _best(cloud, lambda: _log_in(cloud, by_key, None), LOGINS)
    yield Claim(
        "POST token by application credential: CPU", used, 10.0, "ms", f"{_best_of(LOGINS)}; Keystone hashes: 218"
    )
    by_token = {"methods": ["token"], "token": {"id": cloud.token}}
    used = _best(cloud, lambda: _log_in(cloud, by_token, project), LOGINS)
    yield Claim("POST token by token: CPU", used, 10.0, "ms", f"{_best_of(LOGINS)}; Keystone: 5.3")

    progress("checks of tokens")
    yield from _checked(cloud)
    subject = {"X-Subject-Token": cloud.token}
    used = _best(cloud, lambda: cloud.ask("GET", f"{V3}/auth/tokens?nocatalog", None, 200, **subject), CHECKS)
    yield Claim(
        "GET token, the whole request: CPU", used, 1.0, "ms", f"{_best_of(CHECKS)}; Keystone with memcached: 4.1"
    )

    progress(f"{PROJECTS:,} projects")
    for number in range(PROJECTS - 1):
        cloud.ask("POST", f"{V3}/projects", {"project": {"name": f"p{number}", "description": "one of many"}}, 201)
    body, _ = cloud.ask("GET", f"{V3}/projects")
    found = len(json.loads(body)["projects"])
    assert found == PROJECTS, f"{found} of {PROJECTS} projects"
    used = _best(cloud, lambda: cloud.ask("GET", f"{V3}/projects"), LISTS)
    yield Claim(
        f"GET {PROJECTS:,} projects: CPU", used, 8.0, "ms", f"{_best_of(LISTS)}, {len(body)} bytes; Keystone: 131"
    )


def _best_of(count: int) -> str:
    return f"best of {RUNS} runs of {count}"


def _best(cloud: ControlAlone, call: Callable[[], object], count: int) -> float:
    return min(cloud.cpu_ms(lambda: [call() for _ in range(count)], count) for _ in range(RUNS))


def _log_in(cloud: ControlAlone, identity: dict[str, Any], scope: Any, status: int = 201) -> str:
    auth = {"identity": identity} | ({} if scope is None else {"scope": scope})
    _, headers = cloud.ask("POST", f"{V3}/auth/tokens?nocatalog", {"auth": auth}, status)
    return str(headers.get("X-Subject-Token", ""))


def _application_credential(cloud: ControlAlone) -> dict[str, Any]:
    shown, _ = cloud.ask("GET", f"{V3}/auth/tokens", None, 200, **{"X-Subject-Token": cloud.token})
    user_id = json.loads(shown)["token"]["user"]["id"]
    wanted = {"application_credential": {"name": "bench"}}
    made, _ = cloud.ask("POST", f"{V3}/users/{user_id}/application_credentials", wanted, 201)
    key = json.loads(made)["application_credential"]
    given = {"id": key["id"], "secret": key["secret"]}
    return {"methods": ["application_credential"], "application_credential": given}


def _checked(cloud: ControlAlone) -> Iterator[Claim]:
    """What an API does for each request that it gets, on the database of that control: where it may remember tokens,
    and where others may have ended one."""
    for caches, bar, what, keystone in (
        (True, 0.15, "validation of a token that is remembered: CPU", "with memcached, over HTTP: 4.1"),
        (False, 1.5, "... that is looked up, with several APIs: CPU", "without memcached, over HTTP: 60"),
    ):
        used = min(asyncio.run(_validated(cloud, caches)) for _ in range(RUNS))
        yield Claim(what, used, bar, "ms", f"{_best_of(CHECKS)}; Keystone {keystone}")


async def _validated(cloud: ControlAlone, caches: bool) -> float:
    store = DiskStore(f"sqlite:///{cloud.home}/droveway.sqlite", SystemClock(), SystemNames())
    settings = ApiSettings("", cloud.home, caches_tokens=caches)
    unused: Any = None
    api = Api(store, SystemClock(), SystemNames(), settings, unused, unused, unused, unused, unused)
    try:
        await api.caller(cloud.token)
        began_s = time.process_time()
        for _ in range(CHECKS):
            await api.caller(cloud.token)
        return (time.process_time() - began_s) * 1000 / CHECKS
    finally:
        await store.close()
