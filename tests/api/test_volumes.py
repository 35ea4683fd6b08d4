"""Volumes: made, listed, changed, deleted; what is refused, and with which sentence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from droveway.domain.model import Flavor
from droveway.domain.volume.model import BackendSettings, Clone, StoragePool
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.volume import backends, volumes
from droveway.store.volume.attachments import NewAttachment
from tests.api.volume_world import FAST, GUARANTEES, VolumeWorld, volume_world
from tests.api.world import make_image, reason


async def test_a_volume_is_made_shown_and_deleted(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make(name="disk", description="mine", metadata={"a": "b"}, done=False)
        assert made["status"] == "creating" and made["volume_type"] == "__DEFAULT__" and made["volume_type_id"]
        assert await w.sagas_of(made["id"]) == [("create_volume", {"requested_backend": None})]
        await w.done(made["id"], status="available", host=FAST)
        shown = (await w.get(f"volumes/{made['id']}"))["volume"]
        assert shown["name"] == "disk" and shown["size"] == 1 and shown["metadata"] == {"a": "b"}
        assert "os-vol-host-attr:host" not in shown
        as_admin = (await w.get(f"volumes/{made['id']}", who="admin"))["volume"]
        assert as_admin["os-vol-host-attr:host"] == "h1@fast#fast" and as_admin["service_uuid"]
        assert (await w.ask("GET", f"volumes/{made['id']}", who="bob")).status_code == 404
        assert (await w.ask("DELETE", f"volumes/{made['id']}", who="rita")).status_code == 403
        assert (await w.ask("DELETE", f"volumes/{made['id']}")).status_code == 202
        assert (await w.get(f"volumes/{made['id']}"))["volume"]["status"] == "deleting"
        kind, params = (await w.sagas_of(made["id"]))[-1]
        assert kind == "delete_volume" and params == {"cascade": False, "force": False, "previous": "available"}


async def test_nulls_as_clients_send_them(tmp_path: Path) -> None:
    nothing = dict.fromkeys(
        (
            *("name", "description", "volume_type", "availability_zone", "snapshot_id", "source_volid", "imageRef"),
            *("metadata", "consistencygroup_id", "backup_id", "group_id", "multiattach"),
        )
    )
    async with volume_world(tmp_path) as w:
        body = {"volume": {"size": "2", **nothing}, "OS-SCH-HNT:scheduler_hints": None}
        reply = await w.ask("POST", "volumes", body)
        assert reply.status_code == 202, reply.text
        assert reply.json()["volume"]["size"] == 2 and reply.json()["volume"]["name"] is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"size": 0}, "is not between 1"),
        ({"size": -1}, "is not between 1"),
        ({"size": None}, "greater than zero"),
        ({"size": "big"}, "not a whole number"),
        ({"name": "🐧" * 256}, "256 characters long"),
        ({"volume_type": "none-such"}, "Volume type none-such could not be found"),
        ({"availability_zone": "mars"}, "Availability zone 'mars' is invalid; there is nova"),
        ({"imageRef": "none-such"}, "Invalid image identifier"),
        ({"multiattach": True}, "multiattach volumes are not offered here"),
        ({"colour": "red"}, "additional properties are not allowed"),
        ({"snapshot_id": "x"}, "is not a 'uuid'"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_sentence(tmp_path: Path, body: dict[str, object], says: str) -> None:
    async with volume_world(tmp_path) as w:
        reply = await w.ask("POST", "volumes", {"volume": {"size": 1, **body}})
        assert reply.status_code in (400, 404), reply.text
        assert says in reason(reply)


async def test_a_name_of_255_emoji_is_a_name(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        assert (await w.make(name="🐧" * 255))["name"] == "🐧" * 255


async def test_without_any_backend_it_says_so(tmp_path: Path) -> None:
    from tests.api.world import in_world

    async with in_world(tmp_path) as world:
        reply = await VolumeWorld(world).ask("POST", "volumes", {"volume": {"size": 1}})
        assert reply.status_code == 403 and "no host has a backend" in reason(reply)


# -- sources ----------------------------------------------------------------------------------------------------------
async def test_of_an_image(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        image_id = await make_image(w.world, await w.token("alice"), min_disk=3, os_distro="debian")
        reply = await w.ask("POST", "volumes", {"volume": {"size": 1, "imageRef": image_id}})
        assert reply.status_code == 400 and "minDisk size 3GB" in reason(reply)
        made = await w.make(size=3, imageRef="tiny")
        shown = (await w.get(f"volumes/{made['id']}"))["volume"]
        assert shown["bootable"] == "true" and shown["volume_image_metadata"]["os_distro"] == "debian"
        assert shown["volume_image_metadata"]["image_id"] == image_id


async def test_of_a_snapshot_and_of_a_volume(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        first = await w.make(size=2)
        snapshot = await w.snapshot(first["id"])
        for source in ({"snapshot_id": snapshot["id"]}, {"source_volid": first["id"]}):
            reply = await w.ask("POST", "volumes", {"volume": {"size": 1, **source}})
            assert reply.status_code == 400 and "cannot be smaller than" in reason(reply)
            assert (await w.make(size=None, **source))["size"] == 2
            reply = await w.ask("POST", "volumes", {"volume": {"size": 2, **source}}, who="bob")
            assert reply.status_code == 404


async def test_a_source_is_kept_while_it_is_copied(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        first = await w.make()
        snapshot = await w.snapshot(first["id"])
        copy = await w.make(snapshot_id=snapshot["id"], done=False)
        reply = await w.ask("DELETE", f"snapshots/{snapshot['id']}")
        assert reply.status_code == 409 and "a volume is made of it now" in reason(reply)
        await w.done(copy["id"], status="available")
        assert (await w.ask("DELETE", f"snapshots/{snapshot['id']}")).status_code == 202


# -- deletion ---------------------------------------------------------------------------------------------------------
async def test_a_volume_with_snapshots_goes_with_them_alone(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        await w.snapshot(made["id"])
        reply = await w.ask("DELETE", f"volumes/{made['id']}")
        assert reply.status_code == 400 and "must not have snapshots" in reason(reply)
        assert (await w.ask("DELETE", f"volumes/{made['id']}?cascade=True")).status_code == 202


async def test_a_snapshot_that_would_be_a_copy_is_not_taken_of_what_a_guest_writes(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        copies = msgspec.structs.replace(GUARANTEES, clone=Clone.COPY)
        pool = StoragePool(100.0, 90.0, copies, "dir", "", BackendSettings(volume_backend_name="fast"))
        await w.world.store.run(backends.report, FAST, pool, 2)
        made = await w.make()
        flavor = Flavor("1", "tiny", 1, 128, 1)
        held = (NewAttachment(made["id"]),)
        new = NewInstance(made["os-vol-tenant-attr:tenant_id"], "u", "web", "web", flavor, None, volumes=held)
        server = await w.world.store.run(instances.create, new)
        await w.world.store.run(lambda tx: volumes.set_(tx, made["id"], status="in-use"))
        body = {"snapshot": {"volume_id": made["id"]}}
        for state, code in (("stopped", 202), ("active", 400), ("paused", 400)):
            await w.world.store.run(lambda tx, state=state: instances.set_(tx, server, vm_state=state))
            reply = await w.ask("POST", "snapshots", body)
            assert reply.status_code == code, state
        assert "and server web is writing it: stop that server, or detach the volume" in reason(reply)


async def test_force_is_an_administrators(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        await w.done(made["id"], status="maintenance")
        assert (await w.ask("DELETE", f"volumes/{made['id']}?force=true")).status_code == 403
        reply = await w.ask("DELETE", f"volumes/{made['id']}")
        assert reply.status_code == 400 and "It is maintenance" in reason(reply)
        assert (await w.ask("DELETE", f"volumes/{made['id']}?force=true", who="admin")).status_code == 202


async def test_what_is_being_deleted_is_not_deleted_again(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        made = await w.make()
        snapshot = await w.snapshot(made["id"])
        gone = await w.snapshot(made["id"])
        assert (await w.ask("DELETE", f"snapshots/{gone['id']}")).status_code == 202
        force = {"os-force_delete": None}
        reply = await w.ask("POST", f"snapshots/{gone['id']}/action", force, who="admin")
        assert reply.status_code == 400 and "is being deleted already" in reason(reply)
        assert (await w.ask("DELETE", f"volumes/{made['id']}?cascade=true&force=true", who="admin")).status_code == 202
        for path, body in ((f"volumes/{made['id']}/action", force), (f"snapshots/{snapshot['id']}/action", force)):
            reply = await w.ask("POST", path, body, who="admin")
            assert reply.status_code == 400 and reason(reply).endswith("is being deleted already."), reply.text


# -- quotas -----------------------------------------------------------------------------------------------------------
async def test_sixteen_clients_make_no_more_than_the_quota(tmp_path: Path) -> None:
    async with volume_world(tmp_path, quotas=VolumeQuotas(volumes=5)) as w:
        await w.token("alice")
        replies = await asyncio.gather(*(w.ask("POST", "volumes", {"volume": {"size": 1}}) for _ in range(16)))
        made = [reply for reply in replies if reply.status_code == 202]
        assert len(made) == 5
        refused = next(reply for reply in replies if reply.status_code != 202)
        assert refused.status_code == 413
        assert reason(refused) == "Maximum number of volumes allowed (5) exceeded for quota 'volumes'."


async def test_gigabytes_count_what_grows_and_snapshots(tmp_path: Path) -> None:
    async with volume_world(tmp_path, quotas=VolumeQuotas(gigabytes=5)) as w:
        made = await w.make(size=2)
        assert (await w.ask("POST", f"volumes/{made['id']}/action", {"os-extend": {"new_size": 4}})).status_code == 202
        reply = await w.ask("POST", "volumes", {"volume": {"size": 2}})
        assert reply.status_code == 413 and "quota is 5G and 4G has been consumed" in reason(reply)
        await w.done(made["id"], status="available", size_gb=4, growing_to_gb=None)
        reply = await w.ask("POST", "snapshots", {"snapshot": {"volume_id": made["id"]}})
        assert reply.status_code == 413 and "Requested 4G" in reason(reply)


async def test_a_type_has_a_quota_of_its_own(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        reply = await w.ask("POST", "types", {"volume_type": {"name": "fast"}}, who="admin")
        assert reply.status_code == 200, reply.text
        await w.make()
        red = await w.project()
        changed = await w.ask("PUT", f"os-quota-sets/{red}", {"quota_set": {"volumes_fast": 1}}, who="admin")
        assert changed.json()["quota_set"]["volumes_fast"] == 1
        await w.make(volume_type="fast")
        reply = await w.ask("POST", "volumes", {"volume": {"size": 1, "volume_type": "fast"}})
        assert reply.status_code == 413 and "quota 'volumes_fast'" in reason(reply)
        usage = (await w.get(f"os-quota-sets/{red}?usage=True"))["quota_set"]
        assert usage["volumes_fast"] == {"limit": 1, "in_use": 1, "reserved": 0} and usage["volumes"]["in_use"] == 2
        low = await w.ask("PUT", f"os-quota-sets/{red}", {"quota_set": {"volumes": 1}}, who="admin")
        assert low.status_code == 400 and "Current usage is 2" in reason(low)


# -- the path ---------------------------------------------------------------------------------------------------------
async def test_a_path_may_name_the_project_of_the_token_and_no_other(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        await w.make()
        red = await w.project()
        assert len((await w.get(f"{red}/volumes"))["volumes"]) == 1
        reply = await w.ask("GET", "0123456789abcdef0123456789abcdef/volumes")
        assert reply.status_code == 400 and reason(reply).startswith("Malformed request url")
