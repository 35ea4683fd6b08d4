"""What tests of Networking share: a world that has it, and requests in a line."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from droveway.api.wiring import NetworkSettings
from tests.api.world import World, in_world

NET = "/network/v2.0"
SINGLE = {
    "networks": "network",
    "subnets": "subnet",
    "subnetpools": "subnetpool",
    "ports": "port",
    "routers": "router",
    "floatingips": "floatingip",
    "security-groups": "security_group",
    "security-group-rules": "security_group_rule",
}
FLAT = {
    "router:external": True,
    "provider:network_type": "flat",
    "provider:physical_network": "physnet1",
}


@contextlib.asynccontextmanager
async def networked(directory: Path, **settings: Any) -> AsyncIterator[World]:
    async with in_world(directory, network=NetworkSettings(is_on=True, **settings)) as world:
        yield world


async def send(world: World, token: str, method: str, path: str, body: Any = None) -> httpx.Response:
    more = {} if body is None else {"json": body}
    return await world.ask(method, f"{NET}/{path}", token=token, **more)


async def refused(world: World, token: str, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    """The status, the type and the sentence of a refusal."""
    reply = await send(world, token, method, path, body)
    assert reply.status_code >= 400, reply.text
    error = reply.json()["NeutronError"]
    assert set(error) == {"type", "message", "detail"}
    return reply.status_code, error["type"], error["message"]


async def make(world: World, token: str, path: str, **given: Any) -> dict[str, Any]:
    single = SINGLE[path]
    reply = await send(world, token, "POST", path, {single: given})
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()[single]
    return made


async def get(world: World, token: str, path: str) -> Any:
    reply = await send(world, token, "GET", path)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    return next(value for name, value in body.items() if not name.endswith("_links"))


async def change(world: World, token: str, path: str, **given: Any) -> dict[str, Any]:
    single = SINGLE[path.split("/", maxsplit=1)[0]]
    reply = await send(world, token, "PUT", path, {single: given})
    assert reply.status_code == 200, reply.text
    made: dict[str, Any] = reply.json()[single]
    return made


async def make_subnet(world: World, token: str, network_id: str, cidr: str, **more: Any) -> dict[str, Any]:
    version = 6 if ":" in cidr else 4
    return await make(world, token, "subnets", network_id=network_id, cidr=cidr, ip_version=version, **more)
