"""Volumes of a server: what may be asked for, what is said at which microversion, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from droveway.api.http.microversions import MAXIMUM
from droveway.domain.model import SagaKind
from droveway.domain.volume.model import AttachmentStatus, VolumeStatus
from droveway.store.compute import instances, server_volumes
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, volumes
from droveway.store.volume.attachments import NewAttachment
from droveway.store.volume.rows import VolumeRow
from tests.api import nova_schemas
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server, reason, sagas_of

UNKNOWN = "00000000-0000-4000-8000-000000000000"
LIST = "/servers/{server_id}/os-volume_attachments"
ONE = LIST + "/{id}"


def new_volume(tx: Tx, project_id: str, **more: Any) -> str:
    """One that is there and free."""
    row: dict[str, Any] = dict.fromkeys(VolumeRow.__annotations__)
    row |= {"id": tx.names.uuid(), "project_id": project_id, "user_id": "u", "created_at_us": tx.now_us, "size_gb": 1}
    row |= {"status": "available", "zone": "nova", "host": "h1@fast", "disk_format": "raw", "fault": "", "fence": 0}
    row |= {"bootable": True, "read_only": False, "metadata": {}, "image_metadata": {}} | more
    volumes.insert_row(tx, row)  # type: ignore[arg-type]
    return str(row["id"])


async def volume(world: World, server: str, **more: Any) -> str:
    """Of the project of that server."""

    def write(tx: Tx) -> str:
        return new_volume(tx, instances.get(tx, server)["project_id"], **more)

    return await world.store.run(write)


async def held(world: World, server: str, **more: Any) -> str:
    """One that the server has already."""
    one = await volume(world, server)

    def write(tx: Tx) -> None:
        attachment = server_volumes.reserve(tx, instances.get(tx, server), NewAttachment(one, **more))
        attachments.set_(tx, attachment, status=AttachmentStatus.ATTACHED.value, host="h1", source={})
        volumes.set_(tx, one, status=VolumeStatus.IN_USE.value)

    await world.store.run(write)
    return one


class Scene:
    def __init__(self, world: World, token: str, server: str) -> None:
        self.world, self.token, self.server = world, token, server

    async def ask(self, method: str, path: str = "", version: int = MAXIMUM, **asked: Any) -> httpx.Response:
        more = {"json": {"volumeAttachment": asked}} if asked else {}
        url = f"{NOVA}/servers/{self.server}/os-volume_attachments{path}"
        return await self.world.ask(method, url, token=self.token, version=f"2.{version}", **more)

    async def wants(self) -> list[tuple[str, dict[str, Any]]]:
        found = [(one["kind"], one["params"]) for one in await sagas_of(self.world, self.server)]
        return [one for one in found if one[0] in (SagaKind.ATTACH_VOLUME, SagaKind.DETACH_VOLUME)]


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with in_world(directory) as world:
        token = await world.token("alice", "red")
        server = await make_server(world, token, await make_image(world, token))
        await booted(world, server)
        yield Scene(world, token, server)


@pytest.mark.parametrize("version", sorted(nova_schemas.edges(f"GET {LIST}", MAXIMUM)))
async def test_they_are_listed_and_shown_as_nova_says(tmp_path: Path, version: int) -> None:
    async with scene(tmp_path) as s:
        one, two = await held(s.world, s.server), await held(s.world, s.server, delete_on_termination=True, tag="t")
        listed = await s.ask("GET", version=version)
        assert nova_schemas.wrong(f"GET {LIST}", "response", version, listed.json()) is None
        assert [row["volumeId"] for row in listed.json()["volumeAttachments"]] == [one, two]
        assert [row["device"] for row in listed.json()["volumeAttachments"]] == ["/dev/vdb", "/dev/vdc"]
        shown = await s.ask("GET", f"/{two}", version=version)
        assert nova_schemas.wrong(f"GET {ONE}", "response", version, shown.json()) is None
        found = await s.ask("GET", "?limit=1&offset=1", version=version)
        assert [row["volumeId"] for row in found.json()["volumeAttachments"]] == [two]
        for path in ("", "/detail"):
            server = (
                await s.world.ask("GET", f"{NOVA}/servers{path or '/' + s.server}", token=s.token, version="2.3")
            ).json()
            server = server["server"] if "server" in server else server["servers"][0]
            told = server["os-extended-volumes:volumes_attached"]
            assert told == [{"id": one, "delete_on_termination": False}, {"id": two, "delete_on_termination": True}]


@pytest.mark.parametrize("version", sorted(nova_schemas.edges(f"POST {LIST}", MAXIMUM)))
async def test_one_is_attached_by_a_saga_and_nobody_else_can_have_it(tmp_path: Path, version: int) -> None:
    async with scene(tmp_path) as s:
        one = await volume(s.world, s.server)
        asked: dict[str, Any] = {"volumeId": one, "device": "/dev/vdz"}
        asked |= {"tag": "t"} if version >= 49 else {}
        asked |= {"delete_on_termination": True} if version >= 79 else {}
        reply = await s.ask("POST", version=version, **asked)
        assert reply.status_code == 200, reply.text
        assert nova_schemas.wrong(f"POST {LIST}", "response", version, reply.json()) is None
        assert reply.json()["volumeAttachment"]["device"] == "/dev/vdb", "which one is the hypervisor's choice"
        row = await s.world.store.read(attachments.of_volume, one)
        assert row is not None and await s.wants() == [
            (SagaKind.ATTACH_VOLUME, {"attachment_id": row["id"], "volume_id": one})
        ]
        assert (await s.world.store.read(volumes.get, one))["status"] == VolumeStatus.RESERVED
        again = await s.ask("POST", version=version, volumeId=one)
        assert (again.status_code, "attached to this server already" in reason(again)) == (400, True)
        other = await make_server(s.world, s.token, await make_image(s.world, s.token, "other"))
        await booted(s.world, other)
        elsewhere = await Scene(s.world, s.token, other).ask("POST", version=version, volumeId=one)
        assert (elsewhere.status_code, "one server at a time" in reason(elsewhere)) == (400, True)


async def test_what_cannot_be_attached_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        bob = Scene(s.world, await s.world.token("bob", "blue"), s.server)
        free = await volume(s.world, s.server)
        foreign = await s.world.store.run(new_volume, "somebody-else")
        failed = await volume(s.world, s.server, status="error")
        moving = await volume(s.world, s.server, moving_to="h2@slow")
        for scene_, asked, code, words in (
            (s, {"volumeId": UNKNOWN}, 404, "could not be found"),
            (s, {"volumeId": foreign}, 404, "could not be found"),
            (bob, {"volumeId": free}, 404, "could not be found"),
            (s, {"volumeId": failed}, 400, "must be 'available'. Currently in 'error'"),
            (s, {"volumeId": moving}, 400, "is being migrated"),
            (s, {"volumeId": "no"}, 400, "volumeId"),
            (s, {"volumeId": free, "device": "sda"}, 400, "must be a device"),
            (s, {"volumeId": free, "tag": "a,b"}, 400, "tag"),
            (s, {"volumeId": free, "own": 1}, 400, "own"),
            (s, {"device": None}, 400, "volumeId"),
        ):
            reply = await scene_.ask("POST", **asked)
            assert (reply.status_code, words in reason(reply)) == (code, True), reply.text
        assert (await s.ask("POST", version=48, volumeId=free, tag="t")).status_code == 400
        await s.world.ask("POST", f"{NOVA}/servers/{s.server}/action", token=s.token, json={"lock": None})
        locked = await s.ask("POST", volumeId=free)
        assert (locked.status_code, "locked" in reason(locked)) == (409, True)
        await s.world.ask("POST", f"{NOVA}/servers/{s.server}/action", token=s.token, json={"unlock": None})
        await s.world.ask("DELETE", f"{NOVA}/servers/{s.server}", token=s.token)
        deleted = await s.ask("POST", volumeId=free)
        assert (deleted.status_code, "deleting" in reason(deleted)) == (409, True)
        assert await s.wants() == []
        assert (await s.world.store.read(volumes.get, free))["status"] == VolumeStatus.AVAILABLE, "as it was"


async def test_one_is_detached_by_a_saga_and_not_twice(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        one, root = await held(s.world, s.server), await held(s.world, s.server, boot_index=0)
        for path, code, words in (
            (f"/{UNKNOWN}", 404, "volume_id not found"),
            (f"/{await volume(s.world, s.server)}", 404, "volume_id not found"),
            (f"/{root}", 403, "Cannot detach a root device volume"),
            (f"/{one}", 202, ""),
            (f"/{one}", 400, "being detached already"),
        ):
            reply = await s.ask("DELETE", path)
            assert (reply.status_code, words in (reason(reply) if reply.content else "")) == (code, True), reply.text
        row = await s.world.store.read(attachments.of_volume, one)
        assert row is not None and row["status"] == AttachmentStatus.DETACHING
        assert await s.wants() == [(SagaKind.DETACH_VOLUME, {"attachment_id": row["id"], "volume_id": one})]
        assert (await s.world.store.read(volumes.get, one))["status"] == VolumeStatus.DETACHING
        two = await volume(s.world, s.server)
        assert (await s.ask("POST", volumeId=two)).status_code == 200
        early = await s.ask("DELETE", f"/{two}")
        assert (early.status_code, "must be 'in-use'" in reason(early)) == (400, True), "it is being attached"


async def test_whether_it_goes_with_its_server_is_changed_and_a_swap_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        one, other = await held(s.world, s.server), await volume(s.world, s.server)
        reply = await s.ask("PUT", f"/{one}", volumeId=one, delete_on_termination=True)
        assert reply.status_code == 202 and not reply.content
        row = await s.world.store.read(attachments.of_volume, one)
        assert row is not None and row["delete_on_termination"] is True
        for version, asked in (
            (85, {"volumeId": other}),
            (84, {"volumeId": other}),
            (84, {"volumeId": one}),
        ):
            refused = await s.ask("PUT", f"/{one}", version=version, **asked)
            assert (refused.status_code, "is not swapped" in reason(refused)) == (400, True)
        for asked in ({"tag": "new"}, {"device": "/dev/vdx"}, {"serverId": UNKNOWN}, {"id": UNKNOWN}):
            refused = await s.ask("PUT", f"/{one}", volumeId=one, **asked)
            assert (refused.status_code, "only delete_on_termination" in reason(refused)) == (400, True)
        early = await s.ask("PUT", f"/{one}", version=84, volumeId=one, delete_on_termination=True)
        assert early.status_code == 400


async def test_no_host_is_asked_for_a_snapshot_of_another_cinder(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        admin = await s.world.token()
        body = {"snapshot": {"volume_id": UNKNOWN, "create_info": {"snapshot_id": UNKNOWN, "type": "qcow2"}}}
        path = f"{NOVA}/os-assisted-volume-snapshots"
        reply = await s.world.ask("POST", path, token=admin, json=body)
        assert (reply.status_code, "take their snapshots themselves" in reason(reply)) == (400, True)
        assert (await s.world.ask("POST", path, token=s.token, json=body)).status_code == 403
        assert (await s.world.ask("DELETE", f"{path}/{UNKNOWN}", token=admin)).status_code == 400
