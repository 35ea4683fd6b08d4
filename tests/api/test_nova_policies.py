"""Who may call what is what Nova's policies say by default; and it holds at every route."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from droveway.api.compute.server_actions import ACTIONS
from droveway.api.routes import IMG, NOVA, ROUTES
from droveway.domain.policy import Need
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from tests.api import nova_schemas
from tests.api.world import HASH, booted, in_world, make_image, make_server

RANKS = {"public": 0, "token": 0, "any": 0, "reader": 1, "member": 2, "manager": 3, "admin": 4}
# Policies of Nova that say who sees some fields of an answer, and name the call that gives it.
OF_FIELDS = {"PUT /servers/{}": "member", "POST /flavors": "admin", "PUT /flavors/{}": "admin"}
OF_FIELDS |= {f"POST /servers/{{}}/action {name}": "member" for name in ("rebuild", "resize")}  # and of cells
# Calls of which Nova has no policy, or none any more; and the proxies of images.
NOT_NOVAS = (
    *("GET /flavors", "GET /os-hypervisors/detail", "GET /os-agents"),
    "POST /servers/{}/action os-getRDPConsole",
)


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
    said = OF_FIELDS.get(call) or nova_schemas.POLICIES[call]
    # where Nova lets anybody in who has a token, a project is needed here all the same: there is nothing without one
    assert need == RANKS[said] or (said == "any" and need <= RANKS["reader"])


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


async def test_a_manager_moves_servers_of_its_project_and_sees_no_host(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:

        def write(tx: Tx) -> None:
            project = accounts.find_project(tx, name="red", domain_id="default")
            assert project is not None
            user_id = accounts.add_user(tx, "mia", HASH)
            accounts.grant(tx, user_id, project["id"], "manager")

        await world.store.run(write)
        mia, alice = await world.token("mia", "red"), await world.token("alice", "red")
        server_id = await make_server(world, alice, await make_image(world, alice))
        await booted(world, server_id)
        path = f"{NOVA}/servers/{server_id}"
        server = (await world.ask("GET", path, token=mia)).json()["server"]

        async def move(host: str | None, token: str) -> int:
            body = {"os-migrateLive": {"host": host, "block_migration": "auto"}}
            return (await world.ask("POST", f"{path}/action", token=token, version="2.30", json=body)).status_code

        assert await move("h2", mia) == 403
        assert await move(None, alice) == 403
        assert await move(None, mia) == 202
        (moved,) = (await world.ask("GET", f"{path}/migrations", token=mia, version="2.80")).json()["migrations"]
        assert {moved[name] for name in moved if name.startswith(("source_", "dest_"))} == {None}
        query = f"{NOVA}/os-migrations?project_id={server['tenant_id']}"
        (listed,) = (await world.ask("GET", query, token=mia, version="2.80")).json()["migrations"]
        assert listed["source_compute"] is None
        for refused in (f"{NOVA}/os-migrations", f"{query}&host=h1", f"{NOVA}/os-migrations?project_id=other"):
            assert (await world.ask("GET", refused, token=mia, version="2.80")).status_code == 403, refused
        gone = await world.ask("DELETE", f"{path}/migrations/{moved['id']}", token=mia, version="2.80")
        assert gone.status_code == 202
