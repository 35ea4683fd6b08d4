"""The body of POST /servers: what each member may be, at which microversion."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from droveway.api.compute import hints
from droveway.api.http.bodies import Body, Kind
from droveway.api.http.kinds import FLAG, HOST, METADATA, NAME, anything, either, of, or_null, text, whole
from droveway.api.http.validate import as_flag, as_name, as_text, canonical, is_dashed_uuid
from droveway.domain import guest_data
from droveway.domain.faults import BadRequest

TAGS_MAX, TAG_MAX = 50, 60
DESCRIPTION_MAX = 255

# Asked for with any of these values, a feature that is not built is not asked for.
NOTHING: tuple[Any, ...] = (None, "", [], {}, False)
_HOSTNAME = re.compile(r"[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+")


def _unbuilt(why: str) -> Kind:
    def check(path: str, value: Any) -> None:
        if value not in NOTHING:
            raise BadRequest(f"Invalid input for {path}: {why}.")

    return of(check, enum=list(NOTHING), description=f"Not built: {why}.")


def _config_drive(path: str, value: Any) -> bool:
    return value not in NOTHING and as_flag(path, value)


def _key_name(path: str, value: Any) -> str | None:
    return None if value in NOTHING else as_text(path, value)


def _user_data(path: str, value: Any) -> str | None:
    """Checked, and kept as it was given, which is how it is shown."""
    if value in NOTHING:
        return None
    if not isinstance(value, str):
        raise BadRequest(f"Invalid input for {path}: it must be base64.")
    guest_data.decoded(value)
    return value


def _no_security_groups(path: str, value: Any) -> None:
    if not isinstance(value, list) or any(group not in ({}, {"name": "default"}) for group in value):
        raise BadRequest(f"Invalid input for {path}: there are no security groups but the empty default.")


def _no_networks(path: str, value: Any) -> None:
    if value in ([], "none"):
        return
    if value == "auto":
        raise BadRequest(
            "Unable to automatically allocate a network: there are no networks in this cloud; "
            "create the server without one (networks: none, openstack server create --nic none)."
        )
    if not isinstance(value, list):
        raise BadRequest(f"Invalid input for {path}: it must be a list, or none, or auto.")
    raise BadRequest("There are no networks in this cloud; create the server without one (networks: none).")


def _no_networks_before_37(path: str, value: Any) -> None:
    if value == "none":
        raise BadRequest(f"Invalid input for {path}: 'none' is known from microversion 2.37 on.")
    _no_networks(path, "" if value == "auto" else value)


def _stripped(path: str, value: Any) -> str:
    return as_name(path, value).strip()


def _image_id(path: str, value: Any) -> str:
    """An id, or the end of a link to it, in its one spelling."""
    image_id = as_text(path, value).rsplit("/", 1)[-1]
    return canonical(image_id) if is_dashed_uuid(image_id) else image_id


def _flavor_id(path: str, value: Any) -> str:
    """An id, or the end of a link to it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return as_text(path, value, 255, 1).rsplit("/", 1)[-1]


