"""What is done to volumes and snapshots beyond making and deleting them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.domain.volume.model import AttachmentStatus, StoredVolume
from droveway.store.volume import attachments, backends, volumes
from droveway.store.volume.rows import AttachmentRow
from tests.api.volume_world import FAST, SLOW, VolumeWorld, add_backend, volume_world, without_snapshots
from tests.api.world import booted, make_image, make_server, reason


async def act(w: VolumeWorld, volume_id: str, action: dict[str, Any], **more: Any) -> Any:
    return await w.ask("POST", f"volumes/{volume_id}/action", action, **more)


async def status(w: VolumeWorld, volume_id: str) -> str:
    found: str = (await w.get(f"volumes/{volume_id}", who="admin"))["volume"]["status"]
    return found


async def hold(w: VolumeWorld, volume_id: str, instance_id: str | None, host: str | None = None) -> str:
    """What an attaching saga would have written; the attachment's id."""
    row = await w.world.store.read(volumes.get, volume_id)
    attachment = AttachmentRow(
        id=w.world.api.names.uuid(),
        volume_id=volume_id,
        project_id=row["project_id"],
        instance_id=instance_id,
        host=host,
        to_host=None,
        status=AttachmentStatus.ATTACHED.value,
        read_only=False,
        device="vdb",
        source={"type": "simulated", "backend": "fast", "volume_id": volume_id} if host else None,
        connector=None,
        bus="virtio",
        boot_index=-1,
        place=0,
        delete_on_termination=False,
        tag=None,
        attached_at_us=1_000_000,
        created_at_us=1_000_000,
    )
    await w.world.store.run(attachments.insert_row, attachment)
    await w.done(volume_id, status="in-use", host=FAST)
    return attachment["id"]


async def server(w: VolumeWorld) -> str:
    token = await w.token("alice")
    server_id = await make_server(w.world, token, await make_image(w.world, token))
    await booted(w.world, server_id)
    return server_id


