"""Services, hypervisors, zones and limits: what an operator looks at and sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from droveway.domain.liveness import State
from droveway.domain.model import SagaKind
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.schema import migrations
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server, reason

SERVICES = f"{NOVA}/os-services"
HYPERVISORS = f"{NOVA}/os-hypervisors"


async def service(world: World, token: str, host: str = "h1") -> dict[str, Any]:
    reply = await world.ask("GET", f"{SERVICES}?host={host}&binary=nova-compute", token=token, version="2.69")
    (found,) = reply.json()["services"]
    return dict(found)


async def test_services_are_set_by_uuid(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        first = await service(world, token)
        path = f"{SERVICES}/{first['id']}"

        async def put(body: Any) -> Any:
            return await world.ask("PUT", path, token=token, version="2.69", json=body)

        reply = await put({"status": "disabled", "disabled_reason": "a new disk"})
        assert reply.status_code == 200
        assert reply.json()["service"] == {**first, "status": "disabled", "disabled_reason": "a new disk"}
        assert (await put({"forced_down": True})).json()["service"]["state"] == "down"
        assert (await put({"forced_down": False, "status": "enabled"})).json()["service"] == first
        for bad in (
            {},
            {"status": "broken"},
            {"disabled_reason": "x"},
            {"status": "enabled", "disabled_reason": "x"},
            {"forced_down": "perhaps"},
            {"status": "disabled", "disabled_reason": ""},
            {"host": "h1"},
            [],
        ):
            assert (await put(bad)).status_code == 400, bad
        assert await service(world, token) == first
        nobody = await world.ask(
            "PUT", f"{SERVICES}/{first['id'][:-4]}0000", token=token, version="2.53", json={"forced_down": True}
        )
        assert nobody.status_code == 404
        assert (await world.ask("PUT", f"{SERVICES}/7", token=token, version="2.53", json={})).status_code == 400


async def test_services_are_set_by_name_before_53(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        who = {"host": "h1", "binary": "nova-compute"}

        async def put(action: str, body: Any, version: str = "2.11") -> Any:
            return await world.ask("PUT", f"{SERVICES}/{action}", token=token, version=version, json=body)

        assert (await put("disable", who)).json() == {"service": {**who, "status": "disabled"}}
        reply = await put("disable-log-reason", {**who, "disabled_reason": "why"})
        assert reply.json() == {"service": {**who, "status": "disabled", "disabled_reason": "why"}}
        assert (await service(world, token))["disabled_reason"] == "why"
        assert (await put("enable", who)).json() == {"service": {**who, "status": "enabled"}}
        down = await put("force-down", {**who, "forced_down": True})
        assert down.json() == {"service": {**who, "forced_down": True}}
        assert (await service(world, token))["state"] == "down"
        assert (await put("force-down", who, "2.10")).status_code == 404
        assert (await put("force-down", {**who, "forced_down": True}, "2.10")).status_code == 400
        assert (await put("explode", who)).status_code == 404
        assert (await put("disable", {**who, "host": "nowhere"})).status_code == 404
        assert (await put("disable", {**who, "binary": "nova-conductor"})).status_code == 400
        assert (await put("disable-log-reason", who)).status_code == 400
        assert (await put("disable", {"host": "h1"})).status_code == 400


async def test_a_host_that_is_gone_for_good_is_forgotten(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, alice = await world.token(), await world.token("alice", "red")
        gone, other = await service(world, token), await service(world, token, "h2")
        server_id = await make_server(world, token, await make_image(world, token))
        await booted(world, server_id, "h2")

        async def delete(identifier: Any, version: str = "2.53", by: str = token) -> Any:
            return await world.ask("DELETE", f"{SERVICES}/{identifier}", token=by, version=version)

        async def claim(held: bool) -> None:
            def write(tx: Tx) -> None:
                tx.execute(update(migrations).values(holds_claim=held, destination="h1"))

            await world.store.run(write)

        assert (await delete(gone["id"], by=alice)).status_code == 403
        up = await delete(gone["id"])
        assert up.status_code == 409
        assert "is up; stop it before it is deleted" in reason(up)
        for host in ("h1", "h2"):
            gone_for_good = services.Verdict(host, "nova-compute", State.HOST_GONE, "it is gone", 0)
            await world.store.run(services.record_verdicts, [gone_for_good])
        holding = await delete(other["id"])
        assert holding.status_code == 409
        assert f"h2 holds {server_id}" in reason(holding)
        await world.store.run(instances.intend, server_id, SagaKind.LIVE_MIGRATION, {})
        await claim(True)
        arriving = await delete(gone["id"])
        assert arriving.status_code == 409
        assert f"{server_id} moves to h1" in reason(arriving)
        await claim(False)
        for wrong, version, code in (
            ("7", "2.53", 400),
            (gone["id"], "2.52", 400),
            ("99", "2.52", 404),
            (f"{gone['id'][:-4]}0000", "2.53", 404),
        ):
            assert (await delete(wrong, version)).status_code == code
        done = await delete(gone["id"])
        assert (done.status_code, done.content) == (204, b"")
        assert (await delete(gone["id"])).status_code == 404
        left = (await world.ask("GET", HYPERVISORS, token=token, version="2.53")).json()["hypervisors"]
        assert [each["hypervisor_hostname"] for each in left] == ["h2.lab"]
        await world.store.run(instances.set_, server_id, host=None, deleted=True)
        (old,) = (await world.ask("GET", SERVICES, token=token, version="2.52")).json()["services"]
        assert (await delete(old["id"], "2.52")).status_code == 204
        assert (await world.ask("GET", SERVICES, token=token)).json()["services"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/os-services",
        "/os-hypervisors",
        "/os-hypervisors/detail",
        "/os-migrations",
        "/os-availability-zone/detail",
        "/os-aggregates",
    ],
)
async def test_operators_pages_are_for_operators(tmp_path: Path, path: str) -> None:
    async with in_world(tmp_path) as world:
        assert (await world.ask("GET", NOVA + path, token=await world.token("alice", "red"))).status_code == 403
        assert (await world.ask("GET", NOVA + path, token=await world.token())).status_code == 200


async def test_hypervisors_are_found_by_name_and_paged(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await make_server(world, token, await make_image(world, token))
        await booted(world, server_id)

        async def get(query: str, version: str) -> Any:
            return await world.ask("GET", HYPERVISORS + query, token=token, version=version)

        def names(reply: Any) -> list[str]:
            return [each["hypervisor_hostname"] for each in reply.json()["hypervisors"]]

        assert names(await get("?hypervisor_hostname_pattern=h2", "2.53")) == ["h2.lab"]
        assert (await get("?hypervisor_hostname_pattern=h9", "2.53")).status_code == 404
        assert (await get("?hypervisor_hostname_pattern=h2&limit=1", "2.53")).status_code == 400
        assert (await get("?colour=blue", "2.53")).status_code == 400
        assert (await get("?colour=blue", "2.52")).status_code == 200
        first = await get("?limit=1", "2.33")
        assert names(first) == ["h1.lab"]
        href = first.json()["hypervisors_links"][0]["href"]
        assert names(await world.ask("GET", href, token=token, version="2.33")) == ["h2.lab"]
        assert (await get("?marker=99", "2.33")).status_code == 400
        on = (await get("?with_servers=true", "2.75")).json()["hypervisors"]
        assert on[0]["servers"] == [{"name": "instance-00000001", "uuid": server_id}]
        assert on[1]["servers"] == []
        assert "servers" not in (await get("?with_servers=true", "2.74")).json()["hypervisors"][1]
        assert names(await get("/h2/search", "2.52")) == ["h2.lab"]
        (held,) = (await get("/h1/servers", "2.1")).json()["hypervisors"]
        assert held["servers"][0]["uuid"] == server_id
        assert (await get("/h9/search", "2.1")).status_code == 404
        assert (await get("/h1.lab", "2.88")).status_code == 400
        assert (await get("/99", "2.1")).status_code == 404


async def test_what_a_hypervisor_holds_is_counted(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await booted(world, await make_server(world, token, await make_image(world, token)))
        (first, second) = (await world.ask("GET", f"{HYPERVISORS}/detail", token=token)).json()["hypervisors"]
        assert (first["vcpus_used"], first["memory_mb_used"], first["local_gb_used"], first["running_vms"]) == (
            1,
            640,
            1,
            1,
        )
        assert first["free_ram_mb"] == 4096 - 640
        assert (second["vcpus_used"], second["memory_mb_used"], second["running_vms"]) == (0, 512, 0)
        sums = (await world.ask("GET", f"{HYPERVISORS}/statistics", token=token)).json()["hypervisor_statistics"]
        assert (sums["count"], sums["vcpus"], sums["vcpus_used"], sums["memory_mb_used"]) == (2, 4, 1, 1152)
        assert set(sums) == {
            "count",
            "current_workload",
            "disk_available_least",
            "free_disk_gb",
            "free_ram_mb",
            "local_gb",
            "local_gb_used",
            "memory_mb",
            "memory_mb_used",
            "running_vms",
            "vcpus",
            "vcpus_used",
        }


async def test_hosts_by_their_old_names(tmp_path: Path) -> None:
    """What `openstack host list` and `host show` ask for."""
    async with in_world(tmp_path) as world:
        admin = await world.token()

        async def ask(path: str = "", version: str = "2.1") -> Any:
            return await world.ask("GET", f"{NOVA}/os-hosts{path}", token=admin, version=version)

        h1, h2 = ({"host_name": name, "service": "compute", "zone": "nova"} for name in ("h1", "h2"))
        assert (await ask()).json() == {"hosts": [h1, h2]}
        assert (await ask("?zone=mars")).json() == {"hosts": []}
        await booted(world, await make_server(world, admin, await make_image(world, admin)))
        lines = [one["resource"] for one in (await ask("/h1", "2.42")).json()["host"]]
        assert [(one["project"], one["cpu"], one["memory_mb"], one["disk_gb"]) for one in lines[:3]] == [
            ("(total)", 2, 4096, 40),
            ("(used_now)", 1, 640, 1),
            ("(used_max)", 1, 128, 1),
        ]
        assert {one["host"] for one in lines} == {"h1"} and len(lines) == 4
        assert {name: lines[3][name] for name in ("cpu", "memory_mb", "disk_gb")} == {
            name: lines[2][name] for name in ("cpu", "memory_mb", "disk_gb")
        }
        first = await service(world, admin)
        await world.ask("PUT", f"{SERVICES}/{first['id']}", token=admin, version="2.53", json={"status": "disabled"})
        assert (await ask()).json() == {"hosts": [h2]}
        assert ((await ask("/h9")).status_code, (await ask("", "2.43")).status_code) == (404, 404)


async def test_zones(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        brief = await world.ask("GET", f"{NOVA}/os-availability-zone", token=alice)
        nova = {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}
        assert brief.json() == {"availabilityZoneInfo": [nova]}
        (info,) = (await world.ask("GET", f"{NOVA}/os-availability-zone/detail", token=admin)).json()[
            "availabilityZoneInfo"
        ]
        assert set(info["hosts"]) == {"h1", "h2"}
        assert set(info["hosts"]["h1"]["nova-compute"]) == {"available", "active", "updated_at"}


@pytest.mark.parametrize(
    ("version", "count"), [(1, 19), (35, 19), (36, 14), (38, 14), (39, 13), (56, 13), (57, 11), (96, 11)]
)
async def test_limits_at_each_microversion(tmp_path: Path, version: int, count: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        await make_server(world, token, await make_image(world, token))
        reply = await world.ask("GET", f"{NOVA}/limits", token=token, version=f"2.{version}")
        absolute = reply.json()["limits"]["absolute"]
        assert len(absolute) == count
        assert (absolute["totalInstancesUsed"], absolute["totalRAMUsed"], absolute["maxTotalCores"]) == (1, 128, -1)
        other = await world.ask("GET", f"{NOVA}/limits?tenant_id=blue", token=token)
        assert other.status_code == 403
        assert reason(other)
