"""Who may call what is what Nova's policies say by default; and it holds at every route."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from droveway.api.compute.server_actions import ACTIONS
from droveway.api.routes import IMG, NOVA, ROUTES
from droveway.domain.policy import Need
from tests.api import nova_schemas
from tests.api.world import in_world

RANKS = {"public": 0, "token": 0, "any": 0, "reader": 1, "member": 2, "manager": 3, "admin": 4}
# Policies of Nova that say who sees some fields of an answer, and name the call that gives it.
OF_FIELDS = {"PUT /servers/{}": "member", "POST /flavors": "admin", "PUT /flavors/{}": "admin"}
# Stricter than Nova, which lets managers of a project do this: migrations name hosts, and no manager sees those here.
STRICTER = {
    "GET /servers/{}/migrations": "admin",
    "DELETE /servers/{}/migrations/{}": "admin",
    "GET /os-migrations": "admin",
    "POST /servers/{}/action os-migrateLive": "admin",
}
NOT_NOVAS = ("GET /flavors", "GET /os-hypervisors/detail", "GET /os-agents")  # and the proxies of images


def _needs() -> dict[str, Need]:
    found = {
        nova_schemas.anonymous(f"{route.method} {route.path.removeprefix(NOVA)}"): route.need
        for route in ROUTES
        if route.path.startswith(NOVA + "/") and not route.path.endswith("/action")
    }
    return found | {f"POST /servers/{{}}/action {name}": action.need for name, action in ACTIONS.items()}


@pytest.mark.parametrize("call", sorted(_needs()))
def test_each_call_needs_what_nova_says(call: str) -> None:
    need = RANKS[_needs()[call].value]
    if call in NOT_NOVAS or " /images" in call:
        assert call not in nova_schemas.POLICIES
        return
    said = STRICTER.get(call) or OF_FIELDS.get(call) or nova_schemas.POLICIES[call]
    # where Nova lets anybody in who has a token, a project is needed here all the same: there is nothing without one
    assert need == RANKS[said] or (said == "any" and need <= RANKS["reader"])


def test_what_is_stricter_is_so_still() -> None:
    for call, role in STRICTER.items():
        assert RANKS[nova_schemas.POLICIES[call]] < RANKS[role], call


@pytest.mark.parametrize(("user", "rank"), [("rita", 1), ("alice", 2)])
async def test_who_may_less_is_refused_at_every_route(tmp_path: Path, user: str, rank: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token(user, "red")
        wrong = []
        for route in ROUTES:
            if not route.path.startswith((NOVA + "/", IMG + "/")) or RANKS[route.need.value] <= rank:
                continue
            path = re.sub(r"\{[^}]*\}", "x", route.path)
            reply = await world.ask(route.method, path, token=token, version=f"2.{route.since}", json={})
            if reply.status_code != 403:
                wrong.append((route.method, path, reply.status_code))
        assert not wrong


@pytest.mark.parametrize(("user", "rank"), [("rita", 1), ("alice", 2)])
async def test_who_may_less_is_refused_every_action(tmp_path: Path, user: str, rank: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token(user, "red")
        for name, action in ACTIONS.items():
            if RANKS[action.need.value] > rank:
                reply = await world.ask("POST", f"{NOVA}/servers/x/action", token=token, json={name: None})
                assert reply.status_code == 403, name
