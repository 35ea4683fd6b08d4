"""Every answer of compute is what Nova's published schemas say, at each microversion where something changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.api.http.microversions import MAXIMUM
from droveway.api.routes import NOVA as NOVA_PATH
from droveway.api.routes import ROUTES
from droveway.domain.model import SagaKind
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from tests.api import nova_schemas
from tests.api.network_world import FLAT
from tests.api.test_server_networks import NET, made, network, networked, wired
from tests.api.test_server_volumes import held
from tests.api.world import HASH, NOVA, World, booted, make_image, make_server

CONSOLE = (
    "/os-console-auth-tokens/{console_token}"  # told once, of a console that was asked for: tests/api/test_consoles.py
)
READS = sorted(
    {route.path for route in ROUTES if route.method == "GET" and route.path.startswith(NOVA_PATH + "/")}
    - {NOVA_PATH + CONSOLE}
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx7gGvA0y0m2n0Kk1q4VqOa1P6q3xK6cF1nN2bq1dX9 alice"


async def furnished(world: World, token: str) -> dict[str, str]:
    """A server that is being moved, with all that can be said of one; the values of the paths' named segments."""
    image_id = await make_image(world, token, visibility="public", hw_disk_bus="virtio")
    private = {"id": "own", "name": "own", "ram": 1, "vcpus": 1, "disk": 0, "os-flavor-access:is_public": False}
    await world.ask("POST", f"{NOVA}/flavors", token=token, json={"flavor": private})
    wires = await _wires(world, token)
    group = {"server_group": {"name": "g", "policies": ["anti-affinity"]}}
    grouped = await world.ask("POST", f"{NOVA}/os-server-groups", token=token, json=group)
    group_id = grouped.json()["server_group"]["id"]
    await world.ask("POST", f"{NOVA}/os-keypairs", token=token, json={"keypair": {"name": "k", "public_key": KEY}})
    more = {"metadata": {"a": "1"}, "tags": ["t"], "description": "d", "key_name": "k", "user_data": "aGVsbG8="}
    server = {"name": "s", "imageRef": image_id, "flavorRef": "tiny", "networks": [{"port": wires["port"]}], **more}
    body = {"server": server, "os:scheduler_hints": {"group": group_id}}
    reply = await world.ask("POST", f"{NOVA}/servers", token=token, version="2.96", json=body)
    assert reply.status_code == 202, reply.text
    server_id = await wired(world, reply)
    floating = {"floating_network_id": wires["outside"], "port_id": wires["port"]}
    wires["floating_ip"] = (await made(world, token, "floatingip", **floating))["id"]
    await booted(world, server_id)
    volume_id = await held(world, server_id, tag="disk")
    failed = await make_server(world, token, image_id)
    fault = {"code": 500, "message": "no", "created_us": 1_700_000_000_000_000}
    await world.store.run(instances.set_, failed, vm_state="error", task_state=None, fault=fault)
    await world.ask("POST", f"{NOVA}/flavors/tiny/os-extra_specs", token=token, json={"extra_specs": {"own:x": "y"}})
    aggregate = {"aggregate": {"name": "a", "availability_zone": "nova"}}
    collected = await world.ask("POST", f"{NOVA}/os-aggregates", token=token, json=aggregate)

    def move(tx: Tx) -> None:
        instances.intend(tx, server_id, SagaKind.LIVE_MIGRATION, {"destination": "h2"}, "req-1", "u1")

    await world.store.run(move)
    server = (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)).json()["server"]
    return wires | {
        "server_id": server_id,
        "project_id": server["tenant_id"],
        "target": server["tenant_id"],
        "class": "default",
        "flavor": "tiny",
        "group": group_id,
        "keypair": "k",
        "id": image_id,
        "aggregate": str(collected.json()["aggregate"]["id"]),
        "host": "h1",
        "request_id": "req-1",
        "migration_id": "1",
        "alias": "OS-DCF",
        "tag": "t",
        "volume_id": volume_id,
        "before": "2026-11-30 12:00:00",
    }


async def _wires(world: World, token: str) -> dict[str, str]:
    """A network with a port that a floating IP may lead to."""
    outside, inside = await network(world, token, "out", "192.0.2.0/24", **FLAT), await network(world, token, "in")
    port = await made(world, token, "port", network_id=inside)
    router = await made(world, token, "router", name="r", external_gateway_info={"network_id": outside})
    subnet = {"subnet_id": port["fixed_ips"][0]["subnet_id"]}
    reply = await world.ask("PUT", f"{NET}/routers/{router['id']}/add_router_interface", token=token, json=subnet)
    assert reply.status_code == 200, reply.text
    group = port["security_groups"][0]
    return {"outside": outside, "network": "in", "network_id": inside, "port": port["id"], "group_id": group}


