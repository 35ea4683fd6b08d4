"""What a server has of its image: taken when it is made, counted as what it is, refused when it cannot be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from droveway.control.scheduling import requests
from droveway.domain.hardware import Hardware
from droveway.domain.model import Flavor
from droveway.domain.placement import PlacementRequest
from droveway.store.compute import flavors, instances
from droveway.store.engine.transaction import Tx
from tests.api.test_images_exact import patch
from tests.api.test_uploads import queued
from tests.api.world import IMG, NOVA, World, booted, in_world, make_image, make_server, put_data, reason
from tests.domain.test_image_format import qcow2

WISHES = {
    "hw_machine_type": "q35",
    "hw_architecture": "x86_64",
    "hw_disk_bus": "sata",
    "img_hv_type": "qemu",
    "trait:HW_CPU_X86_SSE": "required",
    "os_distro": "debian",
}


async def seen(world: World, server: str) -> tuple[Any, PlacementRequest, PlacementRequest]:
    """What a host is told of it, and what is asked of hosts, when it boots and when it moves."""

    def read(tx: Tx) -> tuple[Any, PlacementRequest, PlacementRequest]:
        row = instances.get(tx, server)
        spec = instances.spec(tx, row, "/images", with_image=False)
        return spec, requests.to_boot(tx, row, {}), requests.ask_of(tx, requests._user_request(row, host=None))

    return await world.store.read(read)


async def test_a_later_change_of_the_image_is_no_change_of_its_servers(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        bob, alice = await world.token("bob", "blue"), await world.token("alice", "red")
        image = await make_image(world, bob, visibility="community", **WISHES)
        server = await make_server(world, alice, image)
        await booted(world, server)
        before = await seen(world, server)
        spec, ask, _ = before
        assert (spec.machine_type, spec.hardware) == ("q35", Hardware(disk_bus="sata"))
        assert (ask.machine_type, ask.architecture, ask.hypervisor_type) == ("q35", "x86_64", "qemu")
        assert ask.extra_specs == {"trait:HW_CPU_X86_SSE": "required"}
        changes = [
            {"op": "add", "path": f"/{name}", "value": value}
            for name, value in {
                "hw_machine_type": "no-such-machine",
                "hw_architecture": "aarch64",
                "hw_disk_bus": "scsi",
                "hw_numa_nodes": "2",
            }.items()
        ]
        assert (await patch(world, bob, image, changes)).status_code == 200
        assert await seen(world, server) == before
        assert (await world.ask("DELETE", f"{IMG}/images/{image}", token=bob)).status_code == 204
        assert await seen(world, server) == before


async def add_flavor(world: World, name: str, **sizes: Any) -> None:
    flavor = Flavor(id=name, name=name, vcpus=2, ram_mb=128, **sizes)
    await world.store.run(flavors.create, flavor)


async def test_all_the_disk_that_a_server_has_is_counted(tmp_path: Path) -> None:
    async with in_world(tmp_path, max_virtual_bytes=1 << 50) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        big = await queued(world, alice, "qcow2")
        sparse = qcow2(virtual=900 << 30, l1_size=1800) + b"\0" * 300_000
        assert (await put_data(world, alice, big, sparse)).status_code == 204
        await add_flavor(world, "zero", disk_gb=0)
        await add_flavor(world, "more", disk_gb=2, ephemeral_gb=3, swap_mb=1025)
        server = await make_server(world, alice, big, flavorRef="zero")
        spec, ask, _ = await seen(world, server)
        assert (spec.disk_gb, ask.disk_gb) == (0, 900)  # as large as its image, which no host here is
        await booted(world, server)
        shown = await world.ask("GET", f"{NOVA}/os-hypervisors/detail", token=admin, version="2.87")
        assert [one["local_gb_used"] for one in shown.json()["hypervisors"]] == [900, 0]
        server = await make_server(world, alice, await make_image(world, alice), flavorRef="more")
        spec, ask, _ = await seen(world, server)
        assert (spec.disk_gb, spec.ephemeral_gb, spec.swap_mb, ask.disk_gb) == (2, 3, 1025, 2 + 3 + 2)


async def test_a_wish_that_is_not_heeded_makes_no_server(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for name, value in (
            ("hw_cpu_policy", "mixed"),
            ("os_secure_boot", "required"),
            ("hw_vif_model", "spapr-vlan"),
            ("hw_mem_page_size", "1GB"),
            ("trait:CUSTOM_GPU", "required"),
            ("hw_disk_bus", "usb"),
            ("hw_cpu_sockets", "3"),
        ):
            image = await make_image(world, token, **{name: value})
            server = {"name": "g", "imageRef": image, "flavorRef": "tiny", "networks": "none"}
            reply = await world.ask("POST", f"{NOVA}/servers", token=token, version="2.96", json={"server": server})
            assert reply.status_code == 400, name
            assert (name in reason(reply)) or name == "hw_cpu_sockets"
        await add_flavor(world, "old", disk_gb=1, extra_specs={"hw:boot_menu": "true"})  # an older release let it pass
        server = {"name": "g", "imageRef": await make_image(world, token), "flavorRef": "old", "networks": "none"}
        reply = await world.ask("POST", f"{NOVA}/servers", token=token, version="2.96", json={"server": server})
        assert (reply.status_code, "hw:boot_menu=true" in reason(reply)) == (400, True)


async def test_an_image_may_demand_a_config_drive(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for properties, asked, drive in (
            ({"img_config_drive": "mandatory"}, False, "True"),
            ({"img_config_drive": "optional"}, False, ""),
            ({}, True, "True"),
        ):
            image = await make_image(world, token, **properties)
            server = await make_server(world, token, image, config_drive=asked)
            shown = (await world.ask("GET", f"{NOVA}/servers/{server}", token=token)).json()["server"]
            assert shown["config_drive"] == drive
