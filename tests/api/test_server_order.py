"""The order of a list of servers, by every key that Nova takes, and the same order over its pages; and every status."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from droveway.api.compute.server_filters import SORTS, UNHEEDED_SORTS
from droveway.store.engine.transaction import Tx
from droveway.store.schema import instances
from tests.api.world import NOVA, World, in_world, make_image, make_server, reason

DETAIL = f"{NOVA}/servers/detail"
ROWS = (  # with nulls and flags in every mixture, and values that are the same
    {"host": "h1", "config_drive": True, "locked": False, "power_state": 1, "description": "b", "zone": None},
    {"host": None, "config_drive": False, "locked": True, "power_state": 4, "description": None, "zone": "z1"},
    {"host": "h2", "config_drive": True, "locked": True, "power_state": 1, "description": "a", "key_name": "k"},
    {"host": None, "config_drive": False, "locked": False, "power_state": 4, "description": None, "task_state": None},
    {"host": "h1", "config_drive": True, "locked": False, "power_state": 1, "description": "a", "launched_at_us": 7},
)


async def fill(world: World, token: str) -> None:
    image_id = await make_image(world, token)
    ids = [await make_server(world, token, image_id, f"g{number}") for number in range(len(ROWS))]

    def write(tx: Tx) -> None:
        for instance_id, values in zip(ids, ROWS, strict=True):
            tx.execute(update(instances).where(instances.c.id == instance_id).values(**values))

    await world.store.run(write)


async def names(world: World, token: str, query: str) -> list[str]:
    """Over all pages."""
    found, href = [], f"{DETAIL}?{query}"
    while href:
        reply = await world.ask("GET", href, token=token, version="2.96")
        assert reply.status_code == 200, (href, reply.text)
        found += [server["name"] for server in reply.json()["servers"]]
        assert len(found) <= len(ROWS), "a page begins where the one before ended"
        href = reply.json().get("servers_links", [{"href": ""}])[0]["href"]
    return found


async def test_every_key_has_one_order_over_all_pages(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await fill(world, token)
        for key in (*SORTS, *UNHEEDED_SORTS):
            for down in ("asc", "desc"):
                query = f"sort_key={key}&sort_dir={down}"
                whole = await names(world, token, query)
                assert sorted(whole) == ["g0", "g1", "g2", "g3", "g4"], key
                assert await names(world, token, f"{query}&limit=1") == whole, key
                assert await names(world, token, f"limit=2&{query}") == whole, key


async def test_what_is_null_or_false_comes_first(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await fill(world, token)

        async def by(*keys: tuple[str, str]) -> list[str]:
            query = "&".join(f"sort_key={key}&sort_dir={down}" for key, down in (*keys, ("display_name", "asc")))
            whole = await names(world, token, query)
            for limit in (1, 2, 3):
                assert await names(world, token, f"{query}&limit={limit}") == whole
            return whole

        assert await by(("locked", "asc")) == ["g0", "g3", "g4", "g1", "g2"]
        assert await by(("locked", "desc")) == ["g1", "g2", "g0", "g3", "g4"]
        assert await by(("config_drive", "asc"), ("locked", "desc")) == ["g1", "g3", "g2", "g0", "g4"]
        assert await by(("display_description", "asc")) == ["g1", "g3", "g2", "g4", "g0"]
        assert await by(("display_description", "desc")) == ["g0", "g2", "g4", "g1", "g3"]
        assert await by(("host", "asc")) == ["g1", "g3", "g0", "g4", "g2"]
        assert await by(("availability_zone", "asc")) == ["g3", "g0", "g2", "g4", "g1"]  # null, nova, z1
        assert await by(("power_state", "asc"), ("created_at", "desc")) == ["g4", "g2", "g0", "g3", "g1"]


async def test_next_links_keep_keys_and_directions_together(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await fill(world, token)
        query = "sort_key=power_state&sort_dir=asc&sort_key=created_at&sort_dir=desc&limit=2"
        (link,) = (await world.ask("GET", f"{DETAIL}?{query}", token=token)).json()["servers_links"]
        assert link["href"].startswith(f"http://cloud.test{DETAIL}?{query}&marker=")


async def test_who_may_sort_by_what(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        for key, version, code in (
            ("host", "2.1", 403),
            ("node", "2.96", 403),
            ("vm_state", "2.1", 200),
            ("locked", "2.1", 200),
            ("vcpus", "2.96", 200),
            ("ip", "2.96", 400),
        ):
            reply = await world.ask("GET", f"{DETAIL}?sort_key={key}", token=alice, version=version)
            assert reply.status_code == code, key
            assert code == 200 or reason(reply)


@pytest.mark.parametrize(
    "status",
    [
        "PASSWORD",
        "PAUSED",
        "REBOOT",
        "REBUILD",
        "RESCUE",
        "RESIZE",
        "REVERT_RESIZE",
        "SHELVED",
        "SHELVED_OFFLOADED",
        "SOFT_DELETED",
        "SUSPENDED",
        "VERIFY_RESIZE",
        "shelved",
    ],
)
async def test_no_server_is_in_a_status_that_is_not_built(tmp_path: Path, status: str) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await make_server(world, token, await make_image(world, token))
        for version in ("2.37", "2.38", "2.96"):
            reply = await world.ask("GET", f"{DETAIL}?status={status}", token=token, version=version)
            assert (reply.status_code, reply.json()) == (200, {"servers": []})
        both = await world.ask("GET", f"{DETAIL}?status={status}&status=BUILD", token=token, version="2.96")
        assert len(both.json()["servers"]) == 1
