"""POST /volumes: an empty one, or one of an image, of a snapshot, of another volume or of a backup. Everything is
checked before the row is written: what can be known to fail is refused here and not later by a status."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.http.bodies import Body, nested, takes
from droveway.api.http.kinds import anything, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.volume import fields
from droveway.api.volume import volumes as shown_volumes
from droveway.api.volume.backup_services import must_have_backups
from droveway.api.volume.kinds import FLAG_OR_NULL, METADATA_OR_NULL, SIZE_OR_NULL, TEXT, UUID_OR_NULL
from droveway.api.volume.sources import Source, of_image, of_snapshot, of_volume
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.domain.service_kinds import VOLUME
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.volume import backups, making, types
from droveway.store.volume.making import Asked, NewVolume
from droveway.store.volume.rows import VolumeTypeRow

_WORD = or_null(text(255))
NO_MULTIATTACH = (
    "multiattach volumes are not offered here: a volume is attached to one server at a time, because nothing but a "
    "cluster file system bears two writers"
)


class NewVolumeBody(Body, frozen=True):
    name: Annotated[str | None, TEXT] = None
    description: Annotated[str | None, TEXT] = None
    display_name: Annotated[str | None, TEXT] = None
    display_description: Annotated[str | None, TEXT] = None
    size: Annotated[int | None, SIZE_OR_NULL] = None
    volume_type: Annotated[str | None, _WORD] = None
    availability_zone: Annotated[str | None, _WORD] = None
    metadata: Annotated[dict[str, str] | None, METADATA_OR_NULL] = None
    snapshot_id: Annotated[str | None, UUID_OR_NULL] = None
    source_volid: Annotated[str | None, UUID_OR_NULL] = None
    image_id: Annotated[str | None, _WORD] = None
    imageRef: Annotated[str | None, _WORD] = None  # noqa: N815 - the API's name
    backup_id: Annotated[str | None, UUID_OR_NULL.since(47)] = None
    consistencygroup_id: Annotated[str | None, UUID_OR_NULL] = None
    group_id: Annotated[str | None, _WORD.since(13)] = None
    multiattach: Annotated[bool | None, FLAG_OR_NULL] = None


class OldVolumeBody(NewVolumeBody, frozen=True):
    """Up to 3.52 what is not known is left alone."""

    is_open = True


_HINTS = anything(type=["object", "null"])


class NewVolumeRequest(Body, frozen=True):
    volume: Annotated[NewVolumeBody, nested(NewVolumeBody)]
    hints: Annotated[Any, _HINTS] = msgspec.field(default=None, name="OS-SCH-HNT:scheduler_hints")


class OldVolumeRequest(Body, frozen=True):
    volume: Annotated[OldVolumeBody, nested(OldVolumeBody)]
    hints: Annotated[Any, _HINTS] = msgspec.field(default=None, name="OS-SCH-HNT:scheduler_hints")


@takes(NewVolumeRequest)
async def create(api: Api, request: Request, given: NewVolumeRequest) -> Response:
    return await _create(api, request, given.volume, given.hints)


@takes(OldVolumeRequest)
async def create_old(api: Api, request: Request, given: OldVolumeRequest) -> Response:
    return await _create(api, request, given.volume, given.hints)


async def _create(api: Api, request: Request, given: NewVolumeBody, hints: Any) -> Response:
    _refuse_unbuilt(given)

    def write(tx: Tx) -> dict[str, Any]:
        zones = _zones(tx, api)
        source = _source(tx, request, given)
        volume_type = _type(tx, api, request, given.volume_type or source.type_id)
        new = NewVolume(
            project_id=request.caller.project_id or "",
            user_id=request.caller.user_id,
            size_gb=_size(given.size, source),
            name=given.name if given.name is not None else given.display_name,
            description=given.description if given.description is not None else given.display_description,
            zone=_zone(given.availability_zone, source, zones, api.settings.volumes.zone),
            volume_type=(volume_type["id"], volume_type["name"]),
            snapshot_id=given.snapshot_id,
            source_volume_id=given.source_volid,
            image_id=source.image_id,
            metadata=given.metadata or {},
            image_metadata=source.image_metadata,
            bootable=source.bootable,
            hints=_hints(hints),
            request_id=request.id,
        )
        source.must_fit(new.size_gb)
        row = making.create(tx, new, api.settings.volumes.quotas)
        if given.backup_id is not None:
            asked = Asked(request.id, request.caller.user_id)
            backups.restore(tx, backups.get(tx, given.backup_id, request.scope), row, asked, is_new=True)
        return shown_volumes.shown(tx, api, request, row, fields.VOLUME_MADE)

    return Response(202, await api.store.run(write))


def _refuse_unbuilt(given: NewVolumeBody) -> None:
    if given.multiattach:
        raise BadRequest(f"multiattach parameter has been removed, and {NO_MULTIATTACH}.")
    if given.group_id or given.consistencygroup_id:
        raise NotFound(f"Group {given.group_id or given.consistencygroup_id} could not be found: there are no groups.")


def _source(tx: Tx, request: Request, given: NewVolumeBody) -> Source:
    image = given.image_id or given.imageRef
    sources = (given.snapshot_id, given.source_volid, image or None, given.backup_id)
    if sum(one is not None for one in sources) > 1:
        raise BadRequest("Invalid input received: a volume is made of one snapshot, volume, image or backup.")
    if given.snapshot_id is not None:
        return of_snapshot(tx, given.snapshot_id, request.scope)
    if given.source_volid is not None:
        return of_volume(tx, given.source_volid, request.scope)
    if given.backup_id is not None:
        must_have_backups(tx)
        return Source(size_gb=backups.get(tx, given.backup_id, request.scope)["size_gb"])
    return of_image(tx, image, request.scope) if image else Source()


def _size(given: int | None, source: Source) -> int:
    size_gb = given if given is not None else source.size_gb
    if not size_gb:
        raise BadRequest(
            f"Invalid input received: Invalid volume size provided for create request: {given} (size argument must be "
            "an integer (or string representation of an integer) and greater than zero)."
        )
    return size_gb


def _type(tx: Tx, api: Api, request: Request, given: str | None) -> VolumeTypeRow:
    if given is None or given == "":
        row = types.default(tx, request.caller.project_id, api.settings.volumes.default_type)
    else:
        row = types.get(tx, given, request.scope)
    if row["extra_specs"].get("multiattach", "").lower().endswith("true"):
        raise BadRequest(f"Invalid volume_type provided: {row['name']}: {NO_MULTIATTACH}.")
    return row


def _zones(tx: Tx, api: Api) -> set[str]:
    """Those with a backend. Raises Forbidden where there is none at all."""
    rows = services.list_all(tx, None, VOLUME)
    if not rows:
        raise Forbidden(
            "There is no block storage here, so no volume can be made: no host has a backend ([[host.backend]]); "
            "servers have the disk of their flavor."
        )
    return {row["zone"] for row in rows}


def _zone(given: str | None, source: Source, known: set[str], otherwise: str) -> str:
    """A copy lies where its source does."""
    if source.zone is not None:
        if given and given != source.zone:
            raise BadRequest(
                f"Invalid input received: Invalid availability zone {given[:64]}: a copy lies in the zone of its "
                f"source, {source.zone}."
            )
        return source.zone
    if given and given not in known:
        raise BadRequest(
            f"Invalid input received: Availability zone '{given[:64]}' is invalid; there is {', '.join(sorted(known))}."
        )
    if given:
        return given
    return otherwise if otherwise in known or len(known) > 1 else next(iter(known))


def _hints(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise BadRequest("Invalid input for OS-SCH-HNT:scheduler_hints: it must be an object.")
    return given or None
