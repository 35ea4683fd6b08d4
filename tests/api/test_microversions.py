"""Exactly the right fields at each microversion: the key sets are written out by hand, as Nova has them.

More than 400 lines because each field of compute is asked for at the edges of its versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.api.http.microversions import MAXIMUM
from droveway.domain.model import SagaKind
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server

Keys = set[str]
ATTR = "OS-EXT-SRV-ATTR:"
# (since, added, removed): what a microversion changed
Changes = list[tuple[int, Keys, Keys]]

SERVER: Changes = [
    (
        1,
        {
            "id",
            "name",
            "links",
            "accessIPv4",
            "accessIPv6",
            "addresses",
            "created",
            "updated",
            "flavor",
            "hostId",
            "image",
            "metadata",
            "status",
            "tenant_id",
            "user_id",
            "progress",
            "config_drive",
            "key_name",
            "OS-DCF:diskConfig",
            "OS-EXT-AZ:availability_zone",
            "OS-EXT-STS:task_state",
            "OS-EXT-STS:vm_state",
            "OS-EXT-STS:power_state",
            "OS-SRV-USG:launched_at",
            "OS-SRV-USG:terminated_at",
            "os-extended-volumes:volumes_attached",
            ATTR + "host",
            ATTR + "hypervisor_hostname",
            ATTR + "instance_name",
        },
        set(),
    ),
    (
        3,
        {
            ATTR + "hostname",
            ATTR + "kernel_id",
            ATTR + "ramdisk_id",
            ATTR + "launch_index",
            ATTR + "reservation_id",
            ATTR + "root_device_name",
            ATTR + "user_data",
        },
        set(),
    ),
    (9, {"locked"}, set()),
    (16, {"host_status"}, set()),
    (19, {"description"}, set()),
    (26, {"tags"}, set()),
    (63, {"trusted_image_certificates"}, set()),
    (71, {"server_groups"}, set()),
    (73, {"locked_reason"}, set()),
    (96, {"pinned_availability_zone"}, set()),
    (100, {"scheduler_hints"}, set()),
]
FLAVOR: Changes = [
    (
        1,
        {
            "id",
            "name",
            "links",
            "ram",
            "vcpus",
            "disk",
            "swap",
            "OS-FLV-EXT-DATA:ephemeral",
            "OS-FLV-DISABLED:disabled",
            "os-flavor-access:is_public",
            "rxtx_factor",
        },
        set(),
    ),
    (55, {"description"}, set()),
    (61, {"extra_specs"}, set()),
]
SERVICE: Changes = [
    (1, {"id", "binary", "host", "zone", "status", "state", "updated_at", "disabled_reason"}, set()),
    (11, {"forced_down"}, set()),
]
CAPACITY = {
    "cpu_info",
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
HYPERVISOR: Changes = [
    (
        1,
        {"id", "hypervisor_hostname", "state", "status", "hypervisor_type", "hypervisor_version", "host_ip", "service"}
        | CAPACITY,
        set(),
    ),
    (88, {"uptime"}, CAPACITY),
]
MIGRATION: Changes = [
    (
        1,
        {
            "id",
            "status",
            "instance_uuid",
            "source_compute",
            "source_node",
            "dest_compute",
            "dest_node",
            "dest_host",
            "created_at",
            "updated_at",
            "old_instance_type_id",
            "new_instance_type_id",
        },
        set(),
    ),
    (23, {"migration_type", "links"}, set()),
    (59, {"uuid"}, set()),
    (80, {"user_id", "project_id"}, set()),
]
SERVER_MIGRATION: Changes = [
    (
        23,
        {
            "id",
            "status",
            "server_uuid",
            "source_compute",
            "source_node",
            "dest_compute",
            "dest_node",
            "dest_host",
            "created_at",
            "updated_at",
            "memory_total_bytes",
            "memory_processed_bytes",
            "memory_remaining_bytes",
            "disk_total_bytes",
            "disk_processed_bytes",
            "disk_remaining_bytes",
        },
        set(),
    ),
    (59, {"uuid"}, set()),
    (80, {"user_id", "project_id"}, set()),
]


def expected(changes: Changes, version: int) -> Keys:
    keys: Keys = set()
    for since, added, removed in changes:
        if version >= since:
            keys = (keys | added) - removed
    return keys


VERSIONS = range(1, MAXIMUM + 1)


async def moving(world: World, token: str) -> str:
    """A server that is being moved; its id."""
    server_id = await make_server(world, token, await make_image(world, token))
    await booted(world, server_id)

    def write(tx: Tx) -> None:
        instances.intend(tx, server_id, SagaKind.LIVE_MIGRATION, {"destination": "h2"})

    await world.store.run(write)
    return server_id


async def test_every_resource_at_every_microversion(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await moving(world, token)

        async def get(path: str, version: int) -> Any:
            reply = await world.ask("GET", NOVA + path, token=token, version=f"2.{version}")
            assert reply.status_code == 200, (path, version, reply.text)
            return reply.json()

        for version in VERSIONS:
            shown = (await get(f"/servers/{server_id}", version))["server"]
            assert set(shown) == expected(SERVER, version), version
            assert "links" in shown["flavor"] if version < 47 else "vcpus" in shown["flavor"]
            (listed,) = (await get("/servers/detail", version))["servers"]
            assert set(listed) == expected(SERVER, version) - {"server_groups"}, version
            (brief,) = (await get("/servers", version))["servers"]
            assert set(brief) == {"id", "name", "links"}
            flavors = (await get("/flavors/detail", version))["flavors"]
            assert all(set(flavor) == expected(FLAVOR, version) for flavor in flavors), version
            assert flavors[0]["swap"] == ("" if version < 75 else 0)
            for flavor in (await get("/flavors", version))["flavors"]:
                assert set(flavor) == {"id", "name", "links"} | ({"description"} if version >= 55 else set())
            services = (await get("/os-services", version))["services"]
            assert all(set(service) == expected(SERVICE, version) for service in services), version
            assert isinstance(services[0]["id"], int if version < 53 else str)
            hypervisors = (await get("/os-hypervisors/detail", version))["hypervisors"]
            assert all(set(each) == expected(HYPERVISOR, version) for each in hypervisors), version
            assert isinstance(hypervisors[0]["id"], int if version < 53 else str)
            assert isinstance(hypervisors[0]["service"]["id"], int if version < 53 else str)
            if version < 88:
                assert isinstance(hypervisors[0]["cpu_info"], str if version < 28 else dict)
            one = (await get(f"/os-hypervisors/{hypervisors[0]['id']}", version))["hypervisor"]
            assert one == hypervisors[0]
            for each in (await get("/os-hypervisors", version))["hypervisors"]:
                assert set(each) == {"id", "hypervisor_hostname", "state", "status"}
            (migration,) = (await get("/os-migrations", version))["migrations"]
            assert set(migration) == expected(MIGRATION, version), version
            if version >= 23:
                (moved,) = (await get(f"/servers/{server_id}/migrations", version))["migrations"]
                assert set(moved) == expected(SERVER_MIGRATION, version), version
                again = (await get(f"/servers/{server_id}/migrations/{moved['id']}", version))["migration"]
                assert again == moved


async def test_a_member_sees_nothing_of_hosts(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await make_server(world, token, await make_image(world, token))
        await booted(world, server_id)
        for version in VERSIONS:
            reply = await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token, version=f"2.{version}")
            keys = {key for key in expected(SERVER, version) if not key.startswith(ATTR)} - {"host_status"}
            if version >= 90:
                keys.add(ATTR + "hostname")
            assert set(reply.json()["server"]) == keys, version


async def test_the_fault_is_shown_in_error_and_only_there(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await make_server(world, token, await make_image(world, token))
        fault = {"code": 500, "message": "No valid host was found.", "created_us": 1_700_000_000_000_000}
        path = f"{NOVA}/servers/{server_id}"
        await world.store.run(instances.set_, server_id, fault=fault)
        assert "fault" not in (await world.ask("GET", path, token=token)).json()["server"]
        await world.store.run(instances.set_, server_id, vm_state="error", task_state=None)
        server = (await world.ask("GET", path, token=token)).json()["server"]
        assert server["fault"] == {
            "code": 500,
            "created": "2023-11-14T22:13:20Z",
            "message": "No valid host was found.",
        }
        assert "progress" not in server
        assert server["status"] == "ERROR"


async def test_tenants_are_not_told_of_hosts(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, admin = await world.token("alice", "red"), await world.token()
        server_id = await make_server(world, alice, await make_image(world, admin, visibility="public"))
        told = "No valid host was found: h1: memory: 900000 MiB wanted, 23977 MiB free"
        short = "No valid host was found: all hosts: memory: 900000 MiB wanted"
        await world.store.run(
            instances.set_,
            server_id,
            fault={"code": 500, "message": told, "to_tenants": short},
            vm_state="error",
            task_state=None,
        )

        async def message(token: str) -> str:
            server = (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)).json()["server"]
            return str(server["fault"]["message"])

        assert await message(admin) == told
        assert await message(alice) == short
        await world.store.run(instances.set_, server_id, fault={"code": 500, "message": told})  # of an older control
        assert await message(alice) == "No valid host was found. There are not enough hosts available."
        await world.store.run(instances.set_, server_id, fault={"code": 500, "message": "its disk is full"})
        assert await message(alice) == "its disk is full"


ROUTE_RANGES = [
    ("/os-hypervisors/statistics", 1, 87),
    ("/os-hypervisors/{hypervisor}/uptime", 1, 87),
    ("/os-hypervisors/h1/search", 1, 52),
    ("/os-hypervisors/h1/servers", 1, 52),
    ("/servers/{server}/migrations", 23, MAXIMUM),
]


@pytest.mark.parametrize(("path", "first", "last"), ROUTE_RANGES)
async def test_routes_come_and_go_with_versions(tmp_path: Path, path: str, first: int, last: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_id = await moving(world, token)
        for version in (first - 1, first, last, last + 1):
            if not 1 <= version <= MAXIMUM:
                continue
            at = f"2.{version}"
            hypervisors = (await world.ask("GET", f"{NOVA}/os-hypervisors", token=token, version=at)).json()[
                "hypervisors"
            ]
            there = path.format(server=server_id, hypervisor=hypervisors[0]["id"])
            reply = await world.ask("GET", NOVA + there, token=token, version=at)
            assert reply.status_code == (200 if first <= version <= last else 404), (version, reply.text)


async def test_versions_are_echoed_and_unknown_ones_refused_with_the_range(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        path = f"{NOVA}/servers"
        for asked, got in ((None, "2.1"), ("2.30", "2.30"), ("latest", "2.100"), ("2.1", "2.1")):
            reply = await world.ask("GET", path, token=token, version=asked)
            assert reply.status_code == 200
            assert reply.headers["openstack-api-version"] == f"compute {got}"
            assert reply.headers["x-openstack-nova-api-version"] == got
            assert reply.headers["vary"] == "OpenStack-API-Version, X-OpenStack-Nova-API-Version"
        old = await world.ask("GET", path, token=token, headers={"X-OpenStack-Nova-API-Version": "2.53"})
        assert old.headers["openstack-api-version"] == "compute 2.53"
        both = {"OpenStack-API-Version": "volume 3.71, compute 2.5", "X-OpenStack-Nova-API-Version": "2.9"}
        assert (await world.ask("GET", path, token=token, headers=both)).headers[
            "openstack-api-version"
        ] == "compute 2.5"
        for unknown in ("2.101", "2.0", "3.1", "1.1", "2.100000"):
            reply = await world.ask("GET", path, token=token, version=unknown)
            assert reply.status_code == 406
            message = reply.json()["computeFault"]["message"]
            assert "2.1" in message
            assert "2.100" in message
        for malformed in ("2", "2.x", "two", "2.1.1", "02.1", "2.01", "-2.1", "2." + "9" * 30):
            reply = await world.ask("GET", path, token=token, version=malformed)
            assert reply.status_code == 400, malformed
            assert "badRequest" in reply.json()


STRICT_SINCE_75 = ["/servers", "/servers/detail", "/flavors", "/os-services", "/limits"]


@pytest.mark.parametrize("path", STRICT_SINCE_75)
async def test_unknown_query_keys_are_ignored_before_75_and_refused_after(tmp_path: Path, path: str) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for version, code in ((1, 200), (74, 200), (75, 400), (96, 400)):
            reply = await world.ask("GET", f"{NOVA}{path}?colour=blue", token=token, version=f"2.{version}")
            assert reply.status_code == code, (version, reply.text)


async def test_os_migrations_filters_and_pages(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        server_ids = [await moving(world, token) for _ in range(3)]

        async def of(query: str, version: str = "2.80") -> Any:
            reply = await world.ask("GET", f"{NOVA}/os-migrations?{query}", token=token, version=version)
            assert reply.status_code == 200, reply.text
            return reply.json()

        assert [m["instance_uuid"] for m in (await of(""))["migrations"]] == server_ids[::-1]
        assert len((await of(f"instance_uuid={server_ids[0]}"))["migrations"]) == 1
        assert len((await of("host=h2"))["migrations"]) == 3
        assert (await of("source_compute=h2"))["migrations"] == []
        assert (await of("status=completed"))["migrations"] == []
        assert (await of("colour=blue", "2.58"))["migrations"]
        first = await of("limit=2")
        assert len(first["migrations"]) == 2
        (link,) = first["migrations_links"]
        rest = (await world.ask("GET", link["href"], token=token, version="2.80")).json()
        assert [m["instance_uuid"] for m in rest["migrations"]] == server_ids[:1]
        assert "migrations_links" not in rest
        for bad in (
            "colour=blue",
            "limit=-1",
            "changes-since=yesterday",
            "marker=nowhere",
            f"marker={server_ids[0]}",
            "changes-since=2026-01-02T00:00:00&changes-before=2026-01-01T00:00:00",
        ):
            reply = await world.ask("GET", f"{NOVA}/os-migrations?{bad}", token=token, version="2.80")
            assert reply.status_code == 400, bad
        alice = await world.token("alice", "red")
        assert (await world.ask("GET", f"{NOVA}/os-migrations", token=alice)).status_code == 403