# Segments that mean something else than elsewhere.
OTHERWISE = {
    "/servers/{server_id}/metadata/{key}": {"key": "a"},
    "/images/{id}/metadata/{key}": {"key": "hw_disk_bus"},
    "/flavors/{flavor}/os-extra_specs/{key}": {"key": "own:x"},
    "/flavors/{flavor}/os-flavor-access": {"flavor": "own"},
    "/os-floating-ips/{id}": {"id": "{floating_ip}"},
    "/os-networks/{id}": {"id": "{network_id}"},
    "/os-tenant-networks/{id}": {"id": "{network_id}"},
    "/os-security-groups/{id}": {"id": "{group_id}"},
}


async def _hypervisor(world: World, token: str, version: int, path: str) -> str:
    if path.endswith(("/search", "/servers")):
        return "h1"
    reply = await world.ask("GET", f"{NOVA}/os-hypervisors", token=token, version=f"2.{version}")
    return str(reply.json()["hypervisors"][0]["id"])


def _filled(path: str, values: dict[str, str]) -> str:
    for name, value in OTHERWISE.get(path.removeprefix(NOVA_PATH), {}).items():
        path = path.replace(f"{{{name}}}", value)
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def _edges(path: str) -> list[int]:
    ours = [route for route in ROUTES if route.method == "GET" and route.path == path]
    found = nova_schemas.edges(f"GET {path.removeprefix(NOVA_PATH)}", MAXIMUM)
    found |= {edge for route in ours for edge in (route.since, route.until) if edge <= MAXIMUM}
    return sorted(found)


# There is no such thing here; and what Nova has removed at all microversions, where it was known until 2.35.
NOTHING = ("/shares/{share_id}", "/os-agents")
READERS = {1, 3, 16, 47, 51, 62, 84, 90, MAXIMUM}  # where readers see something else than administrators


@pytest.mark.parametrize("user", ["admin", "reader"])
async def test_what_is_read_is_as_nova_says(tmp_path: Path, user: str) -> None:
    async with networked(tmp_path) as world:
        admin = await world.token()
        values = await furnished(world, admin)
        token = admin if user == "admin" else await _reader_beside(world)
        found: list[str] = []
        for path in READS:
            call = f"GET {path.removeprefix(NOVA_PATH)}"
            for version in _edges(path) if user == "admin" else READERS & set(_edges(path)):
                if "{hypervisor}" in path:
                    values["hypervisor"] = await _hypervisor(world, admin, version, path)
                reply = await world.ask("GET", _filled(path, values), token=token, version=f"2.{version}")
                said = _judged(call, version, reply, is_admin=user == "admin")
                if said is not None:
                    found.append(f"2.{version} {call}: {said}")
        assert not found, "\n".join(found)


async def _reader_beside(world: World) -> str:
    """Of someone who may read what is in the project of the administrator."""

    def write(tx: Tx) -> None:
        project = accounts.find_project(tx, name="admin", domain_id="default")
        assert project is not None
        accounts.grant(tx, accounts.add_user(tx, "ria", HASH), project["id"], "reader")

    await world.store.run(write)
    return await world.token("ria", "admin")


def _judged(call: str, version: int, reply: Any, *, is_admin: bool) -> str | None:
    """What is wrong with that answer."""
    there = nova_schemas.has(call, version)
    if reply.status_code == 404:
        expected = not there or call.endswith(NOTHING) or ("keypair" in call and not is_admin)
        return None if expected else f"Nova has it, and it is not found here: {reply.text[:200]}"
    if reply.status_code == 403:
        return "refused to an administrator" if is_admin else None
    if not there:
        return f"Nova has it not, and it is answered {reply.status_code}"
    if reply.status_code >= 400:
        return f"{reply.status_code} {reply.text[:200]}"
    body = reply.json() if reply.content else None
    for log in body.values() if "usage_audit_log" in call else ():
        assert log["hosts_not_run"] == ["h1", "h2"]  # names, as Nova's own code gives them; its schema says uuid
        log["hosts_not_run"] = []
    return nova_schemas.wrong(call, "response", version, body)
