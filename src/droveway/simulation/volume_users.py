"""Users of volumes: they make, copy, grow, attach and delete them at any moment, and most of it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from droveway.domain.faults import BadRequest, Busy, Conflict, NotFound, TooLarge
from droveway.domain.model import VmState
from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.model import VolumeStatus
from droveway.domain.volume.quota import VolumeQuotas
from droveway.simulation.apis import IMAGE_ID
from droveway.simulation.client import GIVES_UP_S, Client
from droveway.simulation.guest_volumes import VolumeSnapshot
from droveway.simulation.world import FLAVORS
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.volume import making, snapshots, types, volumes
from droveway.store.volume.making import Asked, NewSnapshot, NewVolume
from droveway.store.volume.rows import SnapshotRow, VolumeRow

if TYPE_CHECKING:
    from droveway.simulation.machines import ControlProcess
    from droveway.simulation.world import World

PAUSE_S = 0.4
MOST, SNAPSHOTS_MOST = 8, 5
FITS = 0.85  # of the wishes to attach are of a volume that is free
TRIES, AGAIN_S = 60, 3.0
QUOTAS = VolumeQuotas()
SERVERS = "/compute/v2.1/servers"
ASKED = Asked("volume user")


class VolumeUsers:
    """One person with a hand in everything. `stop` and then `remove_all`."""

    def __init__(self, world: World) -> None:
        assert world.volumes is not None, "it has volumes"
        self._world, self._rng = world, world.volumes.rng
        self._client, self._stopped = Client(world), False
        self._project_id, self._user_id = world.database.look(_admin)
        world.database.commit(types.seed, world.clock.now_us())
        self._acts = {
            self._create: 20,
            self._snapshot: 10,
            self._extend: 5,
            self._revert: 3,
            self._attach: 20,
            self._detach: 14,
            self._boot: 4,
            self._delete_snapshot: 6,
            self._delete: 8,
        }
        world.loop.create_task(self._person(), name="user of volumes")

    def stop(self) -> None:
        self._stopped = True

    async def _person(self) -> None:
        while not self._stopped:
            await asyncio.sleep(self._rng.expovariate(1.0 / PAUSE_S))
            if not self._stopped:
                (act,) = self._rng.choices(list(self._acts), list(self._acts.values()))
                await act()

    # -- asking -------------------------------------------------------------------------------------------------------
    def _seen(self) -> VolumeSnapshot:
        return self._world.database.look(VolumeSnapshot)

    def _any_volume(self, *statuses: str) -> VolumeRow | None:
        found = [row for row in self._seen().volumes.values() if not statuses or row["status"] in statuses]
        return self._rng.choice(sorted(found, key=lambda row: row["id"])) if found else None

    def _any_snapshot(self) -> SnapshotRow | None:
        found = sorted(self._seen().snapshots.values(), key=lambda row: row["id"])
        return self._rng.choice(found) if found else None

    async def _do(self, what: str, write: Callable[[Tx], object]) -> None:
        """By any control that lives; it may die with the wish, and the user gives up."""
        control = self._client.any_control()
        if control is None:
            return
        outcome = ["no answer"]
        await asyncio.wait({control.spawn(_try(control, write, outcome))}, timeout=GIVES_UP_S)
        self._world.counts[f"asked to {what}: {outcome[-1]}"] += 1
        self._world.trace.note(f"user of volumes {what} by {control.name}: {outcome[-1]}")

    async def _ask(self, what: str, method: str, target: str, body: Any = None) -> None:
        control = self._client.any_control()
        if control is not None:
            reply = await self._client.ask(control, method, target, body)
            self._world.counts[f"asked to {what}: {reply.word}"] += 1
            self._world.trace.note(f"user of volumes {what} {target[-36:]} by {control.name}: {reply.word}")

    # -- volumes ------------------------------------------------------------------------------------------------------
    async def _create(self) -> None:
        """Empty, of an image, of a snapshot or of another volume."""
        seen, rng = self._seen(), self._rng
        if len(seen.volumes) >= MOST:
            return
        size_gb, kind = rng.randint(1, 4), rng.random()
        source: dict[str, Any] = {}
        snapshot, volume = self._any_snapshot(), self._any_volume()
        if kind < 0.3 and snapshot is not None:
            source, size_gb = {"snapshot_id": snapshot["id"]}, max(size_gb, snapshot["size_gb"])
        elif kind < 0.45 and volume is not None:
            source, size_gb = {"source_volume_id": volume["id"]}, max(size_gb, volume["size_gb"])
        elif kind < 0.55:
            source = {"image_id": IMAGE_ID}
        new = NewVolume(self._project_id, self._user_id, size_gb, **source)
        await self._do("create a volume", lambda tx: making.create(tx, new, QUOTAS))

    async def _extend(self) -> None:
        row = self._any_volume()
        if row is not None:
            of, size_gb = row["id"], row["size_gb"] + self._rng.randint(0, 2)
            await self._do(
                "extend a volume", lambda tx: making.extend(tx, volumes.get(tx, of), size_gb, ASKED, QUOTAS, "")
            )

    async def _delete(self) -> None:
        row = self._any_volume()
        if row is not None:
            await self._delete_volume(row["id"], cascade=self._rng.random() < 0.5)

    async def _delete_volume(self, of: str, *, cascade: bool) -> None:
        await self._do("delete a volume", lambda tx: making.delete(tx, volumes.get(tx, of), ASKED, cascade=cascade))

    # -- snapshots ----------------------------------------------------------------------------------------------------
    async def _snapshot(self) -> None:
        row = self._any_volume()
        if row is not None and len(self._seen().snapshots) < SNAPSHOTS_MOST:
            of, new = row["id"], NewSnapshot(self._user_id, force=True)
            await self._do(
                "snapshot a volume", lambda tx: making.create_snapshot(tx, volumes.get(tx, of), new, QUOTAS, "")
            )

    async def _revert(self) -> None:
        one = self._any_snapshot()
        if one is not None:
            of, params = one["volume_id"], {"snapshot_id": one["id"]}
            await self._do(
                "revert a volume", lambda tx: making.begin(tx, Verb.REVERT, volumes.get(tx, of), params, ASKED)
            )

    async def _delete_snapshot(self) -> None:
        one = self._any_snapshot()
        if one is not None:
            await self._delete_one(one["id"])

    async def _delete_one(self, of: str) -> None:
        await self._do("delete a snapshot", lambda tx: making.delete_snapshot(tx, snapshots.get(tx, of), ASKED))

    # -- servers ------------------------------------------------------------------------------------------------------
    async def _attach(self) -> None:
        row = self._any_volume(VolumeStatus.AVAILABLE) if self._rng.random() < FITS else self._any_volume()
        servers = [one for one in self._world.database.living() if one.vm_state == VmState.ACTIVE.value]
        if self._rng.random() < FITS:
            servers = [one for one in servers if one.task_state is None]
        if row is not None and servers:
            target = f"{SERVERS}/{self._rng.choice(servers).id}/os-volume_attachments"
            await self._ask("attach a volume", "POST", target, {"volumeAttachment": {"volumeId": row["id"]}})

    async def _boot(self) -> None:
        """A server that begins from a volume: one that is there, or one that is made of the image for it."""
        rng, row = self._rng, self._any_volume(VolumeStatus.AVAILABLE)
        root: dict[str, Any] = {"boot_index": 0, "destination_type": "volume"}
        if row is not None and rng.random() < 0.4:
            root |= {"source_type": "volume", "uuid": row["id"]}
        elif len(self._seen().volumes) < MOST:
            root |= {"source_type": "image", "uuid": IMAGE_ID, "volume_size": 2}
        else:
            return
        root["delete_on_termination"] = rng.random() < 0.5
        server = {"name": "begins", "flavorRef": rng.choice(FLAVORS).id, "block_device_mapping_v2": [root]}
        await self._ask("boot from a volume", "POST", SERVERS, {"server": server | {"networks": "none"}})

    async def _detach(self) -> None:
        attached = sorted(self._seen().attached.values(), key=lambda row: row["id"])
        if self._rng.random() < FITS:  # no server lets go of what it begins from
            attached = [row for row in attached if row["boot_index"] != 0]
        if attached:
            row = self._rng.choice(attached)
            target = f"{SERVERS}/{row['instance_id']}/os-volume_attachments/{row['volume_id']}"
            await self._ask("detach a volume", "DELETE", target)

    # -- the end ------------------------------------------------------------------------------------------------------
    async def remove_all(self) -> None:
        """Once the servers are gone nothing is in the way but what was made of what: the copies go first."""
        for _ in range(TRIES):
            seen = self._seen()
            if not seen.volumes and not seen.snapshots:
                return
            for row in seen.volumes.values():
                await self._delete_volume(row["id"], cascade=False)
            for one in seen.snapshots.values():
                await self._delete_one(one["id"])
            await asyncio.sleep(AGAIN_S)
        seen = self._seen()
        left = {row["id"]: (row["status"], row["fault"]) for row in (*seen.volumes.values(), *seen.snapshots.values())}
        self._world.broken(f"a user of volumes could not remove {left}")


def _admin(tx: Tx) -> tuple[str, str]:
    """Whose servers are those of the other users."""
    user = accounts.find_user(tx, name="admin", domain_id=accounts.DEFAULT_DOMAIN_ID)
    assert user is not None and user["default_project_id"] is not None, "it was made at the start"
    return user["default_project_id"], user["id"]


async def _try(control: ControlProcess, write: Callable[[Tx], object], outcome: list[str]) -> None:
    try:
        await control.door.run(write)
        outcome.append("ok")
    except Busy:
        outcome.append("busy")
    except (BadRequest, Conflict, NotFound, TooLarge):
        outcome.append("refused")
