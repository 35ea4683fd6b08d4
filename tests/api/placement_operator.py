"""An admin who asks Placement, for the tests of it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import update

from droveway.domain.model import Resources
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.schema import hosts as host_rows
from tests.api.world import RESOURCES, World, booted, make_image, make_server

PLC = "/placement"
RPS = f"{PLC}/resource_providers"
LATEST = 39


class Operator:
    """An admin and the world it asks."""

    def __init__(self, world: World, token: str) -> None:
        self.world, self.token = world, token

    async def ask(self, method: str, path: str, minor: int | str = LATEST, **more: Any) -> Any:
        headers = {"OpenStack-API-Version": f"placement {minor if isinstance(minor, str) else f'1.{minor}'}"}
        return await self.world.ask(method, path, token=self.token, headers=headers, **more)

    async def get(self, path: str, minor: int = LATEST) -> Any:
        reply = await self.ask("GET", path, minor)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def names(self, query: str = "", minor: int = LATEST) -> list[str]:
        return [each["name"] for each in (await self.get(RPS + query, minor))["resource_providers"]]

    async def candidates(self, query: str, minor: int = LATEST) -> list[str]:
        """The uuids of the hosts on which it would fit."""
        return list((await self.get(f"{PLC}/allocation_candidates?{query}", minor))["provider_summaries"])

    async def uuid(self, host: str = "h1") -> str:
        return (await self.world.store.read(hosts.facts, host)).uuid

    async def server(self, host: str = "h1") -> str:
        server_id = await make_server(self.world, self.token, await make_image(self.world, self.token))
        await booted(self.world, server_id, host)
        return server_id


async def operator(world: World) -> Operator:
    return Operator(world, await world.token())


def detail(reply: Any) -> str:
    return str(reply.json()["errors"][0]["detail"])


async def report(world: World, host: str, **changes: Any) -> None:
    resources: Resources = msgspec.structs.replace(RESOURCES, hypervisor_hostname=f"{host}.lab", **changes)

    def write(tx: Tx) -> None:
        tx.execute(update(host_rows).where(host_rows.c.name == host).values(resources=msgspec.to_builtins(resources)))

    await world.store.run(write)
