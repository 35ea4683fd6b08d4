"""What was asked of a server, and how long it was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from droveway.scheduler.summaries import NOT_ENOUGH
from droveway.store.engine.transaction import Tx
from droveway.store.schema import instances, sagas
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server, sentence

USAGE = f"{NOVA}/os-simple-tenant-usage"
HOUR_US = 3_600_000_000
DAY = "start=2026-01-01T00:00:00&end=2026-01-02T00:00:00"
DAY_US = 1_767_225_600_000_000


async def test_actions_are_told_newest_first(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        server_id = await make_server(world, token, await make_image(world, token))
        await booted(world, server_id)
        path = f"{NOVA}/servers/{server_id}/os-instance-actions"
        stop = await world.ask("POST", f"{NOVA}/servers/{server_id}/action", token=token, json={"os-stop": None})
        asked = stop.headers["x-openstack-request-id"]

        async def get(query: str = "", version: str = "2.96", code: int = 200, who: str = token) -> Any:
            reply = await world.ask("GET", path + query, token=who, version=version)
            assert reply.status_code == code, reply.text
            return reply.json()

        both = (await get())["instanceActions"]
        assert [each["action"] for each in both] == ["stop", "create"]
        assert set(both[0]) == {
            "action",
            "instance_uuid",
            "request_id",
            "user_id",
            "project_id",
            "start_time",
            "message",
            "updated_at",
        }
        assert both[0]["request_id"] == asked
        assert both[1]["user_id"] is not None
        assert "updated_at" not in (await get(version="2.57"))["instanceActions"][0]
        one = (await get(f"/{asked}"))["instanceAction"]
        assert one == {**both[0], "events": []}
        page = await get("?limit=1")
        assert page["links"][0]["href"].endswith(f"?limit=1&marker={asked}")
        rest = (await world.ask("GET", page["links"][0]["href"], token=token, version="2.96")).json()
        assert [each["action"] for each in rest["instanceActions"]] == ["create"]
        assert (await get("?changes-since=2100-01-01T00:00:00Z"))["instanceActions"] == []
        assert (await get("?changes-before=2020-01-01T00:00:00Z"))["instanceActions"] == []
        await get("?marker=nowhere", code=400)
        await get("/nothing", code=404)
        await get(who=bob, code=404)


@pytest.mark.parametrize(
    ("blocked", "error", "message"),
    [
        (None, "", None),
        (None, "h1: refused", "Error"),
        ("stop_guest waits: h1 does not answer", "", "stop_guest waits: h1 does not answer"),
        ("begin_copy waits: h1 does not answer", "cancelled", "begin_copy waits: h1 does not answer"),
        (
            "choose_host waits for room: No valid host was found: h1: 512 MB are free",
            "",
            f"choose_host waits for room: {NOT_ENOUGH}",
        ),
    ],
)
async def test_an_action_says_what_it_waits_for(
    tmp_path: Path, blocked: str | None, error: str, message: str | None
) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await make_server(world, token, await make_image(world, token))
        await world.store.run(lambda tx: tx.execute(update(sagas).values(blocked=blocked, error=error)))
        path = f"{NOVA}/servers/{server_id}/os-instance-actions"
        (listed,) = (await world.ask("GET", path, token=token)).json()["instanceActions"]
        shown = (await world.ask("GET", f"{path}/{listed['request_id']}", token=token)).json()["instanceAction"]
        assert (listed["message"], shown["message"]) == (message, message)


async def three(world: World) -> tuple[str, str]:
    """Servers of red: one over the whole day, one from noon on, one that never ran. Alice's token, and the project."""
    token = await world.token("alice", "red")
    image_id = await make_image(world, token)
    ids = [await make_server(world, token, image_id, name) for name in ("old", "new", "never")]

    def write(tx: Tx) -> None:
        for number, (began_us, ended_us) in enumerate(
            ((DAY_US - HOUR_US, None), (DAY_US + 12 * HOUR_US, DAY_US + 15 * HOUR_US))
        ):
            values = {"launched_at_us": began_us, "terminated_at_us": ended_us, "deleted": ended_us is not None}
            tx.execute(update(instances).where(instances.c.id == ids[number]).values(**values))

    await world.store.run(write)
    project = (await world.ask("GET", "/identity/v3/auth/projects", token=token)).json()["projects"][0]["id"]
    return token, project


async def test_usage_counts_the_hours_within_the_span(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, project = await three(world)
        admin = await world.token()
        hers = (await world.ask("GET", f"{USAGE}/{project}?{DAY}", token=token)).json()["tenant_usage"]
        assert (hers["total_hours"], hers["total_vcpus_usage"], hers["tenant_id"]) == (27.0, 27.0, project)
        assert (hers["start"], hers["stop"]) == ("2026-01-01T00:00:00.000000", "2026-01-02T00:00:00.000000")
        assert [(each["name"], each["hours"], each["state"]) for each in hers["server_usages"]] == [
            ("old", 24.0, "building"),
            ("new", 3.0, "terminated"),
        ]
        every = (await world.ask("GET", f"{USAGE}?{DAY}", token=admin)).json()["tenant_usages"]
        assert [(each["tenant_id"], each["total_hours"]) for each in every] == [(project, 27.0)]
        assert "server_usages" not in every[0]
        detailed = (await world.ask("GET", f"{USAGE}?{DAY}&detailed=1", token=admin)).json()["tenant_usages"]
        assert len(detailed[0]["server_usages"]) == 2
        before = "start=2020-01-01T00:00:00&end=2020-01-02T00:00:00"
        assert (await world.ask("GET", f"{USAGE}/{project}?{before}", token=token)).json() == {"tenant_usage": {}}
        assert (await world.ask("GET", f"{USAGE}/{project}", token=token)).status_code == 200
        names, href = [], f"{USAGE}/{project}?{DAY}&limit=1"
        while href:
            page = (await world.ask("GET", href, token=token, version="2.40")).json()
            names += [each["name"] for each in page["tenant_usage"].get("server_usages", ())]
            href = page.get("tenant_usage_links", [{"href": ""}])[0]["href"]
        assert names == ["old", "new"]


@pytest.mark.parametrize(
    ("query", "who", "code"),
    [
        ("?start=yesterday", "admin", 400),
        ("?start=2026-01-02T00:00:00&end=2026-01-01T00:00:00", "admin", 400),
        ("?marker=nowhere", "admin", 400),
        ("", "alice", 403),
        ("/another", "alice", 403),
    ],
)
async def test_usage_refuses(tmp_path: Path, query: str, who: str, code: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token(who, "admin" if who == "admin" else "red")
        reply = await world.ask("GET", USAGE + query, token=token, version="2.40")
        assert reply.status_code == code, reply.text
        assert sentence(reply)
