"""Images that are shared with single projects; and what Glance offers beside images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.scheduler.image_properties import KNOWN
from droveway.store.identity import accounts
from tests.api.world import IMG, World, in_world, make_image, make_server


async def project_id(world: World, name: str) -> str:
    row = await world.store.read(lambda tx: accounts.find_project(tx, name=name, domain_id="default"))
    assert row is not None
    return row["id"]


async def ask(world: World, token: str, method: str, path: str, code: int = 200, body: Any = None) -> Any:
    sent = {} if body is None else {"json": body}
    reply = await world.ask(method, f"{IMG}{path}", token=token, **sent)
    assert reply.status_code == code, (method, path, reply.status_code, reply.text)
    return reply.json() if reply.content else None


async def listed(world: World, token: str, query: str = "") -> list[str]:
    return [image["id"] for image in (await ask(world, token, "GET", f"/images{query}"))["images"]]


async def test_an_image_is_shared_and_accepted(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        blue = await project_id(world, "blue")
        image_id = await make_image(world, alice)
        path = f"/images/{image_id}/members"
        await ask(world, bob, "GET", f"/images/{image_id}", 404)
        made = await ask(world, alice, "POST", path, body={"member": blue})
        assert {"image_id": image_id, "member_id": blue, "status": "pending"}.items() <= made.items()
        assert made["schema"] == "/v2/schemas/member"
        await ask(world, alice, "POST", path, 409, {"member": blue})
        await ask(world, bob, "GET", f"/images/{image_id}")
        assert await listed(world, bob) == []
        assert await listed(world, bob, "?member_status=pending&visibility=shared") == [image_id]
        assert await listed(world, bob, "?member_status=all") == [image_id]
        await ask(world, bob, "GET", "/images?member_status=odd", 400)
        await ask(world, alice, "PUT", f"{path}/{blue}", 403, {"status": "accepted"})
        await ask(world, bob, "PUT", f"{path}/{blue}", 400, {"status": "odd"})
        assert (await ask(world, bob, "PUT", f"{path}/{blue}", body={"status": "accepted"}))["status"] == "accepted"
        assert await listed(world, bob) == [image_id]
        await make_server(world, bob, image_id)
        await ask(world, bob, "DELETE", f"/images/{image_id}", 403)
        await ask(world, bob, "DELETE", f"{path}/{blue}", 403)
        await ask(world, bob, "POST", path, 403, {"member": "x"})
        await ask(world, alice, "DELETE", f"{path}/{blue}", 204)
        await ask(world, alice, "DELETE", f"{path}/{blue}", 404)
        await ask(world, bob, "GET", f"/images/{image_id}", 404)


async def test_members_see_themselves_alone(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        blue = await project_id(world, "blue")
        image_id = await make_image(world, alice)
        path = f"/images/{image_id}/members"
        for member in (blue, "another"):
            await ask(world, alice, "POST", path, body={"member": member})
        assert [each["member_id"] for each in (await ask(world, alice, "GET", path))["members"]] == [blue, "another"]
        assert [each["member_id"] for each in (await ask(world, bob, "GET", path))["members"]] == [blue]
        await ask(world, bob, "GET", f"{path}/another", 404)
        await ask(world, bob, "GET", f"{path}/{blue}")


async def test_only_shared_images_have_members_and_only_so_many(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin = await world.token()
        public, shared = await make_image(world, admin, visibility="public"), await make_image(world, admin)
        await ask(world, admin, "GET", f"/images/{public}/members", 403)
        await ask(world, admin, "POST", f"/images/{public}/members", 403, {"member": "x"})
        for wrong in ({}, {"member": ""}, {"member": 1}, {"member": "x", "status": "accepted"}):
            await ask(world, admin, "POST", f"/images/{shared}/members", 400, wrong)
        for number in range(128):
            await ask(world, admin, "POST", f"/images/{shared}/members", body={"member": f"p{number}"})
        await ask(world, admin, "POST", f"/images/{shared}/members", 413, {"member": "more"})
        await ask(world, admin, "DELETE", f"/images/{shared}", 204)


# -- beside images ----------------------------------------------------------------------------------------------------
async def test_metadefs_tell_what_images_may_say(tmp_path: Path) -> None:
    """With at least one namespace: Horizon divides by their number."""
    async with in_world(tmp_path) as world:
        token, admin = await world.token("rita", "red"), await world.token()
        (namespace,) = (await ask(world, token, "GET", "/metadefs/namespaces?resource_types=OS::Glance::Image"))[
            "namespaces"
        ]
        shown = await ask(world, token, "GET", f"/metadefs/namespaces/{namespace['namespace']}")
        assert set(shown["properties"]) == set(KNOWN)
        assert shown["properties"]["hw_disk_bus"]["enum"] == ["virtio", "scsi", "sata", "ide"]
        assert (await ask(world, token, "GET", "/metadefs/namespaces?resource_types=OS::Nova::Aggregate"))[
            "namespaces"
        ] == []
        await ask(world, token, "GET", "/metadefs/namespaces/none", 404)
        one = await ask(world, token, "GET", f"/metadefs/namespaces/{namespace['namespace']}/properties/os_type")
        assert one["name"] == "os_type"
        await ask(world, admin, "POST", "/metadefs/namespaces", 403, {"namespace": "x"})
        known = set((await ask(world, token, "GET", "/schemas/metadefs/namespace"))["properties"])
        assert set(shown) <= known


@pytest.mark.parametrize(
    ("method", "path", "code", "body"),
    [
        (
            "GET",
            "/info/import",
            200,
            {"import-methods": {"description": "Import methods available.", "type": "array", "value": []}},
        ),
        ("GET", "/tasks", 200, {"tasks": [], "first": "/v2/tasks", "schema": "/v2/schemas/tasks"}),
        ("GET", "/cache", 200, {"cached_images": [], "queued_images": []}),
        ("DELETE", "/cache", 204, None),
        ("GET", "/tasks/x", 404, None),
        ("POST", "/tasks", 403, None),
        ("GET", "/info/stores/detail", 200, None),
        ("GET", "/schemas/member", 200, None),
        ("GET", "/schemas/members", 200, None),
        ("GET", "/schemas/tasks", 200, None),
    ],
)
async def test_what_glance_offers_beside_images(tmp_path: Path, method: str, path: str, code: int, body: Any) -> None:
    async with in_world(tmp_path) as world:
        found = await ask(world, await world.token(), method, path, code, {} if method == "POST" else None)
        assert body is None or found == body


async def test_an_image_is_not_imported(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image_id = await make_image(world, alice)
        refused = await ask(
            world, alice, "POST", f"/images/{image_id}/import", 409, {"method": {"name": "glance-direct"}}
        )
        assert "PUT /v2/images/{id}/file" in refused["message"]
        assert (await ask(world, alice, "GET", f"/images/{image_id}/tasks")) == {"tasks": []}
        (store,) = (await ask(world, alice, "GET", "/info/stores"))["stores"]
        assert store["default"] is True