# -- size -------------------------------------------------------------------------------------------------------------
async def test_a_volume_grows_and_never_shrinks(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make(size=3)
        for size in (3, 2):
            reply = await act(w, made["id"], {"os-extend": {"new_size": size}})
            assert reply.status_code == 400
            assert f"must be greater than current size. (current: 3, extended: {size})" in reason(reply)
        assert (await act(w, made["id"], {"os-extend": {"new_size": "5"}})).status_code == 202
        assert await status(w, made["id"]) == "extending"
        assert (await w.sagas_of(made["id"]))[-1] == ("extend_volume", {"size_gb": 5, "previous": "available"})
        reply = await act(w, made["id"], {"os-extend": {"new_size": 6}})
        assert reply.status_code == 400 and "currently extending" in reason(reply)


async def test_in_use_it_grows_since_42_where_its_storage_can(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        await hold(w, made["id"], await server(w), "h1")
        reply = await act(w, made["id"], {"os-extend": {"new_size": 2}}, version=41)
        assert reply.status_code == 400 and "from microversion 3.42 on" in reason(reply)
        await w.world.store.run(add_backend, "h1@plain", without_snapshots())
        await w.done(made["id"], host="h1@plain")
        reply = await act(w, made["id"], {"os-extend": {"new_size": 2}})
        assert reply.status_code == 400 and "does not make a volume larger while it is in use" in reason(reply)
        await w.done(made["id"], host=FAST)
        assert (await act(w, made["id"], {"os-extend": {"new_size": 2}})).status_code == 202


# -- snapshots and reverting ------------------------------------------------------------------------------------------
async def test_a_snapshot_holds_its_volume(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        snapshot = await w.snapshot(made["id"], name="s", metadata={"a": "b"}, done=False)
        assert snapshot["status"] == "creating" and snapshot["size"] == 1
        reply = await act(w, made["id"], {"os-extend": {"new_size": 2}})
        assert reply.status_code == 400 and "its create_snapshot is under way" in reason(reply)


async def test_in_use_a_snapshot_is_taken_unless_it_is_told_not_to(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        await hold(w, made["id"], await server(w), "h1")
        unforced = {"snapshot": {"volume_id": made["id"], "force": False}}
        reply = await w.ask("POST", "snapshots", unforced, version=65)
        assert reply.status_code == 400 and "status must be available, but current status is: in-use" in reason(reply)
        reply = await w.ask("POST", "snapshots", unforced, version=66)
        assert reply.status_code == 400 and "'force' option is invalid" in reason(reply)
        for version, more in ((0, {}), (0, {"force": True}), (65, {}), (66, {})):
            body = {"snapshot": {"volume_id": made["id"], **more}}
            assert (await w.ask("POST", "snapshots", body, version=version)).status_code == 202


async def test_storage_without_snapshots_says_so(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        await w.world.store.run(add_backend, "h1@plain", without_snapshots())
        made = await w.make()
        await w.done(made["id"], host="h1@plain")
        reply = await w.ask("POST", "snapshots", {"snapshot": {"volume_id": made["id"]}})
        assert reply.status_code == 400 and "takes no snapshots" in reason(reply)


async def test_reverting_goes_to_the_latest_snapshot_alone(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        reply = await act(w, made["id"], {"revert": {"snapshot_id": made["id"]}})
        assert reply.status_code == 400 and "doesn't have any snapshots" in reason(reply)
        old = await w.snapshot(made["id"])
        new = await w.snapshot(made["id"])
        reply = await act(w, made["id"], {"revert": {"snapshot_id": old["id"]}})
        assert reply.status_code == 400 and "not the latest one" in reason(reply)
        assert (await act(w, made["id"], {"revert": {"snapshot_id": new["id"]}}, version=39)).status_code == 400
        assert (await act(w, made["id"], {"revert": {"snapshot_id": new["id"]}})).status_code == 202
        assert await status(w, made["id"]) == "reverting"


# -- who holds it -----------------------------------------------------------------------------------------------------
async def test_no_word_of_an_administrator_frees_what_a_guest_holds(tmp_path: Path) -> None:
    """The kind of CVE-2023-2088."""
    async with volume_world(tmp_path) as w:
        made = await w.make()
        attachment = await hold(w, made["id"], await server(w), "h1")
        refused = (
            ("POST", f"volumes/{made['id']}/action", {"os-reset_status": {"status": "available"}}, "is held by server"),
            ("POST", f"volumes/{made['id']}/action", {"os-reset_status": {"attach_status": "detached"}}, "is held by"),
            ("POST", f"volumes/{made['id']}/action", {"os-force_detach": {}}, "using the Compute API"),
            ("POST", f"volumes/{made['id']}/action", {"os-detach": {}}, "using the Compute API"),
            ("POST", f"volumes/{made['id']}/action", {"os-force_delete": {}}, "still attached"),
            ("POST", f"volumes/{made['id']}/action", {"os-unmanage": None}, "still attached"),
            ("POST", f"volumes/{made['id']}/action", {"os-reserve": None}, "still attached"),
            ("DELETE", f"attachments/{attachment}", None, "using the Compute API"),
            ("DELETE", f"volumes/{made['id']}?force=true", None, "still attached"),
        )
        for method, path, body, says in refused:
            reply = await w.ask(method, path, body, who="admin")
            assert reply.status_code in (400, 409) and says in reason(reply), (body, reply.text)
        assert await status(w, made["id"]) == "in-use"
        row = await w.world.store.read(attachments.of_volume, made["id"])
        assert row is not None and row["host"] == "h1" and row["source"] is not None


async def test_a_host_that_is_admitted_holds_it_when_its_server_is_gone(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        attachment = await hold(w, made["id"], None, "h1")
        reply = await act(w, made["id"], {"os-force_detach": {"attachment_id": attachment}}, who="admin")
        assert reply.status_code == 409 and "held by host h1" in reason(reply)
        reply = await act(w, made["id"], {"os-reset_status": {"status": "error"}}, who="admin")
        assert reply.status_code == 400 and "is held by host h1" in reason(reply)


async def test_a_reservation_is_made_and_ended(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        body = {"attachment": {"volume_uuid": made["id"], "mode": "ro"}}
        reply = await w.ask("POST", "attachments", body)
        assert reply.status_code == 200, reply.text
        attachment = reply.json()["attachment"]
        assert attachment["status"] == "reserved" and attachment["attach_mode"] == "ro"
        assert attachment["connection_info"] == {} and await status(w, made["id"]) == "reserved"
        reply = await w.ask("POST", "attachments", body)
        assert reply.status_code == 400 and "still attached" in reason(reply)
        reply = await w.ask("DELETE", f"volumes/{made['id']}")
        assert reply.status_code == 400 and "still attached" in reason(reply)
        assert (await w.get("attachments/detail?volume_id=" + made["id"]))["attachments"] == [attachment]
        assert (await w.get("attachments", who="bob"))["attachments"] == []
        assert (await w.ask("DELETE", f"attachments/{attachment['id']}", who="bob")).status_code == 404
        assert (await w.ask("DELETE", f"attachments/{attachment['id']}")).json() == {"attachments": []}
        assert await status(w, made["id"]) == "available"


async def test_a_server_of_ours_is_given_a_volume_by_the_compute_api_alone(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made, server_id = await w.make(), await server(w)
        body = {"attachment": {"volume_uuid": made["id"], "instance_uuid": server_id}}
        reply = await w.ask("POST", "attachments", body)
        assert reply.status_code == 409 and "using the Compute API" in reason(reply)


async def test_tenants_never_see_how_a_volume_is_opened(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        attachment = await hold(w, made["id"], await server(w), "h1")
        mine = (await w.get(f"attachments/{attachment}"))["attachment"]
        assert mine["connection_info"] == {} and mine["status"] == "attached"
        theirs = (await w.get(f"attachments/{attachment}", who="admin"))["attachment"]
        assert theirs["connection_info"]["driver_volume_type"] == "simulated"
        shown = (await w.get(f"volumes/{made['id']}"))["volume"]["attachments"]
        assert shown[0]["device"] == "/dev/vdb" and shown[0]["host_name"] is None
        shown = (await w.get(f"volumes/{made['id']}", who="admin"))["volume"]["attachments"]
        assert shown[0]["host_name"] == "h1"


async def test_reset_status_says_what_it_is_told_of_a_volume_that_is_free(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        assert (await act(w, made["id"], {"os-reset_status": {"status": "error"}})).status_code == 403
        assert (await act(w, made["id"], {"os-reset_status": {"status": "error"}}, who="admin")).status_code == 202
        assert await status(w, made["id"]) == "error"
        reply = await act(w, made["id"], {"os-reset_status": {"status": "in-use"}}, who="admin")
        assert reply.status_code == 400 and "is attached to nothing" in reason(reply)
        busy = await w.make(done=False)
        reply = await act(w, busy["id"], {"os-reset_status": {"status": "available"}}, who="admin")
        assert reply.status_code == 400 and "its create_volume is under way" in reason(reply)


# -- retype, migrate, flags -------------------------------------------------------------------------------------------
async def test_retype_and_migrate(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        kind = (await w.ask("POST", "types", {"volume_type": {"name": "fast"}}, who="admin")).json()["volume_type"]
        made = await w.make()
        reply = await act(w, made["id"], {"os-retype": {"new_type": "none-such"}})
        assert reply.status_code == 400 and "Invalid volume_type passed: none-such" in reason(reply)
        reply = await act(w, made["id"], {"os-retype": {"new_type": "__DEFAULT__"}})
        assert reply.status_code == 400 and "has to be different" in reason(reply)
        assert (await act(w, made["id"], {"os-retype": {"new_type": "fast"}})).status_code == 202
        assert (await w.sagas_of(made["id"]))[-1] == (
            "retype_volume",
            {"volume_type_id": kind["id"], "backend": None, "policy": "never", "previous": "available"},
        )
        await w.done(made["id"], status="available", volume_type_id=kind["id"])
        for host, says in (("h9@x", "No available service named 'h9@x'"), (FAST, "different than the current one")):
            reply = await act(w, made["id"], {"os-migrate_volume": {"host": host}}, who="admin")
            assert reply.status_code == 400 and says in reason(reply)
        assert (
            await act(w, made["id"], {"os-migrate_volume": {"host": f"{SLOW}#slow"}}, who="admin")
        ).status_code == 202
        assert (await w.sagas_of(made["id"]))[-1][1]["backend"] == SLOW


async def test_flags_and_image_metadata(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        assert (await act(w, made["id"], {"os-update_readonly_flag": {"readonly": True}})).status_code == 202
        assert (await act(w, made["id"], {"os-set_bootable": {"bootable": "true"}})).status_code == 200
        reply = await act(w, made["id"], {"os-set_image_metadata": {"metadata": {"os_distro": "debian"}}})
        assert reply.json() == {"metadata": {"os_distro": "debian"}}
        shown = (await w.get(f"volumes/{made['id']}"))["volume"]
        assert shown["metadata"] == {"readonly": "True"} and shown["bootable"] == "true"
        assert shown["volume_image_metadata"] == {"os_distro": "debian"}
        reply = await act(w, made["id"], {"os-unset_image_metadata": {"key": "x"}})
        assert reply.status_code == 404
        assert (await act(w, made["id"], {"os-unset_image_metadata": {"key": "os_distro"}})).status_code == 200


async def test_uploading_makes_an_image_at_once(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        reply = await act(w, made["id"], {"os-volume_upload_image": {"image_name": "i", "disk_format": "vmdk"}})
        assert reply.status_code == 400 and "raw or qcow2" in reason(reply)
        body = {"os-volume_upload_image": {"image_name": "i", "disk_format": "qcow2", "visibility": "public"}}
        assert (await act(w, made["id"], body)).status_code == 403
        body["os-volume_upload_image"]["visibility"] = "private"
        reply = await act(w, made["id"], body)
        assert reply.status_code == 202
        shown = reply.json()["os-volume_upload_image"]
        assert shown["status"] == "uploading" and shown["image_name"] == "i"
        image = await w.world.ask("GET", f"/image/v2/images/{shown['image_id']}", token=await w.token("alice"))
        assert image.json()["status"] == "queued" and image.json()["disk_format"] == "qcow2"
        reply = await w.ask("PUT", f"volumes/{made['id']}", {"volume": {"metadata": {"a": "b"}}})
        assert reply.status_code == 400 and "not allowed for volumes in uploading status" in reason(reply)


async def test_unmanaging_leaves_what_lies_on_the_backend(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        assert (await act(w, made["id"], {"os-unmanage": None}, who="admin")).status_code == 202
        assert (await w.ask("GET", f"volumes/{made['id']}")).status_code == 404
        assert [kind for kind, _ in await w.sagas_of(made["id"])] == ["create_volume"]
        assert await w.world.store.read(backends.count_on, FAST) == 0


@pytest.mark.parametrize("name", ["os-attach", "os-initialize_connection"])
async def test_there_is_no_third_way_to_attach(tmp_path: Path, name: str) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        given = {"mountpoint": "/dev/vdb", "host_name": "h"} if name == "os-attach" else {"connector": {"host": "h1"}}
        reply = await act(w, made["id"], {name: given}, who="admin")
        assert reply.status_code == 400 and "there is no third way" in reason(reply)


# -- what lies on a backend without a row -----------------------------------------------------------------------------
async def test_what_was_unmanaged_is_managed_again_under_its_id(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        stored = [
            StoredVolume(made["id"], 3 << 30, snapshots=(other := w.world.api.names.uuid(),)),
            StoredVolume(held := w.world.api.names.uuid(), 1 << 30, holders=("h1",)),
        ]

        async def lies_there(backend: str) -> list[StoredVolume]:
            return stored if backend == FAST else []

        w.world.control.list_stored_volumes = lies_there  # type: ignore[method-assign]
        assert (await act(w, made["id"], {"os-unmanage": None}, who="admin")).status_code == 202
        found = (await w.get(f"manageable_volumes/detail?host={FAST}", who="admin"))["manageable-volumes"]
        assert {one["reference"]["source-name"]: one["reason_not_safe"] for one in found} == {
            f"volume-{made['id']}": None,
            f"volume-{held}": "open at h1",
        }
        reply = await w.ask("GET", "manageable_volumes?host=h9@x", who="admin")
        assert reply.status_code == 400 and "No available service named 'h9@x'" in reason(reply)
        for ref, says in (("volume-x", "'source-name': 'volume-ID'"), (f"volume-{held}", "is open at h1")):
            body = {"volume": {"host": FAST, "ref": {"source-name": ref}}}
            reply = await w.ask("POST", "manageable_volumes", body, who="admin")
            assert reply.status_code == 400 and says in reason(reply)
        body = {
            "volume": {"host": FAST, "ref": {"source-name": f"volume-{made['id']}"}, "name": "again", "bootable": None}
        }
        reply = await w.ask("POST", "os-volume-manage", body, who="admin")
        assert reply.status_code == 202, reply.text
        shown = reply.json()["volume"]
        assert (shown["id"], shown["size"], shown["name"], shown["status"]) == (made["id"], 3, "again", "available")
        assert (await w.ask("POST", "manageable_volumes", body, who="admin")).status_code == 409
        listed = (await w.get(f"manageable_snapshots?host={FAST}", who="admin"))["manageable-snapshots"]
        assert [one["reference"]["source-name"] for one in listed] == [f"snapshot-{other}"]
        body = {"snapshot": {"volume_id": made["id"], "ref": {"source-name": f"snapshot-{other}"}, "name": "s"}}
        reply = await w.ask("POST", "manageable_snapshots", body, who="admin")
        assert reply.status_code == 202 and reply.json()["snapshot"]["id"] == other


# -- a service that opens volumes by itself ---------------------------------------------------------------------------
async def test_a_service_gives_a_connector_and_a_tenant_does_not(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        body = {"attachment": {"volume_uuid": made["id"], "instance_uuid": w.world.api.names.uuid()}}
        attachment = (await w.ask("POST", "attachments", body)).json()["attachment"]
        assert attachment["instance"] == body["attachment"]["instance_uuid"]
        here, connect = f"attachments/{attachment['id']}", {"attachment": {"connector": {"host": "h2"}}}
        assert (await w.ask("PUT", here, connect)).status_code == 403
        reply = await w.ask("PUT", here, {"attachment": {"connector": {"host": "h9"}}}, who="admin")
        assert reply.status_code == 400 and "no host of this cloud" in reason(reply)

        async def admitted(saga_id: str) -> tuple[bool, str]:
            await w.end_sagas(made["id"])
            source = {"type": "simulated", "backend": "fast", "volume_id": made["id"]}
            await w.world.store.run(attachments.set_, attachment["id"], host="h2", source=source, status="attaching")
            return True, ""

        w.world.prechecks = admitted
        reply = await w.ask("PUT", here, connect, who="admin")
        assert reply.status_code == 200, reply.text
        assert reply.json()["attachment"]["connection_info"]["data"] == {"backend": "fast", "volume_id": made["id"]}
        assert (await w.sagas_of(made["id"]))[-1][0] == "admit_connector"
        reply = await w.ask("PUT", here, {"attachment": {"connector": {"host": "h1"}}}, who="admin")
        assert reply.status_code == 409 and "duplicate connectors" in reason(reply)
        assert (await w.ask("POST", f"{here}/action", {"os-complete": None}, who="admin")).status_code == 204
        assert await status(w, made["id"]) == "in-use"
        assert (await w.ask("DELETE", here)).status_code == 409
        assert (await w.ask("DELETE", here, who="admin")).status_code == 200
        assert (await w.sagas_of(made["id"]))[-1][0] == "free_volume" and await status(w, made["id"]) == "detaching"


async def test_a_connector_that_is_refused_leaves_the_reservation(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()

        async def refused(saga_id: str) -> tuple[bool, str]:
            return False, "the pool is down"

        w.world.prechecks = refused
        body = {"attachment": {"volume_uuid": made["id"], "connector": {"host": "h2"}}}
        reply = await w.ask("POST", "attachments", body, who="admin")
        assert reply.status_code == 409 and "the pool is down" in reason(reply)
        assert await w.world.store.read(attachments.of_volume, made["id"]) is not None
