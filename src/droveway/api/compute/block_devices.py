"""Block device mappings of a server that is to be made, in both of Nova's syntaxes: what each may say, and what the
server's disks are then: its root disk, volumes that are there, and volumes that are made for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from droveway.api.compute.device_body import BLANK, IMAGE, LOCAL, SNAPSHOT, VOLUME, Device, OldDevice
from droveway.api.http.request import Request
from droveway.api.volume import sources
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from droveway.domain.model import Flavor
from droveway.domain.volume.devices import VOLUMES_MAX
from droveway.domain.volume.model import VolumeStatus
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ImageRow
from droveway.store.volume import making, types, volumes
from droveway.store.volume.attachments import NewAttachment
from droveway.store.volume.making import NewVolume
from droveway.store.volume.rows import VolumeRow

INVALID = "Block Device Mapping is Invalid: "
OF_IMAGE = "block_device_mapping"  # the property of an image that was made of a server that begins from a volume


class Disk(msgspec.Struct, frozen=True):
    """One volume of the server, there already or to be made; in the words of both syntaxes."""

    source: str
    id: str
    size_gb: int | None = None
    boot_index: int = -1
    delete_on_termination: bool = False
    tag: str | None = None
    bus: str = ""
    volume_type: str | None = None


# -- read, without the store ------------------------------------------------------------------------------------------
def asked(old: Sequence[OldDevice], new: Sequence[Device], image_id: str) -> tuple[Disk, ...]:
    """The volumes, the one that is begun from first. Raises BadRequest."""
    if old and new:
        raise BadRequest("Using different block_device_mapping syntaxes is not allowed in the same request.")
    found = [_of_old(one, image_id, number) for number, one in enumerate(old) if one.no_device is None]
    for one in new:
        if one.no_device is None and (disk := _of_new(one, image_id)) is not None:
            found.append(disk)
    tags = [one.tag for one in found if one.tag]
    ids = [one.id for one in found if one.source == VOLUME]
    if len(set(tags)) < len(tags):
        raise BadRequest(f"{INVALID}a tag stands there once.")
    if len(set(ids)) < len(ids):
        raise BadRequest(f"{INVALID}a volume stands there once.")
    if len(found) > VOLUMES_MAX:
        raise BadRequest(f"{INVALID}a server has {VOLUMES_MAX} volumes at most.")
    return tuple(sorted(found, key=lambda one: (one.boot_index < 0, one.boot_index)))


def check_order(disks: Sequence[Disk], *, has_root_disk: bool) -> None:
    """What is begun from stands in one row, from 0 on. `has_root_disk`: 0 is that of the image. Raises BadRequest."""
    given = sorted(one.boot_index for one in disks if one.boot_index >= 0)
    if given != list(range(has_root_disk, has_root_disk + len(given))):
        raise BadRequest(
            f"{INVALID}Boot sequence for the instance and image/block device mapping combination is not valid."
        )


def _of_old(one: OldDevice, image_id: str, number: int) -> Disk:
    if one.virtual_name or bool(one.volume_id) == bool(one.snapshot_id):
        raise BadRequest(f"{INVALID}each of block_device_mapping names a volume_id or a snapshot_id.")
    is_root = not image_id and (one.device_name.rpartition("/")[2] in {"vda", "sda", "hda"} or number == 0)
    source = VOLUME if one.volume_id else SNAPSHOT
    given = one.volume_id or one.snapshot_id
    return Disk(source, given, one.volume_size, 0 if is_root else -1, one.delete_on_termination)


def _of_new(one: Device, image_id: str) -> Disk | None:
    """None: a disk that lies with its host, which its image and its flavor say already."""
    source, given = one.source_type, one.uuid
    for kind, named in ((VOLUME, one.volume_id), (SNAPSHOT, one.snapshot_id), (IMAGE, one.image_id)):
        if named and source in ("", kind):
            source, given = kind, given or named
    source = source or BLANK
    if source == BLANK and given:
        raise BadRequest(f"{INVALID}Invalid device UUID.")
    if source != BLANK and not given:
        raise BadRequest(f"{INVALID}Missing device UUID.")
    destination = one.destination_type or (LOCAL if source in (IMAGE, BLANK) else VOLUME)
    if destination == LOCAL:
        _check_local(one, source, given, image_id)
        return None
    if one.device_type not in ("", "disk"):
        raise BadRequest(f"{INVALID}a volume is given to a server as a disk, not as {one.device_type[:40]!r}.")
    if one.disk_bus not in ("", "virtio", "scsi", "sata", "ide", "usb"):
        raise BadRequest(f"{INVALID}disk_bus {one.disk_bus[:40]!r} is not virtio, scsi, sata, ide or usb.")
    if source == VOLUME and one.volume_type:
        raise BadRequest(f"{INVALID}Specifying volume type to existing volume is not supported.")
    if source in (IMAGE, BLANK) and one.volume_size is None:
        blank = "Blank volumes (source: 'blank', dest: 'volume')"
        what = "Images with destination_type 'volume'" if source == IMAGE else blank
        raise BadRequest(f"{INVALID}{what} need to have a non-zero size specified.")
    return Disk(
        source,
        given,
        one.volume_size,
        max(one.boot_index, -1),
        one.delete_on_termination,
        one.tag,
        one.disk_bus,
        one.volume_type or None,
    )


def _check_local(one: Device, source: str, given: str, image_id: str) -> None:
    if one.volume_type:
        raise BadRequest(f"{INVALID}Specifying a volume_type with destination_type=local is not supported.")
    if source == IMAGE:
        if given != image_id or one.boot_index not in (0, -1):
            raise BadRequest(f"{INVALID}Mapping image to local is not supported, but for that of imageRef.")
        return
    if source != BLANK:
        raise BadRequest(f"{INVALID}a {source} is given to a server as a volume.")


def check_local_sizes(devices: Sequence[Device], flavor: Flavor) -> None:
    """What lies with its host is what its flavor says: no more of it is asked for. Raises BadRequest."""
    blank = [one for one in devices if one.source_type in ("", BLANK) and one.destination_type in ("", LOCAL)]
    blank = [one for one in blank if not (one.volume_id or one.snapshot_id or one.image_id or one.uuid)]
    for is_swap, most_mb, what in (
        (True, flavor.swap_mb, "swap"),
        (False, flavor.ephemeral_gb * 1024, "ephemeral"),
    ):
        named = [one for one in blank if (one.guest_format == "swap") is is_swap]
        asked_mb = sum((one.volume_size or 0) * (1 if is_swap else 1024) for one in named)
        if named and (asked_mb > most_mb or len(named) > 1):
            raise BadRequest(f"{INVALID}{what} disks asked for exceed what flavor {flavor.name} gives, which is one.")


# -- with the store ---------------------------------------------------------------------------------------------------
def of_image(image: ImageRow) -> tuple[Disk, ...]:
    """The disks of an image that is of a server which began from a volume: its bytes are in snapshots."""
    try:
        listed = json.loads(image["properties"].get(OF_IMAGE) or "[]")
        found = [
            Disk(
                SNAPSHOT,
                str(one["snapshot_id"]),
                one.get("volume_size"),
                -1 if one.get("boot_index") is None else int(one["boot_index"]),
                bool(one.get("delete_on_termination", False)),
            )
            for one in listed
            if one.get("source_type") == SNAPSHOT
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadRequest(f"{INVALID}the mapping in image {image['id']} cannot be read.") from None
    return tuple(found)


def without_mapping(properties: Mapping[str, str]) -> dict[str, str]:
    """Once it is heeded: for an image that is a disk it is refused."""
    return {name: value for name, value in properties.items() if name not in (OF_IMAGE, "bdm_v2")}


class RootVolume(msgspec.Struct, frozen=True):
    """What a server takes from the volume that it begins from."""

    properties: dict[str, str] = {}
    min_ram_mb: int = 0


def root_of(tx: Tx, request: Request, disks: Sequence[Disk], *, names_image: bool) -> RootVolume:
    """Raises BadRequest when none of them can be begun from. With an image named beside it a volume that is not known
    to boot is taken, as Nova does: what it begins from may come over the network."""
    root = next((one for one in disks if one.boot_index == 0), None)
    if root is None:
        raise BadRequest("Invalid imageRef provided.")
    try:
        if root.source == IMAGE:
            found = sources.of_image(tx, root.id, request.scope)
        elif root.source == SNAPSHOT:
            found = sources.of_snapshot(tx, root.id, request.scope)
        elif root.source == VOLUME:
            found = sources.of_volume(tx, root.id, request.scope)
        else:
            raise BadRequest(f"{INVALID}Block Device {root.id or BLANK} is not bootable.")
    except NotFound as fault:
        raise BadRequest(f"{INVALID}{fault.reason}") from None
    if not found.bootable and not names_image:
        raise BadRequest(f"Block Device {root.id} is not bootable.")
    return RootVolume(found.image_metadata, int(found.image_metadata.get("min_ram") or 0))


def attach_all(tx: Tx, api: Api, request: Request, disks: Sequence[Disk]) -> tuple[NewAttachment, ...]:
    """Those of one server, made where they are not there. Raises BadRequest, Forbidden."""
    return tuple(_attached(tx, api, request, one) for one in disks)


def _attached(tx: Tx, api: Api, request: Request, one: Disk) -> NewAttachment:
    try:
        row = _there(tx, request, one) if one.source == VOLUME else _made(tx, api, request, one)
    except (NotFound, Conflict) as fault:
        raise BadRequest(f"{INVALID}{fault.reason}") from None
    except TooLarge as fault:
        raise Forbidden(fault.reason) from None
    return NewAttachment(
        row["id"],
        boot_index=one.boot_index,
        delete_on_termination=one.delete_on_termination,
        tag=one.tag,
        bus=one.bus,
        is_being_made=one.source != VOLUME,
    )


def _there(tx: Tx, request: Request, one: Disk) -> VolumeRow:
    row = volumes.get(tx, one.id, request.scope)
    if row["status"] != VolumeStatus.AVAILABLE:
        raise BadRequest(
            f"Invalid volume: volume '{row['id']}' status must be 'available'. Currently in '{row['status']}'."
        )
    return row


def _made(tx: Tx, api: Api, request: Request, one: Disk) -> VolumeRow:
    """Its row, and the saga that makes it: the server's boot stands behind that."""
    source = sources.Source()
    if one.source == IMAGE:
        source = sources.of_image(tx, one.id, request.scope)
    elif one.source == SNAPSHOT:
        source = sources.of_snapshot(tx, one.id, request.scope)
    size_gb = one.size_gb or source.size_gb
    assert size_gb is not None, "an image and a blank one say it, a snapshot has one"
    source.must_fit(size_gb)
    scope, project_id = request.scope, request.caller.project_id
    given = one.volume_type or source.type_id
    try:
        kind = (
            types.get(tx, given, scope) if given else types.default(tx, project_id, api.settings.volumes.default_type)
        )
    except NotFound as fault:
        raise BadRequest(fault.reason) from None
    new = NewVolume(
        project_id=project_id or "",
        user_id=request.caller.user_id,
        size_gb=size_gb,
        name="",
        zone=source.zone or api.settings.volumes.zone,
        volume_type=(kind["id"], kind["name"]),
        snapshot_id=one.id if one.source == SNAPSHOT else None,
        image_id=source.image_id,
        image_metadata=source.image_metadata,
        bootable=source.bootable,
        request_id=request.id,
    )
    return making.create(tx, new, api.settings.volumes.quotas)
