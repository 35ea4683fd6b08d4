"""The dry run of migrations and what was foreseen of earlier ones, as the API and the command line say them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from droveway.cli import migration_plans
from droveway.domain.placement import PlacementRequest
from droveway.store.compute import predictions
from droveway.store.engine.transaction import Tx
from droveway.store.rows import PredictionRow
from tests.api.test_placements import placing
from tests.api.world import booted, make_image, make_server, reason

MIB = 1024**2


async def test_a_plan_names_what_stands_in_the_way(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        server_id = await make_server(p.world, p.token, await make_image(p.world, p.token))
        host = await p.decide(server_id, PlacementRequest(1, 128, 1))
        reply = await p.post("/migrations/plan", {"migration": {"server": server_id}})
        assert reply.status_code == 200
        found = reply.json()
        assert found["server"] == {"id": server_id, "name": "g1", "host": host}
        assert found["checks"][0] == {
            "name": "active",
            "passed": False,
            "reason": "instance g1 is building, not active",
        }
        assert {one["verdict"] for one in found["hosts"]} == {"blocked"}
        await booted(p.world, server_id)
        found = (await p.post("/migrations/plan", {"migration": {"server": "g1", "measure": False}})).json()
        (there,) = found["hosts"]
        assert there["verdict"] == "unknown" and there["predictions"] == []
        assert "is not connected" in next(one["reason"] for one in there["checks"] if one["passed"] is None)
        matrix = (await p.get("/migrations/matrix")).json()
        assert [(one["server_id"], one["verdict"]) for one in matrix["pairs"]] == [(server_id, "unknown")]
        assert (await p.get(f"/migrations/matrix?host={there['host']}")).json()["servers"] == []
        assert (await p.get("/migrations/matrix?host=h9")).status_code == 404


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ({}, 400, "server"),
        ({"server": "nothing"}, 404, "nothing"),
        ({"server": "g1", "host": "h9"}, 404, "h9"),
        ({"server": "g1", "block_migration": "perhaps"}, 400, "true, false or auto"),
        ({"server": "g1", "colour": 1}, 400, "colour"),
        ({"server": "g1"}, 400, "no host that it could leave"),
    ],
)
async def test_what_cannot_be_planned(tmp_path: Path, given: dict[str, str], code: int, says: str) -> None:
    async with placing(tmp_path) as p:
        await make_server(p.world, p.token, await make_image(p.world, p.token))
        reply = await p.post("/migrations/plan", {"migration": given})
        assert reply.status_code == code and says in reason(reply)


async def test_it_is_for_administrators(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:
        token = await p.world.token("alice", "red")
        for method, path in (("POST", "plan"), ("GET", "matrix"), ("GET", "predictions")):
            reply = await p.world.ask(method, f"/droveway/v1/migrations/{path}", token=token)
            assert reply.status_code == 403


def row(number: int, predicted_ms: int | None, duration_ms: int | None, outcome: str) -> PredictionRow:
    return PredictionRow(
        saga_id=f"s{number}",
        instance_id="i1",
        source="h1",
        destination="h2",
        mode="never-slow",
        bytes=100 * MIB,
        dirty_bytes_per_s=None,
        learnt_from=0,
        predicted_ms=predicted_ms,
        predicted_downtime_ms=predicted_ms,
        outcome=outcome,
        duration_ms=duration_ms,
        downtime_ms=None,
        at_us=number,
    )


async def test_what_was_foreseen_stands_beside_what_was(tmp_path: Path) -> None:
    async with placing(tmp_path) as p:

        def write(tx: Tx) -> None:
            for one in (
                row(1, 1500, 1000, "completed"),
                row(2, 900, 1000, "completed"),
                row(3, None, 1000, "completed"),
                row(4, 1000, 10, "failed"),
                row(5, 1000, None, ""),
            ):
                predictions.record(tx, one)

        await p.world.store.run(write)
        found = (await p.get("/migrations/predictions")).json()
        assert [one["error_percent"] for one in found["predictions"]] == [None, None, None, -10.0, 50.0]
        assert found["median_error_percent"] == 30.0
        assert len((await p.get("/migrations/predictions?limit=2")).json()["predictions"]) == 2


# -- as a person reads it ---------------------------------------------------------------------------------------------
PLAN = {
    "server": {"id": "i1", "name": "web-1", "host": "h1"},
    "checks": [{"name": "active", "passed": True, "reason": ""}],
    "load": {
        "memory_bytes": 512 * MIB,
        "used_bytes": 200 * MIB,
        "dirty_bytes_per_s": 3 * MIB,
        "measured_ago_s": 0.2,
    },
    "way": {"bytes_per_s": 100.0 * MIB, "setup_s": 1.0, "downtime_s": 0.05, "learnt_from": 7},
    "mode": "never-slow",
    "hosts": [
        {
            "host": "h2",
            "verdict": "moves",
            "blockers": [],
            "checks": [{"name": "ram", "passed": True, "reason": ""}],
            "shares_store": False,
            "copy_bytes": 30 * MIB,
            "predictions": [
                {"mode": "never-slow", "duration_s": 3.1, "downtime_s": 0.06},
                {"mode": "pause", "duration_s": None, "downtime_s": None},
            ],
        },
        {
            "host": "h3",
            "verdict": "blocked",
            "blockers": ["cpu_model"],
            "checks": [{"name": "cpu_model", "passed": False, "reason": "it lacks features"}],
            "shares_store": None,
            "copy_bytes": 0,
            "predictions": [],
        },
    ],
    "more": 2,
}


class Answering:
    def __init__(self, answer: object) -> None:
        self.answer, self.asked = answer, list[object]()

    def __call__(self) -> Answering:
        return self

    def post(self, path: str, body: object) -> object:
        self.asked.append(body)
        return self.answer

    def get(self, path: str) -> object:
        self.asked.append(path)
        return self.answer


def test_a_plan_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Answering(PLAN)
    monkeypatch.setattr(migration_plans, "Session", session)
    told = CliRunner().invoke(migration_plans.migration_plan, ["web-1", "--host", "h2"])
    assert told.exit_code == 0, told.output
    assert session.asked == [{"migration": {"server": "web-1", "measure": True, "host": "h2"}}]
    for words in (
        "200 of 512 MiB of its memory are used; it writes to 3 MiB of it a second, measured now",
        "learnt from 7 migrations",
        "to h2: moves",
        "30 MiB of its disks go along",
        "never-slow *",
        "3.1 s",
        "60 ms",
        "does not end",
        "to h3: blocked: cpu_model",
        "it lacks features",
        "2 hosts more",
    ):
        assert words in told.output, words


def test_the_matrix_names_who_can_move_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {"server_id": "i1", "host": "h2", "verdict": "blocked", "blocker": "ram", "reason": "too small"}
    found = {
        "servers": [{"id": "i1", "name": "a", "host": "h1"}, {"id": "i2", "name": "b", "host": "h1"}],
        "hosts": ["h1", "h2"],
        "pairs": [pair, {**pair, "server_id": "i2", "verdict": "moves", "blocker": "", "reason": ""}],
        "more_servers": 3,
        "more_hosts": 0,
    }
    monkeypatch.setattr(migration_plans, "Session", Answering(found))
    told = CliRunner().invoke(migration_plans.host_migratable, [])
    assert told.exit_code == 0, told.output
    assert "! a can move nowhere: ram: too small" in told.output and "! b" not in told.output
    assert "3 servers more are not shown" in told.output
