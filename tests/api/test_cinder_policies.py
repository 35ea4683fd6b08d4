"""Who may call what of Block Storage is what Cinder's policies say by default; and it holds at every route."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from droveway.api.volume import snapshots, volume_actions
from droveway.api.volume.routes import VOLUME_ROUTES
from tests.api import cinder_schemas
from tests.api.volume_world import VOL, volume_world

RANKS = {"any": 0, "reader": 1, "member": 2, "manager": 3, "admin": 4, "service": 4}
# Of fields of its answer, and not of the call.
OF_FIELDS = {"POST types": "admin"}
PLAIN = [one for one in VOLUME_ROUTES if "{project_id}" not in one.path]


def _anonymous(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path.removeprefix(f"{VOL}/"))


NEEDS = {
    **{f"{one.method} {_anonymous(one.path)}": one.need for one in PLAIN if not one.path.endswith("/action")},
    **{f"POST volumes/{{}}/action {name}": one.need for name, one in volume_actions.ACTIONS.items()},
    **{f"POST snapshots/{{}}/action {name}": one.need for name, one in snapshots.ACTIONS.items()},
}


def test_each_call_needs_what_cinder_says() -> None:
    known = {call: need for call, need in NEEDS.items() if call in cinder_schemas.POLICIES}
    assert len(known) > 90
    wrong = []
    for call, need in known.items():
        said = OF_FIELDS.get(call, cinder_schemas.POLICIES[call])
        # where Cinder lets anybody in who has a token, a project is needed here all the same
        if RANKS[need.value] != RANKS[said] and not (said == "any" and need.value == "reader"):
            wrong.append(f"{call}: {need.value}, and Cinder says {said}")
    assert wrong == []


@pytest.mark.parametrize(("user", "rank"), [("rita", 1), ("alice", 2)])
async def test_who_may_less_is_refused_at_every_route(tmp_path: Path, user: str, rank: int) -> None:
    async with volume_world(tmp_path) as w:
        wrong = []
        for route in (one for one in PLAIN if RANKS[one.need.value] > rank):
            path = re.sub(r"\{[^}]*\}", "x", route.path.removeprefix(f"{VOL}/"))
            reply = await w.ask(route.method, path, {}, who=user, version=min(71, route.until))
            if reply.status_code != 403:
                wrong.append((route.method, path, reply.status_code))
        for name, action in volume_actions.ACTIONS.items():
            if RANKS[action.need.value] > rank:
                reply = await w.ask("POST", "volumes/x/action", {name: {}}, who=user)
                if reply.status_code != 403:
                    wrong.append(("POST", name, reply.status_code))
        assert wrong == []
