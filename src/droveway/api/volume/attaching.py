"""Who holds a volume, and how it is let go. Nothing here ends what a guest holds: a server's volumes are detached by
the Compute API, which asks the host (CVE-2023-2088 came of the other way)."""

from __future__ import annotations

from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.model import SagaKind
from droveway.domain.volume.lifecycle import attachment_refusal, busy
from droveway.domain.volume.model import AttachmentStatus, VolumeStatus, of_volume
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, volumes
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import AttachmentRow, VolumeRow
from droveway.store.work import sagas


def holder(tx: Tx, attachment: AttachmentRow | None) -> str | None:
    """The server of ours, or the host, that has it or is about to; None where an attachment is a mere reservation."""
    if attachment is None:
        return None
    server = server_of(tx, attachment["instance_id"])
    if server is not None:
        return f"server {server}"
    return None if attachment["host"] is None else f"host {attachment['host']}"


def server_of(tx: Tx, instance_id: str | None) -> str | None:
    """The id again, where it is that of a server of ours."""
    if instance_id is None:
        return None
    try:
        return instances.get(tx, instance_id)["id"]
    except NotFound:
        return None


def free_host(tx: Tx, attachment: AttachmentRow, volume: VolumeRow, asked: Asked) -> None:
    """The host that a service has given is let go of, which its backend refuses while it has the volume open: the saga
    waits until it has not. Raises Conflict where a server of ours has it."""
    server = server_of(tx, attachment["instance_id"])
    if server is not None:
        raise Conflict(attachment_refusal(attachment["id"], server, None) or "")
    admitted = [host for host in (attachment["host"], attachment["to_host"]) if host]
    attachments.set_(tx, attachment["id"], source=None, status=AttachmentStatus.DETACHING.value)
    volumes.set_(tx, volume["id"], status=VolumeStatus.DETACHING.value)
    sagas.enqueue(
        tx,
        SagaKind.FREE_VOLUME,
        of_volume(volume["id"]),
        volume["project_id"],
        {"attachment_id": attachment["id"], "hosts": admitted, "is_to_go": False, "force": False},
        request_id=asked.request_id,
        user_id=asked.user_id,
    )


def free(tx: Tx, attachment: AttachmentRow, volume: VolumeRow) -> None:
    """End a reservation. Raises Conflict where more than that would end, BadRequest while a saga is at work."""
    active = sagas.active_of(tx, of_volume(volume["id"]))
    if active is not None:
        raise BadRequest(busy(volume["id"], active["kind"]))
    sentence = attachment_refusal(
        attachment["id"], server_of(tx, attachment["instance_id"]), attachment["host"] or attachment["to_host"]
    )
    if sentence is not None:
        raise Conflict(sentence)
    attachments.remove(tx, attachment["id"])
    volumes.set_(tx, volume["id"], status=VolumeStatus.AVAILABLE.value)
