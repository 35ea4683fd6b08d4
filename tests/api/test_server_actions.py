"""Actions that came with images, shelving and deletion: what each writes, and what is refused with nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.store.compute import guest_data, instances
from droveway.store.engine.transaction import Tx
from tests.api.test_actions import act, running
from tests.api.world import IMG, NOVA, World, booted, in_world, make_image, reason, sagas_of

GIB = 1024**3


async def in_state(world: World, server_id: str, vm_state: str, **more: Any) -> None:
    await world.store.run(lambda tx: instances.set_(tx, server_id, vm_state=vm_state, **more))


async def test_an_image_of_a_server_is_there_at_once_and_none_when_it_is_refused(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await running(world, token)
        body = {"createImage": {"name": "snap", "metadata": {"colour": "red"}}}
        reply = await act(world, token, server_id, body, "2.45")
        assert reply.status_code == 202 and set(reply.json()) == {"image_id"}
        image = (await world.ask("GET", f"{IMG}/images/{reply.json()['image_id']}", token=token)).json()
        assert (image["status"], image["colour"], image["instance_uuid"]) == ("queued", "red", server_id)
        assert image["visibility"] == "private" and image["image_type"] == "snapshot"
        shown = await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)
        assert shown.json()["server"]["OS-EXT-STS:task_state"] == "image_snapshot"
        assert (await act(world, token, server_id, body)).status_code == 409
        found = await world.ask("GET", f"{IMG}/images?name=snap", token=token)
        assert len(found.json()["images"]) == 1, "what was refused has left no image"


@pytest.mark.parametrize("rotation", [0, 2])
async def test_before_2_45_a_header_says_where_the_backup_is(tmp_path: Path, rotation: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await running(world, token)
        body = {"createBackup": {"name": "b", "backup_type": "daily", "rotation": rotation}}
        reply = await act(world, token, server_id, body, "2.44")
        assert reply.status_code == 202 and reply.content == b"" and ("location" in reply.headers) == (rotation > 0)


async def test_rebuild_takes_what_fits_and_refuses_what_does_not(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await running(world, token)
        large = await make_image(world, token, "large", min_disk=500)
        hungry = await make_image(world, token, "hungry", min_ram=500_000)
        elsewhere = await make_image(world, token, "elsewhere", hw_firmware_type="uefi")
        for image_id, says in (
            (large, "Flavor's disk is too small"),
            (hungry, "Flavor's memory is too small"),
            (elsewhere, "asks for another host"),
            ("5eed0000-0000-4000-8000-0000000000ff", "Can not find requested image"),
        ):
            reply = await act(world, token, server_id, {"rebuild": {"imageRef": image_id}})
            assert reply.status_code == 400 and says in reason(reply), reply.text
        assert len(await sagas_of(world, server_id)) == 1
        image_id = await make_image(world, token, "new")
        body = {"rebuild": {"imageRef": image_id, "name": "again", "metadata": {"a": "b"}, "description": None}}
        reply = await act(world, token, server_id, body)
        assert reply.status_code == 202, reply.text
        server = reply.json()["server"]
        assert server["status"] == "REBUILD" and "adminPass" not in server and server["user_data"] is None
        params = (await sagas_of(world, server_id))[-1]["params"]
        assert params["name"] == "again" and params["metadata"] == {"a": "b"} and params["description"] is None
        assert "user_data" not in params and "key" not in params


async def test_a_password_is_shown_where_the_guest_can_read_it_and_nowhere_else(tmp_path: Path) -> None:
    """On its config drive, as Nova has it; the hosts that serve metadata are not told it, and no saga keeps it."""
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        image_id = await make_image(world, token)
        for has_drive in (False, True):
            wish = {"adminPass": "first wish", "config_drive": has_drive, "networks": "none"}
            server = {"name": "g", "imageRef": image_id, "flavorRef": "tiny", **wish}
            made = await world.ask("POST", f"{NOVA}/servers", token=token, version="2.37", json={"server": server})
            assert made.json()["server"].get("adminPass") == ("first wish" if has_drive else None), made.text
            server_id = made.json()["server"]["id"]
            await booted(world, server_id)

            def drive(tx: Tx, of: str = server_id) -> bytes:
                return b"".join(one.data for one in guest_data.for_drive(tx, instances.get(tx, of)))

            assert (b'"admin_pass":"first wish"' in await world.store.read(drive)) is has_drive
            body = {"rebuild": {"imageRef": image_id, "adminPass": "second wish"}}
            rebuilt = await act(world, token, server_id, body)
            assert rebuilt.json()["server"].get("adminPass") == ("second wish" if has_drive else None)
            assert (b'"admin_pass":"second wish"' in await world.store.read(drive)) is has_drive
            assert b"first wish" not in await world.store.read(drive)
            assert "wish" not in repr(await sagas_of(world, server_id))
            facts = await world.store.read(lambda tx, of=server_id: guest_data.facts(tx, instances.get(tx, of)))
            assert "wish" not in repr(facts)
        rescued_id = await running(world, token)
        reply = await act(world, token, rescued_id, {"rescue": {"adminPass": "a wish"}})
        assert (reply.status_code, reply.json()) == (200, {})


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        ("rescued", "rescue"),
        ("active", "unrescue"),
        ("active", "unpause"),
        ("active", "resume"),
        ("stopped", "pause"),
        ("active", "shelveOffload"),
        ("active", "unshelve"),
        ("active", "restore"),
        ("rescued", "shelve"),
    ],
)
async def test_in_the_wrong_state_it_is_409_as_nova_says_it(tmp_path: Path, state: str, refused: str) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await running(world, token)
        await in_state(world, server_id, state)
        reply = await act(world, token, server_id, {refused: None})
        assert reply.status_code == 409, reply.text
        assert f"Cannot '{refused}' instance g1 while it is in vm_state {state}" in reason(reply)


@pytest.mark.parametrize("action", ["evacuate"])
async def test_what_is_not_built_says_so(tmp_path: Path, action: str) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await running(world, token)
        reply = await act(world, token, server_id, {action: {} if action == "evacuate" else None})
        assert reply.status_code == 409 and f"Cannot '{action}' instance" in reason(reply)


async def test_who_may_do_what(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        member, reader = await world.token("alice", "red"), await world.token("rita", "red")
        server_id = await running(world, member)
        for action in ("pause", "suspend", "shelve", "rescue", "forceDelete", "trigger_crash_dump"):
            assert (await act(world, reader, server_id, {action: None})).status_code == 403, action
        for body in ({"os-resetState": {"state": "active"}}, {"shelveOffload": None}, {"migrate": None}):
            assert (await act(world, member, server_id, body)).status_code == 403, body
        assert (await act(world, member, server_id, {"trigger_crash_dump": None}, "2.16")).status_code == 400
        assert (await act(world, member, server_id, {"trigger_crash_dump": None}, "2.17")).status_code == 202


async def test_unshelve_names_zone_and_host_by_its_microversion(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, member = await world.token(), await world.token("alice", "red")
        server_id = await running(world, member)
        await in_state(world, server_id, "shelved_offloaded", host=None)
        for token, version, given, status in (
            (member, "2.77", {}, 400),
            (member, "2.77", {"host": "h1"}, 400),
            (member, "2.91", {"host": "h1"}, 403),
            (admin, "2.91", {"host": "nowhere"}, 400),
            (member, "2.77", {"availability_zone": "mars"}, 400),
            (admin, "2.91", {"host": "h2", "availability_zone": None}, 202),
        ):
            reply = await act(world, token, server_id, {"unshelve": given}, version)
            assert reply.status_code == status, (given, reply.text)
        saga = (await sagas_of(world, server_id))[-1]
        assert saga["kind"] == "unshelve" and saga["params"]["requested_host"] == "h2"


async def test_with_an_interval_a_deletion_can_be_taken_back(tmp_path: Path) -> None:
    async with in_world(tmp_path, reclaim_s=60.0) as world:
        token = await world.token("alice", "red")
        server_id = await running(world, token)
        path = f"{NOVA}/servers/{server_id}"
        assert (await world.ask("DELETE", path, token=token)).status_code == 204
        assert (await sagas_of(world, server_id))[-1]["kind"] == "soft_delete"
        await in_state(world, server_id, "soft-delete", task_state=None, soft_deleted_at_us=1)
        assert (await world.ask("GET", path, token=token)).json()["server"]["status"] == "SOFT_DELETED"
        assert (await world.ask("GET", f"{NOVA}/servers", token=token)).json()["servers"] == []


async def test_diagnostics_in_both_forms(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, member = await world.token(), await world.token("alice", "red")
        server_id = await running(world, member)
        path = f"{NOVA}/servers/{server_id}/diagnostics"
        assert (await world.ask("GET", path, token=member)).status_code == 403
        old = (await world.ask("GET", path, token=admin, version="2.47")).json()
        assert (old["cpu0_time"], old["vda_read"], old["tap1_rx"], old["memory"]) == (5, 9, 7, 128 * 1024)
        new = (await world.ask("GET", path, token=admin, version="2.48")).json()
        assert new["cpu_details"] == [{"id": 0, "time": 5, "utilisation": None}] and new["num_disks"] == 1
        assert new["memory_details"] == {"maximum": 128, "used": 64} and new["nic_details"][0]["rx_octets"] == 7


async def test_the_password_of_a_guest_is_shown_and_forgotten(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        member, reader = await world.token("alice", "red"), await world.token("rita", "red")
        server_id = await running(world, member)
        path = f"{NOVA}/servers/{server_id}/os-server-password"
        assert (await world.ask("GET", path, token=reader)).json() == {"password": ""}
        await world.store.run(lambda tx: instances.set_(tx, server_id, guest_password="c2VjcmV0"))
        assert (await world.ask("GET", path, token=reader)).json() == {"password": "c2VjcmV0"}
        assert (await world.ask("DELETE", path, token=reader)).status_code == 403
        assert (await world.ask("DELETE", path, token=member)).status_code == 204
        assert (await world.ask("GET", path, token=member)).json() == {"password": ""}
