"""A live migration that is under way: aborted, forced to complete, and shown, at each microversion as Nova has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.domain.migration_ladder import POLICY_KEY
from droveway.domain.model import CopyProgress
from droveway.store.compute import migrations
from droveway.store.compute.migrations import ShownProgress
from droveway.store.engine.transaction import Tx
from droveway.store.schema import sagas as saga_rows
from droveway.store.work import sagas
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server, reason, sagas_of

MIB = 1 << 20
FORCE = {"force_complete": None}


class Moving:
    """A server whose migration has been asked for, and stands where a test puts it."""

    def __init__(self, world: World, token: str, server_id: str, saga_id: str, number: int) -> None:
        self.world, self.token, self.server_id, self.saga_id = world, token, server_id, saga_id
        self.path = f"{NOVA}/servers/{server_id}/migrations/{number}"

    async def at(self, status: str, step: str = "await_switch") -> None:
        def write(tx: Tx) -> None:
            migrations.set_(tx, self.saga_id, status=status, destination="h2")
            tx.execute(saga_rows.update().where(saga_rows.c.id == self.saga_id).values(step=step))

        await self.world.store.run(write)

    async def ask(self, method: str, version: int = 80, body: Any = None) -> Any:
        path = self.path if body is None else f"{self.path}/action"
        return await self.world.ask(method, path, token=self.token, version=f"2.{version}", json=body)

    async def row(self) -> Any:
        return (await self.world.store.read(lambda tx: migrations.find(tx, instance_id=self.server_id)))[0]


async def begin(world: World) -> Moving:
    token = await world.token()
    server_id = await make_server(world, token, await make_image(world, token))
    await booted(world, server_id)
    body = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    reply = await world.ask("POST", f"{NOVA}/servers/{server_id}/action", token=token, version="2.80", json=body)
    assert reply.status_code == 202
    saga_id = (await sagas_of(world, server_id))[-1]["id"]
    (row,) = await world.store.read(lambda tx: migrations.find(tx, instance_id=server_id))
    return Moving(world, token, server_id, saga_id, row["id"])


@pytest.mark.parametrize("status", ["accepted", "queued", "preparing", "running"])
async def test_what_has_not_begun_is_aborted_from_2_65_on(tmp_path: Path, status: str) -> None:
    async with in_world(tmp_path) as world:
        moving = await begin(world)
        await moving.at(status)
        early = await moving.ask("DELETE", 64)
        assert early.status_code == (202 if status == "running" else 400), early.text
        if status != "running":
            assert f"is {status}. Cannot abort live migration" in reason(early)
            assert (await world.store.read(sagas.cancel_asked, moving.saga_id)) is None
        for _ in range(2):
            assert (await moving.ask("DELETE", 65)).status_code == 202
        assert await world.store.read(sagas.cancel_asked, moving.saga_id)


@pytest.mark.parametrize("post_copy", [True, False])
async def test_an_abort_after_the_switch_is_told_that_it_is_too_late(tmp_path: Path, post_copy: bool) -> None:
    async with in_world(tmp_path) as world:
        moving = await begin(world)
        await moving.at("running", "await_switch" if post_copy else "record_switch")
        if post_copy:
            shown = ShownProgress(post_copy="active")
            await world.store.run(migrations.set_progress, moving.saga_id, CopyProgress(), shown)
        late = await moving.ask("DELETE")
        assert late.status_code == 400 and "runs on its destination already" in reason(late)
        assert (await world.store.read(sagas.cancel_asked, moving.saga_id)) is None


async def test_force_complete_is_wanted_once_and_only_of_one_that_is_copied(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        moving = await begin(world)
        for status in ("accepted", "queued", "preparing"):
            await moving.at(status)
            refused = await moving.ask("POST", 22, FORCE)
            assert refused.status_code == 400 and "Cannot force_complete" in reason(refused)
        await moving.at("running")
        assert (await moving.ask("POST", 21, FORCE)).status_code == 404
        for wrong in ({"force_complete": True}, {"force_complete": None, "more": 1}, {"hurry": None}, {}):
            assert (await moving.ask("POST", 22, wrong)).status_code == 400, wrong
        assert not (await moving.row())["forced"]
        assert [(await moving.ask("POST", 22, FORCE)).status_code for _ in range(2)] == [202, 202]
        assert (await moving.row())["forced"]
        await moving.at("completed")
        assert (await moving.ask("POST", 22, FORCE)).status_code == 404
        assert (await moving.ask("DELETE")).status_code == 404


async def test_how_far_it_is_is_shown_to_clients_and_to_operators(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        moving = await begin(world)
        await moving.at("running")
        seen = CopyProgress(512 * MIB, 300 * MIB, 212 * MIB, 3, 1500, disk_total_bytes=MIB, disk_remaining_bytes=7)
        shown = ShownProgress("pause", 3, 1500, 90 * MIB, 30 * MIB, 0, 100, 300, 3.5)
        await world.store.run(migrations.set_progress, moving.saga_id, seen, shown)
        one = (await moving.ask("GET")).json()["migration"]
        assert {name: one[name] for name in one if name.endswith("_bytes")} == {
            "memory_total_bytes": 512 * MIB,
            "memory_processed_bytes": 300 * MIB,
            "memory_remaining_bytes": 212 * MIB,
            "disk_total_bytes": MIB,
            "disk_processed_bytes": 0,
            "disk_remaining_bytes": 7,
        }
        for named in (str(one["id"]), one["uuid"], moving.server_id, "g1"):
            own = (await world.ask("GET", f"/droveway/v1/migrations/{named}", token=moving.token)).json()["migration"]
            assert own["server"]["name"] == "g1" and own["disk_remaining_bytes"] == 7
            assert {name: own[name] for name in msgspec.structs.asdict(shown)} == msgspec.structs.asdict(shown)
        missing = await world.ask("GET", "/droveway/v1/migrations/g2", token=moving.token)
        assert missing.status_code == 404 and "droveway migration list --all" in missing.text


async def test_places_in_the_queue_are_listed(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        moving = [await begin(world) for _ in range(3)]
        for one in moving[1:]:
            await one.at("queued", "await_turn")

        async def listed(query: str) -> list[tuple[int, str]]:
            reply = await world.ask("GET", f"/droveway/v1/migrations{query}", token=moving[0].token)
            return [(one["queue_place"], one["status"]) for one in reply.json()["migrations"]]

        assert await listed("") == [(2, "queued"), (1, "queued"), (0, "accepted")]
        await moving[1].at("completed")
        assert await listed("") == [(1, "queued"), (0, "accepted")]
        assert await listed(f"?all=1&server={moving[1].server_id}") == [(0, "completed")]


async def test_a_policy_that_is_none_is_refused_where_it_is_set(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        moving = await begin(world)
        path = f"{NOVA}/servers/{moving.server_id}/metadata"
        for value, status in (("fast", 400), ("post-copy", 200)):
            body = {"metadata": {POLICY_KEY: value}}
            reply = await world.ask("POST", path, token=moving.token, json=body)
            assert reply.status_code == status, reply.text
        first = (await world.ask("GET", f"{NOVA}/flavors", token=moving.token)).json()["flavors"][0]["id"]
        flavor = {"extra_specs": {POLICY_KEY: "fast"}}
        reply = await world.ask("POST", f"{NOVA}/flavors/{first}/os-extra_specs", token=moving.token, json=flavor)
        assert reply.status_code == 400 and "never-slow" in reason(reply), reply.text
