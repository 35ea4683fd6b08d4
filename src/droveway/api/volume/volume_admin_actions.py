"""What administrators do to volumes: each looks before it acts. No word of an administrator frees an export that a
guest holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body, Form
from droveway.api.http.kinds import FLAG, one_of, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.volume.attaching import free, holder
from droveway.api.volume.kinds import BACKEND, NOTHING, OBJECT_OR_TEXT, UUID_OR_NULL
from droveway.api.volume.volumes import own
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.policy import Need
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.lifecycle import ATTACHED, Verb, busy, reset_refusal
from droveway.domain.volume.model import VolumeStatus, of_volume
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.volume import attachments, making, volumes
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import VolumeRow
from droveway.store.work import sagas

CLUSTERS_SINCE = 16
MIGRATION_STATUSES = ("none", "success", "error", "migrating", "completing", "starting")


class ResetStatus(Body, frozen=True):
    status: Annotated[str | None, or_null(one_of(tuple(VolumeStatus)))] = None
    attach_status: Annotated[str | None, or_null(one_of(("attached", "detached")))] = None
    migration_status: Annotated[str | None, or_null(one_of(MIGRATION_STATUSES))] = None


def _reset_status(tx: Tx, request: Request, row: VolumeRow, given: ResetStatus) -> None:
    """The word of its row alone: nothing on the backend changes by it."""
    if given.status is None and given.attach_status is None and given.migration_status is None:
        raise BadRequest("Must specify 'status', 'attach_status' or 'migration_status' for update.")
    active = sagas.active_of(tx, of_volume(row["id"]))
    if active is not None:
        raise BadRequest(busy(row["id"], active["kind"]))
    held = attachments.of_volume(tx, row["id"])
    by = holder(tx, held)
    if given.attach_status == "detached" and by is not None:
        raise BadRequest(reset_refusal(row["id"], VolumeStatus.AVAILABLE, by) or "")
    values: dict[str, Any] = {}
    if given.status is not None:
        sentence = reset_refusal(row["id"], given.status, by)
        if sentence is not None:
            raise BadRequest(sentence)
        if given.status == VolumeStatus.IN_USE and held is None:
            raise BadRequest(f"Invalid volume: Volume {row['id']} is attached to nothing, so it is not in-use.")
        values = {"status": given.status, "growing_to_gb": None}
        if given.status != VolumeStatus.AWAITING_TRANSFER:
            volumes.forget_transfer(tx, row["id"])
        if given.status not in ATTACHED and held is not None:
            attachments.remove(tx, held["id"])  # a reservation of nobody's
    if given.migration_status is not None:
        values["migration_status"] = None if given.migration_status == "none" else given.migration_status
    if values:
        volumes.set_(tx, row["id"], **values)


def _force_delete(tx: Tx, request: Request, row: VolumeRow, given: None) -> None:
    """Whatever its status; its snapshots must have gone before, as with every deletion."""
    making.delete(tx, row, Asked(request.id, request.caller.user_id), force=True)


class ForceDetach(Body, frozen=True):
    attachment_id: Annotated[str | None, UUID_OR_NULL] = None
    connector: Annotated[Any, OBJECT_OR_TEXT] = None


def _force_detach(tx: Tx, request: Request, row: VolumeRow, given: ForceDetach) -> None:
    """Of a reservation that nobody holds any more; where a server has it, the Compute API detaches it."""
    held = attachments.of_volume(tx, row["id"])
    if held is None or given.attachment_id not in (None, held["id"]):
        raise NotFound(f"Volume attachment could not be found with filter: attachment_id = {given.attachment_id}.")
    free(tx, held, row)


class Migrate(Body, frozen=True):
    """To that backend, HOST@BACKEND. `force_host_copy` and `lock_volume` are how Cinder does it, and mean nothing here:
    the bytes are copied by the backends, and a volume in use goes on meanwhile."""

    host: Annotated[str | None, or_null(BACKEND)] = None
    force_host_copy: Annotated[bool, FLAG] = False
    lock_volume: Annotated[bool, FLAG] = False
    cluster: Annotated[str | None, or_null(text(255)).since(CLUSTERS_SINCE)] = None


def _migrate(tx: Tx, request: Request, row: VolumeRow, given: Migrate) -> None:
    if given.cluster:
        raise BadRequest("Invalid input for cluster: there are no clusters of volume services here; name a host.")
    if given.host is None:
        raise BadRequest("Invalid input for os-migrate_volume: 'host' is a required property.")
    if not services.list_all(tx, given.host, VOLUME):
        raise BadRequest(f"Invalid host: No available service named '{given.host[:64]}'.")
    if given.host == row["host"]:
        raise BadRequest(
            f"Invalid volume: Volume {row['id']} status must be available or in-use, and destination host must be "
            f"different than the current one, {given.host}."
        )
    if volumes.has_snapshots(tx, row["id"]):
        raise BadRequest(f"Invalid volume: Volume {row['id']} must not have snapshots to be migrated.")
    params = {"volume_type_id": None, "backend": given.host, "policy": "on-demand"}
    asked = Asked(request.id, request.caller.user_id)
    making.begin(tx, Verb.MIGRATE, row, params, asked, values={"migration_status": "starting"})


async def _migrate_completion(api: Api, request: Request, given: Any) -> Response:
    raise BadRequest("Invalid volume: a migration completes by itself here: there is no second volume to be named.")


class MigrationCompletion(Body, frozen=True):
    new_volume: Annotated[str | None, UUID_OR_NULL]
    error: Annotated[Any, OBJECT_OR_TEXT] = None


def _unmanage(tx: Tx, request: Request, row: VolumeRow, given: None) -> None:
    """Its row goes, and what lies on the backend stays; `manageable_volumes` shows it from then on."""
    making.must_be_allowed(tx, Verb.UNMANAGE, row)
    if volumes.has_snapshots(tx, row["id"]):
        raise BadRequest(f"Invalid volume: Volume {row['id']} must not have snapshots to be unmanaged.")
    volumes.remove(tx, row["id"])


def _admin(write: Callable[[Tx, Request, VolumeRow, Any], None], form: Form, *, null: bool = False) -> Action:
    async def perform(api: Api, request: Request, given: Any) -> Response:
        await api.store.run(lambda tx: write(tx, request, own(tx, request), given))
        return Response(202)

    return Action(perform, form, Need.ADMIN, since=0, may_be_null=null)


ACTIONS = {
    "os-reset_status": _admin(_reset_status, ResetStatus),
    "os-force_delete": _admin(_force_delete, NOTHING),
    "os-force_detach": _admin(_force_detach, ForceDetach),
    "os-migrate_volume": _admin(_migrate, Migrate),
    "os-migrate_volume_completion": Action(_migrate_completion, MigrationCompletion, Need.ADMIN, since=0),
    "os-unmanage": _admin(_unmanage, NOTHING),
}
