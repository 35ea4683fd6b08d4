"""What a guest has left on a host that did not answer when it was to be deleted there is deleted when that answers."""

from __future__ import annotations

import structlog

from droveway.control.engine.commands import send
from droveway.control.engine.nudges import Nudges, wait
from droveway.control.engine.saga import ControlSettings, NotYet
from droveway.control.liveness.admission import Admission
from droveway.domain.faults import Busy, NotFound, Stale, StepFailed, Unreachable
from droveway.domain.model import VmState, of_instance
from droveway.ports.bus import ControlBus, DropFiles
from droveway.store.compute import file_cleanups, instances
from droveway.store.engine.transaction import Store, Tx
from droveway.store.rows import FileCleanupRow

log = structlog.get_logger("droveway.guests")
INTERVAL_S, AGAIN_S = 30.0, 5.0  # between two looks: where nothing is left, and where something is
AT_ONCE = 64


class FileCleanup:
    def __init__(
        self, store: Store, bus: ControlBus, nudges: Nudges, admission: Admission, settings: ControlSettings
    ) -> None:
        self._store, self._bus, self._nudges = store, bus, nudges
        self._admission, self._settings = admission, settings

    async def run(self) -> None:
        """Until cancelled."""
        with self._nudges.listen(file_cleanups.DEFERRED) as woken:
            while True:
                is_left = False
                try:
                    is_left = await self._once()
                except Busy as fault:
                    log.warning("file cleanup postponed: the store is busy", because=fault.reason)
                await wait(woken, AGAIN_S if is_left else INTERVAL_S)

    async def _once(self) -> bool:
        """Whether something was left."""
        rows = await self._store.read(file_cleanups.some, AT_ONCE)
        for row in rows:
            await self._store.run(file_cleanups.tried, row["host"], row["instance_id"])  # the others have their turn
            try:
                await self._delete(row)
            except (Unreachable, StepFailed, Stale, NotYet) as fault:
                log.info("file cleanup postponed", host=row["host"], instance=row["instance_id"], because=str(fault))
        return bool(rows)

    async def _delete(self, row: FileCleanupRow) -> None:
        """Only where the guest does not live, and while no saga is at work on it."""
        host, instance_id = row["host"], row["instance_id"]
        await self._admission.check(host)
        generation = await self._store.run(_may_delete, row)
        if generation is None:
            return
        timeout_s = self._settings.long_command_timeout_s
        await send(self._bus, host, of_instance(instance_id), generation, DropFiles(row["mark"]), timeout_s)
        await self._store.run(file_cleanups.forget, host, instance_id, row["mark"])
        log.info("file cleanup done", host=host, instance=instance_id)


def _may_delete(tx: Tx, row: FileCleanupRow) -> int | None:
    try:
        instance = instances.get(tx, row["instance_id"], deleted=True)
    except NotFound:  # its row has aged out: the audit tells of what it left
        file_cleanups.forget(tx, row["host"], row["instance_id"])
        return None
    if instance["host"] == row["host"]:
        file_cleanups.forget(tx, row["host"], row["instance_id"])
        return None
    is_found = instance["vm_state"] in (VmState.ACTIVE, VmState.PAUSED)  # on another host, which was away
    if row["when_deleted"] and not (instance["deleted"] or is_found):
        return None
    return instances.raise_fence(tx, instance["id"], instance["fence"])
