"""The members block_device_mapping and block_device_mapping_v2 of the body of POST /servers."""

from __future__ import annotations

import re
from typing import Annotated, Any

from droveway.api.http.bodies import Body
from droveway.api.http.kinds import FLAG, anything, of, one_of, or_null, text, whole
from droveway.api.http.validate import as_integer, as_text
from droveway.api.network.kinds import UUID
from droveway.domain.faults import BadRequest
from droveway.domain.volume.devices import VOLUMES_MAX

VOLUME, SNAPSHOT, IMAGE, BLANK, LOCAL = "volume", "snapshot", "image", "blank", "local"
DEVICES_MAX = VOLUMES_MAX + 4
SIZE_MAX_GB = 2**31 - 1
TAG_SINCE, TAG_ONCE, TYPE_SINCE = 42, 32, 67
TAG_MAX = 60
_SIZE = whole(1, SIZE_MAX_GB)
_NAME = text(255)


def as_tag(path: str, value: Any) -> str:
    tag = as_text(path, value, TAG_MAX, 1)
    if "," in tag or "/" in tag:
        raise BadRequest(f"Invalid input for {path}: a tag holds neither comma nor slash.")
    return tag


TAG = of(as_tag, type="string", minLength=1, maxLength=TAG_MAX, pattern="^[^,/]*$")


def _id(path: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-zA-Z0-9._-]{1,255}", value):
        raise BadRequest(f"Invalid input for {path}: it must be an id.")
    return value


_ID = of(_id, type="string", pattern="^[a-zA-Z0-9._-]*$", minLength=1, maxLength=255)


def _boot_index(path: str, value: Any) -> int:
    return -1 if value is None else as_integer(path, value, -(2**31), 2**31 - 1)


class OldDevice(Body, frozen=True, kw_only=True):
    """In block_device_mapping: a volume, or one that is made of a snapshot. Which of them is begun from is told by the
    name of its device."""

    device_name: Annotated[str, text(255, 1)] = ""
    volume_id: Annotated[str, UUID] = ""
    snapshot_id: Annotated[str, UUID] = ""
    volume_size: Annotated[int | None, _SIZE] = None
    delete_on_termination: Annotated[bool, FLAG] = False
    virtual_name: Annotated[str, _NAME] = ""
    no_device: Annotated[Any, anything()] = None
    connection_info: Annotated[Any, anything(type="string")] = None


class Device(OldDevice, frozen=True, kw_only=True):
    """In block_device_mapping_v2."""

    source_type: Annotated[str, one_of((VOLUME, IMAGE, SNAPSHOT, BLANK))] = ""
    destination_type: Annotated[str, one_of((LOCAL, VOLUME))] = ""
    uuid: Annotated[str, _ID] = ""
    image_id: Annotated[str, UUID] = ""
    guest_format: Annotated[str, _NAME] = ""
    device_type: Annotated[str, _NAME] = ""
    disk_bus: Annotated[str, _NAME] = ""
    boot_index: Annotated[int, of(_boot_index, type=["integer", "string", "null"], pattern="^-?[0-9]+$")] = -1
    tag: Annotated[str | None, TAG.since(TAG_ONCE).until(TAG_ONCE), TAG.since(TAG_SINCE)] = None
    volume_type: Annotated[str | None, or_null(text(255)).since(TYPE_SINCE)] = None
