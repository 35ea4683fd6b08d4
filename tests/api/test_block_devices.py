"""block_device_mapping and block_device_mapping_v2: what a server's disks become, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select

from droveway.domain.model import SagaKind, SagaStatus, of_instance
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.schema import saga_subjects
from droveway.store.schema import sagas as saga_table
from droveway.store.volume import attachments, snapshots, types, volumes
from droveway.store.volume.rows import AttachmentRow
from droveway.store.work import sagas, subjects
from tests.api.test_server_volumes import UNKNOWN, new_volume
from tests.api.world import NOVA, World, booted, in_world, make_image, reason
from tests.control.test_begun_from_volumes import new_snapshots

GIB = 1 << 30
ROOT = {"boot_index": 0, "destination_type": "volume"}


class Scene:
    def __init__(self, world: World, token: str, project: str, image: str) -> None:
        self.world, self.token, self.project, self.image = world, token, project, image

    async def post(self, devices: Any, version: int = 96, image: str | None = None, **more: Any) -> httpx.Response:
        server = {"name": "g", "flavorRef": "tiny", "networks": "none", "block_device_mapping_v2": devices, **more}
        server |= {} if image is None else {"imageRef": image}
        if version < 37:
            server.pop("networks")
        path = f"{NOVA}/servers"
        return await self.world.ask("POST", path, token=self.token, version=f"2.{version}", json={"server": server})

    async def made(self, devices: Any, version: int = 96, image: str | None = None, **more: Any) -> str:
        reply = await self.post(devices, version, image, **more)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["server"]["id"])

    async def volume(self, **more: Any) -> str:
        return await self.world.store.run(new_volume, self.project, **more)

    async def attached(self, server: str) -> list[AttachmentRow]:
        return await self.world.store.read(attachments.of_instance, server)


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with in_world(directory) as world:
        admin, token = await world.token(), await world.token("alice", "red")
        await world.store.run(types.seed)
        image = await make_image(world, admin, visibility="public", hw_disk_bus="virtio")
        project = (await world.store.read(images.get, image, None))["project_id"]
        people = await world.ask("GET", "/identity/v3/auth/projects", token=token)
        project = people.json()["projects"][0]["id"]
        yield Scene(world, token, project, image)


async def test_a_server_begins_from_a_volume_that_is_there(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        root, more = await s.volume(image_metadata={"hw_disk_bus": "scsi"}), await s.volume()
        listed = [
            {"uuid": more, "source_type": "volume", "destination_type": "volume", "tag": "more", "boot_index": None},
            {"uuid": root, "source_type": "volume", "delete_on_termination": True, **ROOT},
        ]
        server = await s.made(listed)
        row = await s.world.store.read(instances.get, server)
        assert (row["image_id"], row["disk_gb"], row["image_properties"]) == (None, 0, {"hw_disk_bus": "scsi"})
        first, second = await s.attached(server)
        assert (first["volume_id"], first["device"], first["boot_index"]) == (root, "sda", 0)
        assert (second["volume_id"], second["device"], second["tag"]) == (more, "sdb", "more")
        assert (first["delete_on_termination"], second["delete_on_termination"]) == (True, False)
        for one in (root, more):
            assert (await s.world.store.read(volumes.get, one))["status"] == "reserved"
        boot = await s.world.store.read(sagas.active_of, of_instance(server))
        assert boot is not None and boot["kind"] == SagaKind.BOOT
        held = await s.world.store.read(subjects.needs_of, boot["id"])
        assert {one.id for one in held} == {root, more}, "nothing is done to them meanwhile"
        shown = (await s.world.ask("GET", f"{NOVA}/servers/{server}", token=s.token)).json()["server"]
        assert shown["image"] == ""


async def test_what_is_made_for_a_server_is_made_before_it_boots(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        listed = [
            {"uuid": s.image, "source_type": "image", "volume_size": 3, "delete_on_termination": True, **ROOT},
            {"source_type": "blank", "destination_type": "volume", "volume_size": 2, "volume_type": "__DEFAULT__"},
        ]
        server = await s.made(listed)
        root, blank = await s.attached(server)
        rows = [await s.world.store.read(volumes.get, one["volume_id"]) for one in (root, blank)]
        assert [(one["size_gb"], one["image_id"], one["status"], one["bootable"]) for one in rows] == [
            (3, s.image, "creating", True),
            (2, None, "creating", False),
        ]

        def read(tx: Tx) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for row in tx.execute(select(saga_table.c.kind, saga_table.c.status)):
                found.setdefault(row.kind, []).append(row.status)
            return found

        told = await s.world.store.read(read)
        assert told[SagaKind.CREATE_VOLUME] == [SagaStatus.FORWARD] * 2
        assert told[SagaKind.BOOT] == [SagaStatus.QUEUED], "it stands behind them"
        await s.world.ask("DELETE", f"{NOVA}/servers/{server}", token=s.token)

        def cancelled(tx: Tx) -> str | None:
            query = select(saga_table.c.cancel).where(saga_table.c.kind == SagaKind.BOOT.value)
            return tx.execute(query).scalar()

        assert await s.world.store.read(cancelled) == "the instance is to be deleted"


async def test_several_servers_each_get_their_own_and_share_none(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        listed = [{"uuid": s.image, "source_type": "image", "volume_size": 1, **ROOT}]
        server = await s.made(listed, min_count=2, return_reservation_id=False)
        assert len(await s.attached(server)) == 1
        one = await s.volume()
        refused = await s.post([{"uuid": one, "source_type": "volume", **ROOT}], min_count=2)
        assert (refused.status_code, reason(refused)) == (
            400,
            "Cannot attach one or more volumes to multiple instances",
        )
        assert (await s.world.store.read(volumes.get, one))["status"] == "available"


async def test_an_image_on_its_host_and_volumes_beside(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        more = await s.volume()
        listed = [
            {"uuid": s.image, "source_type": "image", "destination_type": "local", "boot_index": 0},
            {"uuid": more, "source_type": "volume", "destination_type": "volume", "boot_index": 1},
        ]
        server = await s.made(listed, image=s.image)
        row = await s.world.store.read(instances.get, server)
        assert row["image_id"] == s.image and row["disk_gb"] > 0
        (only,) = await s.attached(server)
        assert (only["volume_id"], only["device"], only["boot_index"]) == (more, "vdb", 1)


async def test_the_older_syntax_says_the_same(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        root, more = await s.volume(), await s.volume()
        listed = [
            {"device_name": "vda", "volume_id": root, "delete_on_termination": "1"},
            {"device_name": "vdb", "volume_id": more},
        ]
        server = await s.made([], block_device_mapping=listed)
        assert [(one["volume_id"], one["boot_index"]) for one in await s.attached(server)] == [(root, 0), (more, -1)]
        both = await s.post(
            [{"uuid": more, "source_type": "volume", **ROOT}], block_device_mapping=[{"volume_id": more}]
        )
        assert (both.status_code, "different block_device_mapping syntaxes" in reason(both)) == (400, True)


R: Any = {"source_type": "image", **ROOT}
BAD: list[tuple[Any, dict[str, Any], str]] = [
    ([], {}, "imageRef"),
    ([{"source_type": "blank", "volume_size": 1, **ROOT}], {}, "is not bootable"),
    ([{**R, "uuid": "$image"}], {}, "non-zero size"),
    ([{"source_type": "blank", "destination_type": "volume"}], {"image": "$image"}, "non-zero size"),
    ([{**R, "uuid": UNKNOWN, "volume_size": 1}], {}, "Invalid image identifier"),
    ([{"source_type": "volume", "uuid": UNKNOWN, **ROOT}], {}, "could not be found"),
    ([{"source_type": "snapshot", "uuid": UNKNOWN, **ROOT}], {}, "could not be found"),
    ([{"source_type": "volume", **ROOT}], {}, "Missing device UUID"),
    ([{"source_type": "blank", "uuid": UNKNOWN, "volume_size": 1, **ROOT}], {}, "Invalid device UUID"),
    ([{**R, "uuid": "$image", "volume_size": 1, "boot_index": 1}], {}, "Boot sequence"),
    ([{**R, "uuid": "$image", "volume_size": 1}] * 2, {}, "Boot sequence"),
    ([{"source_type": "image", "uuid": UNKNOWN, "destination_type": "local"}], {"image": "$image"}, "not supported"),
    ([{"source_type": "volume", "uuid": "$free", "destination_type": "local"}], {"image": "$image"}, "as a volume"),
    ([{"source_type": "volume", "uuid": "$free"}] * 2, {"image": "$image"}, "stands there once"),
    ([{"source_type": "volume", "uuid": "$free", "volume_type": "x"}], {"image": "$image"}, "existing volume"),
    ([{"source_type": "volume", "uuid": "$free", "device_type": "cdrom"}], {"image": "$image"}, "as a disk"),
    ([{"source_type": "volume", "uuid": "$free", "disk_bus": "xen"}], {"image": "$image"}, "disk_bus"),
    ([{"source_type": "volume", "uuid": "$free", "tag": "a/b"}], {"image": "$image"}, "tag"),
    ([{"source_type": "volume", "uuid": "$used"}], {"image": "$image"}, "status must be 'available'"),
    ([{"source_type": "volume", "uuid": "$plain", **ROOT}], {}, "is not bootable"),
    ([{**R, "uuid": "$image", "volume_size": 1, "volume_type": "none"}], {}, "Volume type none"),
    ([{**R, "uuid": "$image", "volume_size": 0}], {}, "volume_size"),
    ([{"source_type": "blank", "volume_size": 9}], {"image": "$image"}, "ephemeral disks asked for exceed"),
    ([{"source_type": "blank", "guest_format": "swap", "volume_size": 9}], {"image": "$image"}, "swap disks"),
    ([{"source_type": "elsewhere"}], {"image": "$image"}, "source_type"),
    ([{"own": 1}], {"image": "$image"}, "own"),
    ({"source_type": "blank"}, {"image": "$image"}, "must be a list"),
    ([7], {"image": "$image"}, "must be an object"),
    ([{"source_type": "volume", "uuid": "$free", "tag": "t"}], {"image": "$image", "version": 41}, "tag"),
    (
        [{"source_type": "volume", "uuid": "$free", "volume_type": "t"}],
        {"image": "$image", "version": 66},
        "volume_type",
    ),
]


@pytest.mark.parametrize(("devices", "more", "words"), BAD)
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, devices: Any, more: dict[str, Any], words: str
) -> None:
    async with scene(tmp_path) as s:
        known = {
            "$image": s.image,
            "$free": await s.volume(),
            "$used": await s.volume(status="in-use"),
            "$plain": await s.volume(bootable=False),
        }

        def named(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: named(one) for key, one in value.items()}
            if isinstance(value, list):
                return [named(one) for one in value]
            return known.get(value, value) if isinstance(value, str) else value

        reply = await s.post(named(devices), **named(more))
        assert (reply.status_code, words in reason(reply)) == (400, True), reply.text
        assert await s.world.store.read(lambda tx: tx.execute(select(instances.instances.c.id)).all()) == []
        assert (await s.world.store.read(volumes.get, known["$free"]))["status"] == "available"


async def test_a_tag_is_known_at_2_32_and_from_2_42_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        for version, code in ((31, 400), (32, 202), (33, 400), (41, 400), (42, 202)):
            listed = [{"uuid": await s.volume(), "source_type": "volume", "destination_type": "volume", "tag": "t"}]
            assert (await s.post(listed, version, s.image)).status_code == code, version


async def with_volume_root(s: Scene) -> tuple[str, str, str]:
    """A server that runs, its root volume and another one."""
    root, more = await s.volume(), await s.volume()
    listed = [{"uuid": root, "source_type": "volume", **ROOT}, {"uuid": more, "source_type": "volume", "tag": "t"}]
    server = await s.made(listed)
    await booted(s.world, server)

    def attached(tx: Tx) -> None:
        tx.execute(delete(saga_subjects))
        for row in attachments.of_instance(tx, server):
            attachments.set_(tx, row["id"], status="attached", host="h1", source={})

    await s.world.store.run(attached)
    return server, root, more


async def act(s: Scene, server: str, action: str, version: int = 96, **asked: Any) -> httpx.Response:
    path = f"{NOVA}/servers/{server}/action"
    return await s.world.ask("POST", path, token=s.token, version=f"2.{version}", json={action: asked or None})


async def test_an_image_of_a_server_that_began_from_a_volume_is_snapshots_of_which_another_is_made(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        server, root, more = await with_volume_root(s)
        reply = await act(s, server, "createImage", name="copy", metadata={"a": "b"})
        assert reply.status_code == 202, reply.text
        image_id = reply.json()["image_id"]
        image = await s.world.store.read(images.get, image_id, None)
        listed = json.loads(image["properties"]["block_device_mapping"])
        assert [(one["source_type"], one["boot_index"], one["volume_size"]) for one in listed] == [
            ("snapshot", 0, 1),
            ("snapshot", None, 1),
        ]
        saga = await s.world.store.read(sagas.active_of, of_instance(server))
        assert saga is not None and saga["kind"] == SagaKind.CREATE_IMAGE
        made = saga["params"]["snapshots"]
        assert list(made) == [root, more] and [one["snapshot_id"] for one in listed] == list(made.values())
        held = await s.world.store.read(subjects.needs_of, saga["id"])
        assert {one.id for one in held} == {root, more}

        def done(tx: Tx) -> None:
            images.set_whole(tx, image_id)
            for snapshot_id in made.values():
                snapshots.set_(tx, snapshot_id, status="available")

        await s.world.store.run(done)
        again = await s.made([], image=image_id)
        first, second = await s.attached(again)
        rows = [await s.world.store.read(volumes.get, one["volume_id"]) for one in (first, second)]
        assert [one["snapshot_id"] for one in rows] == list(made.values())
        assert (first["boot_index"], second["boot_index"]) == (0, -1)


async def test_what_is_not_done_to_a_server_that_begins_from_a_volume_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        server, _, _ = await with_volume_root(s)
        for version, action, asked, words in (
            (92, "rebuild", {"imageRef": s.image}, "Unable to rebuild with a different image for a volume-backed"),
            (86, "rescue", {"rescue_image_ref": s.image}, "Cannot rescue a volume-backed instance"),
            (96, "rescue", {"adminPass": "x"}, "name one as rescue_image_ref"),
            (
                96,
                "createBackup",
                {"name": "b", "backup_type": "daily", "rotation": 1},
                "Backup is not supported for volume-backed",
            ),
        ):
            reply = await act(s, server, action, version, **asked)
            assert (reply.status_code, words in reason(reply)) == (400, True), reply.text
        assert (await act(s, server, "rescue", 87, rescue_image_ref=s.image)).status_code == 200


async def test_from_2_93_on_its_root_volume_is_filled_anew_unless_it_has_snapshots_or_is_read_only(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        server, root, _ = await with_volume_root(s)
        await s.world.store.run(new_snapshots, {root: "11111111-0000-4000-8000-000000000001"})
        reply = await act(s, server, "rebuild", 93, imageRef=s.image)
        assert (reply.status_code, "has snapshots" in reason(reply)) == (409, True), reply.text
        await s.world.store.run(snapshots.remove, "11111111-0000-4000-8000-000000000001")
        await s.world.store.run(volumes.set_, root, read_only=True)
        reply = await act(s, server, "rebuild", 93, imageRef=s.image)
        assert (reply.status_code, "is read-only" in reason(reply)) == (409, True), reply.text
        await s.world.store.run(volumes.set_, root, read_only=False)
        reply = await act(s, server, "rebuild", 93, imageRef=s.image, name="anew")
        assert reply.status_code == 202, reply.text
        saga = await s.world.store.read(sagas.active_of, of_instance(server))
        assert saga is not None and saga["kind"] == SagaKind.REBUILD
        assert saga["params"]["image_metadata"]["image_id"] == s.image
        assert root in {one.id for one in await s.world.store.read(subjects.needs_of, saga["id"])}
