"""Takes in the passwords that guests have set, for the users of their servers to read.

A guest posts one to the metadata service of its host, whose agent says so until it is told back with what the guest is
told of itself: then it is in its row. The first that is written stands, until it is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from droveway.control.liveness.observer import Observer
from droveway.domain.faults import Busy
from droveway.store.compute import server_attributes
from droveway.store.engine.transaction import Store, Tx

log = structlog.get_logger("droveway.guests")
AT_ONCE = 100  # in one transaction


class GuestPasswords:
    def __init__(self, store: Store, observer: Observer) -> None:
        self._store, self._observer = store, observer

    async def save(self) -> None:
        """What waits. Raises Busy; what was not taken is said again by its host."""
        while waiting := self._observer.inbox.take_passwords(AT_ONCE):
            try:
                stored = await self._store.run(_save, waiting)
            except Busy:
                self._observer.inbox.return_passwords(waiting)
                raise
            for instance_id in stored:
                log.info("the password of a guest was stored", instance=instance_id)


def _save(tx: Tx, waiting: Mapping[tuple[str, str], str]) -> list[str]:
    """By host and instance; those of which it was taken."""
    return [
        instance_id
        for (host, instance_id), password in waiting.items()
        if server_attributes.take_guest_password(tx, host, instance_id, password)
    ]