def _tags(path: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > TAGS_MAX:
        raise BadRequest(f"Invalid input for {path}: it must be a list of at most {TAGS_MAX} texts.")
    tags = [as_text(path, tag, TAG_MAX, 1) for tag in value]
    if any("," in tag or "/" in tag for tag in tags):
        raise BadRequest(f"Invalid input for {path}: a tag holds neither comma nor slash.")
    return tuple(dict.fromkeys(tags))


def _hostname(path: str, value: Any) -> str:
    hostname = as_text(path, value)
    if len(hostname) > 63 or _HOSTNAME.fullmatch(hostname) is None:
        raise BadRequest(f"Invalid input for {path}: it must be 2 to 63 letters, digits and inner hyphens.")
    return hostname


_BASE64 = {"type": ["string", "null"], "maxLength": guest_data.USER_DATA_MAX, "contentEncoding": "base64"}


_NO_NETWORK = {"description": "None, for there are no networks."}


_LIST_OF_NONE = {"type": "array", "maxItems": 0}


_TAG = {"type": "string", "minLength": 1, "maxLength": TAG_MAX, "pattern": "^[^,/]*$"}


_FLAVOR_ID = of(_flavor_id, anyOf=[{"type": "integer"}, {"type": "string", "minLength": 1, "maxLength": 255}])


_DEFAULT_GROUP = {"enum": [{}, {"name": "default"}]}


class Server(Body, frozen=True, kw_only=True):
    """The server, or with min_count and max_count the servers. Members of what is not built may say that it is not
    asked for."""

    personality: Annotated[None, _unbuilt("files cannot be injected").until(56)] = None
    block_device_mapping: Annotated[None, _unbuilt("there are no volumes; name an image")] = None
    user_data: Annotated[str | None, of(_user_data, **_BASE64)] = None
    key_name: Annotated[str | None, of(_key_name, type=["string", "null"], maxLength=255)] = None
    trusted_image_certificates: Annotated[None, _unbuilt("image signatures are not checked").since(63)] = None
    access_ipv4: Annotated[None, _unbuilt("there are no networks")] = msgspec.field(default=None, name="accessIPv4")
    access_ipv6: Annotated[None, _unbuilt("there are no networks")] = msgspec.field(default=None, name="accessIPv6")
    config_drive: Annotated[bool, of(_config_drive, anyOf=[dict(FLAG.schema), {"enum": [None, ""]}])] = False
    disk_config: Annotated[str, either("AUTO", "MANUAL")] = msgspec.field(default="", name="OS-DCF:diskConfig")
    security_groups: Annotated[None, of(_no_security_groups, type="array", items=_DEFAULT_GROUP)] = None
    networks: Annotated[
        None,
        of(_no_networks_before_37, **_LIST_OF_NONE, **_NO_NETWORK).until(36),
        of(_no_networks, anyOf=[{"const": "none"}, _LIST_OF_NONE], **_NO_NETWORK).since(37).needed(),
    ] = None
    name: Annotated[str, of(_stripped, **NAME.schema)]
    min_count: Annotated[int, whole(1)] = 1
    max_count: Annotated[int | None, whole(1)] = None
    availability_zone: Annotated[
        Any, anything(type=["string", "null"], description="A zone; an administrator may name zone:host:node.")
    ] = None
    host: Annotated[str | None, or_null(HOST).since(74)] = None
    hypervisor_hostname: Annotated[str | None, or_null(HOST).since(74)] = None
    image_id: Annotated[str, of(_image_id, type="string", maxLength=255)] = msgspec.field(default="", name="imageRef")
    block_devices: Annotated[
        Any, anything(type=["array", "null"], description="At most the one device that imageRef means.")
    ] = msgspec.field(default=None, name="block_device_mapping_v2")
    flavor_id: Annotated[str, _FLAVOR_ID] = msgspec.field(name="flavorRef")
    hostname: Annotated[
        str | None,
        of(_hostname, type="string", pattern=_HOSTNAME.pattern, maxLength=63).since(90).until(93),
        HOST.since(94),
    ] = None
    description: Annotated[str | None, or_null(text(DESCRIPTION_MAX)).since(19)] = None
    metadata: Annotated[dict[str, str], METADATA] = msgspec.field(default_factory=dict)
    tags: Annotated[tuple[str, ...], of(_tags, type="array", items=_TAG, maxItems=TAGS_MAX).since(52)] = ()
    return_reservation_id: Annotated[bool, FLAG] = False
    admin_password: Annotated[str | None, or_null(text())] = msgspec.field(default=None, name="adminPass")


_HINTS = anything(type=["object", "null"], description="Scheduler hints; under one of the two names.")


class NewServer(Body, frozen=True):
    server: Server
    scheduler_hints: Annotated[Any, _HINTS] = msgspec.field(default=None, name=hints.NAMES[0])
    old_hints: Annotated[Any, _HINTS] = msgspec.field(default=None, name=hints.NAMES[1])
