"""The guest that has a volume open, where one has: a story that must ask it holds its server too."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context
from droveway.domain.model import of_instance
from droveway.domain.volume.model import AttachmentStatus
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments


class Holder(msgspec.Struct, frozen=True):
    """A server, and the host on which it has the volume."""

    instance_id: str
    host: str


def hold(tx: Tx, ctx: Context, volume_id: str) -> Holder | None:
    """None where no guest has it. Raises Conflict while something else is done to that server."""
    row = attachments.of_volume(tx, volume_id)
    if row is None or row["instance_id"] is None or row["host"] is None:
        return None
    if row["status"] != AttachmentStatus.ATTACHED:
        return None
    ctx.hold(tx, of_instance(row["instance_id"]))
    return Holder(row["instance_id"], row["host"])
