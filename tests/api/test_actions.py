"""What may be done to a server: each action writes one intent, or is refused with a sentence and writes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.world import NOVA, World, booted, in_world, make_image, make_server, reason, sagas_of


async def running(world: World, token: str) -> str:
    server_id = await make_server(world, token, await make_image(world, token))
    await booted(world, server_id)
    return server_id


async def act(world: World, token: str, server_id: str, body: Any, version: str = "2.96") -> Any:
    return await world.ask("POST", f"{NOVA}/servers/{server_id}/action", token=token, version=version, json=body)


@pytest.mark.parametrize(
    ("body", "kind", "params"),
    [
        ({"os-stop": None}, "stop", {}),
        ({"reboot": {"type": "HARD"}}, "hard_reboot", {}),
        ({"reboot": {"type": "soft"}}, "soft_reboot", {}),
        ({"pause": None}, "pause", {}),
        ({"suspend": None}, "suspend", {}),
    ],
)
async def test_power_actions_write_one_intent(tmp_path: Path, body: Any, kind: str, params: dict[str, Any]) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await running(world, token)
        reply = await act(world, token, server_id, body)
        assert reply.status_code == 202, reply.text
        assert reply.content == b""
        saga = (await sagas_of(world, server_id))[-1]
        assert (saga["kind"], saga["params"]) == (kind, params)
        again = await act(world, token, server_id, body)
        assert again.status_code == 409
        assert "conflictingRequest" in again.json()
        assert len(await sagas_of(world, server_id)) == 2


async def test_start_of_a_running_server_is_409(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await running(world, token)
        reply = await act(world, token, server_id, {"os-start": None})
        assert reply.status_code == 409
        assert "active" in reason(reply)
        assert len(await sagas_of(world, server_id)) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"dance": None},
        {},
        [],
        {"os-stop": None, "os-start": None},
        {"reboot": {}},
        {"reboot": {"type": "GENTLE"}},
        {"reboot": None},
        {"os-getConsoleOutput": {"length": -2}},
        {"os-getConsoleOutput": {"length": "many"}},
        {"os-getConsoleOutput": None},
    ],
)
async def test_malformed_actions_are_400(tmp_path: Path, body: Any) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await running(world, token)
        reply = await act(world, token, server_id, body)
        assert reply.status_code == 400, reply.text
        assert len(await sagas_of(world, server_id)) == 1


async def test_console_output(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        building = await make_server(world, token, await make_image(world, token))
        reply = await act(world, token, building, {"os-getConsoleOutput": {}})
        assert reply.status_code == 409
        server_id = await running(world, token)
        silent = await act(world, token, server_id, {"os-getConsoleOutput": {}})
        assert silent.status_code == 503
        assert silent.headers["retry-after"] == "1"
        world.consoles[server_id] = "one\r\n\x1b[1mtwo\nthree\n"
        for length, text in (
            (None, "one\n[1mtwo\nthree\n"),
            (1, "three\n"),
            ("2", "[1mtwo\nthree\n"),
            (-1, "one\n[1mtwo\nthree\n"),
        ):
            asked = {} if length is None else {"length": length}
            reply = await act(world, token, server_id, {"os-getConsoleOutput": asked})
            assert reply.json() == {"output": text}


# -- live migration ---------------------------------------------------------------------------------------------------
OLD = {"host": None, "block_migration": False, "disk_over_commit": False}
AUTO = {"host": None, "block_migration": "auto"}
FORCED = {"host": "h2", "block_migration": "auto", "force": True}
UNFORCED = {**FORCED, "force": False}

FORMS: list[tuple[int, Any, int]] = [
    (1, OLD, 202),
    (1, {**OLD, "host": "h2", "block_migration": "True"}, 202),
    (24, OLD, 202),
    (1, {"host": None, "block_migration": False}, 400),
    (24, {**OLD, "block_migration": "auto"}, 400),
    (24, {**OLD, "force": False}, 400),
    (25, OLD, 400),
    (25, AUTO, 202),
    (25, {**AUTO, "block_migration": "no"}, 202),
    (24, {**OLD, "disk_over_commit": True}, 202),
    (29, UNFORCED, 400),
    (30, AUTO, 202),
    (30, UNFORCED, 202),
    (30, FORCED, 202),
    (30, {**FORCED, "host": None}, 400),
    (34, AUTO, 202),
    (67, UNFORCED, 202),
    (67, FORCED, 202),
    (68, UNFORCED, 400),
    (68, AUTO, 202),
    (96, {**AUTO, "host": "h2"}, 202),
    (96, {**AUTO, "host": "nowhere"}, 400),
    (1, {**OLD, "host": "nowhere"}, 400),
    (96, {**AUTO, "host": "a b"}, 400),
    (96, {**AUTO, "host": 7}, 400),
    (96, {"block_migration": "auto"}, 400),
    (96, {"host": None}, 400),
    (96, {**AUTO, "block_migration": "perhaps"}, 400),
    (96, None, 400),
]


@pytest.mark.parametrize(("version", "value", "code"), FORMS)
async def test_migrate_live_in_every_form_of_its_microversions(
    tmp_path: Path, version: int, value: Any, code: int
) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await running(world, token)
        reply = await act(world, token, server_id, {"os-migrateLive": value}, f"2.{version}")
        assert reply.status_code == code, reply.text
        made = await sagas_of(world, server_id)
        if code == 202:
            assert reply.content == b""
            params = made[-1]["params"]
            assert params["destination"] == value["host"]
            auto = value["block_migration"] == "auto"
            assert params["block_migration"] == ("auto" if auto else value["block_migration"] == "True")
            assert params["user_id"]
            shown = (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)).json()["server"]
            assert shown["status"] == "MIGRATING"
        else:
            assert reason(reply)
            assert len(made) == 1


@pytest.mark.parametrize(("version", "code"), [(30, 400), (33, 400), (34, 202)])
async def test_a_failed_check_is_400_up_to_33_and_a_background_failure_after(
    tmp_path: Path, version: int, code: int
) -> None:
    async with in_world(tmp_path) as world:
        asked: list[str] = []

        async def fail(saga_id: str) -> tuple[bool, str]:
            asked.append(saga_id)
            return False, "h1 and h2 do not share their instance store."

        world.prechecks = fail
        token = await world.token()
        server_id = await running(world, token)
        reply = await act(world, token, server_id, {"os-migrateLive": AUTO}, f"2.{version}")
        assert reply.status_code == code
        saga = (await sagas_of(world, server_id))[-1]
        assert asked == ([saga["id"]] if version < 34 else [])
        if version < 34:
            assert "do not share" in reason(reply)


async def test_live_migration_is_for_administrators_and_once_at_a_time(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, admin = await world.token("alice", "red"), await world.token()
        server_id = await running(world, alice)
        assert (await act(world, alice, server_id, {"os-migrateLive": AUTO})).status_code == 403
        assert (await act(world, admin, server_id, {"os-migrateLive": AUTO})).status_code == 202
        assert (await act(world, admin, server_id, {"os-migrateLive": AUTO})).status_code == 409
        assert (await act(world, alice, server_id, {"os-stop": None})).status_code == 409
        assert (await world.ask("DELETE", f"{NOVA}/servers/{server_id}", token=alice)).status_code == 204
