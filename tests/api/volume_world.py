"""An API with block storage: a backend that has reported, and what its sagas would have done, done by hand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy import select, update

from droveway.api.wiring import VolumeSettings
from droveway.domain.liveness import State
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.model import BackendSettings, Clone, StorageGuarantees, StoragePool
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.schema import sagas
from droveway.store.volume import backends, snapshots, volumes
from droveway.store.work import subjects
from tests.api.world import World, in_world

VOL = "/volume/v3"
FAST, SLOW = "h1@fast", "h2@slow"
GUARANTEES = StorageGuarantees(
    clone=Clone.INSTANT,
    snapshots=True,
    independent_snapshots=True,
    grows_in_use=True,
    reverts=True,
    thin=True,
    changed_blocks=True,
    exclusive="Locks of the pool.",
    fencing="The export ends.",
    isolation="Nothing else.",
)


class VolumeWorld:
    """The world, and tokens of its people: alice and rita in red, bob in blue."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tokens: dict[str, str] = {}

    async def token(self, who: str) -> str:
        if who not in self.tokens:
            project = {"admin": "admin", "bob": "blue"}.get(who, "red")
            self.tokens[who] = await self.world.token(who, project)
        return self.tokens[who]

    async def ask(self, method: str, path: str, body: Any = None, *, who: str = "alice", version: int = 71) -> Any:
        headers = {"OpenStack-API-Version": f"volume 3.{version}"}
        more = {} if body is None else {"json": body}
        return await self.world.ask(method, f"{VOL}/{path}", token=await self.token(who), headers=headers, **more)

    async def get(self, path: str, **more: Any) -> Any:
        reply: httpx.Response = await self.ask("GET", path, **more)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def make(self, *, who: str = "alice", done: bool = True, **body: Any) -> dict[str, Any]:
        """A volume; `done`: its saga has ended."""
        reply = await self.ask("POST", "volumes", {"volume": {"size": 1, **body}}, who=who)
        assert reply.status_code == 202, reply.text
        made: dict[str, Any] = reply.json()["volume"]
        if done:
            await self.done(made["id"], status="available", host=FAST)
        return made

    async def project(self, who: str = "alice") -> str:
        """The id of theirs."""
        token = await self.token(who)
        reply = await self.world.ask("GET", "/identity/v3/auth/tokens", token=token, headers={"X-Subject-Token": token})
        return str(reply.json()["token"]["project"]["id"])

    async def snapshot(self, volume_id: str, *, who: str = "alice", done: bool = True, **body: Any) -> dict[str, Any]:
        reply = await self.ask("POST", "snapshots", {"snapshot": {"volume_id": volume_id, **body}}, who=who)
        assert reply.status_code == 202, reply.text
        made: dict[str, Any] = reply.json()["snapshot"]
        if done:
            await self.end_sagas(made["id"])
            await self.world.store.run(snapshots.set_, made["id"], status="available")
        return made

    async def done(self, volume_id: str, **values: Any) -> None:
        """What a saga would have written at its end."""
        await self.end_sagas(volume_id)
        await self.world.store.run(volumes.set_, volume_id, **values)

    async def end_sagas(self, subject_id: str) -> None:
        def write(tx: Tx) -> None:
            mine = sagas.c.subject_id == subject_id
            for saga_id in list(tx.execute(select(sagas.c.id).where(mine)).scalars()):
                subjects.release(tx, saga_id)
            tx.execute(update(sagas).where(mine).values(status="done", ended=True))

        await self.world.store.run(write)

    async def sagas_of(self, subject_id: str) -> list[tuple[str, dict[str, Any]]]:
        """Their kinds and params, the oldest first."""
        query = (
            select(sagas.c.kind, sagas.c.params).where(sagas.c.subject_id == subject_id).order_by(sagas.c.created_at_us)
        )
        return [(row[0], row[1]) for row in await self.world.store.read(lambda tx: list(tx.execute(query)))]


def add_backend(tx: Tx, name: str, guarantees: StorageGuarantees = GUARANTEES) -> None:
    services.register(tx, name, VOLUME, "nova")
    services.record_verdicts(tx, [services.Verdict(name, VOLUME, State.ALIVE, "its beat arrives", tx.now_us)])
    settings = BackendSettings(volume_backend_name=name.partition("@")[2])
    backends.report(tx, name, StoragePool(100.0, 90.0, guarantees, "simulated", "", settings), 1)


@contextlib.asynccontextmanager
async def volume_world(directory: Path, *, quotas: VolumeQuotas | None = None) -> AsyncIterator[VolumeWorld]:
    settings = {} if quotas is None else {"volumes": VolumeSettings(quotas)}
    async with in_world(directory, **settings) as world:
        for name in (FAST, SLOW):
            await world.store.run(add_backend, name)
        yield VolumeWorld(world)


def without_snapshots() -> StorageGuarantees:
    return msgspec.structs.replace(GUARANTEES, snapshots=False, grows_in_use=False, reverts=False)
