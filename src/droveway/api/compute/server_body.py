"""The body of POST /servers: what each member may be, at which microversion."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from droveway.api.compute import hints
from droveway.api.compute.device_body import DEVICES_MAX, TAG_MAX, Device, OldDevice, as_tag
from droveway.api.http.bodies import Body, Kind, several
from droveway.api.http.kinds import FLAG, HOST, METADATA, NAME, anything, either, of, or_null, text, whole
from droveway.api.http.validate import as_flag, as_metadata, as_name, as_text, canonical, is_dashed_uuid, is_uuid
from droveway.domain import guest_data, migration_ladder, quota
from droveway.domain.faults import BadRequest, Forbidden
from droveway.store.compute.server_ports import NicRequest

TAGS_MAX = 50
DESCRIPTION_MAX = 255

# Asked for with any of these values, a feature that is not built is not asked for.
NOTHING: tuple[Any, ...] = (None, "", [], {}, False)
_HOSTNAME = re.compile(r"[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+")
METADATA_MAX = 1024  # items of one server, whatever its quota says: every list of servers carries them


def unbuilt(why: str) -> Kind:
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


NicsAsked = str | tuple[NicRequest, ...]
NICS_MAX = 32


def _security_groups(path: str, value: Any) -> tuple[str, ...]:
    """Names or ids, each once."""
    if not isinstance(value, list) or len(value) > NICS_MAX:
        raise BadRequest(f"Invalid input for {path}: it must be a list of at most {NICS_MAX} objects with a name.")
    found = [_group(path, one) for one in value if one != {}]
    return tuple(dict.fromkeys(found))


def _group(path: str, value: Any) -> str:
    if not isinstance(value, dict) or set(value) != {"name"}:
        raise BadRequest(f"Invalid input for {path}: each is an object with a name, or an id as its name.")
    return as_text(f"{path}.name", value["name"], 255, 1)


def _networks(path: str, value: Any) -> NicsAsked:
    """ "auto", "none", or an interface for each item."""
    if value in ("auto", "none"):
        return str(value)
    return _nics(path, value)


def _nics(path: str, value: Any) -> NicsAsked:
    if value in ("auto", "none"):
        raise BadRequest(f"Invalid input for {path}: '{value}' is known from microversion 2.37 on.")
    if not isinstance(value, list):
        raise BadRequest(f"Invalid input for {path}: it must be a list of interfaces, or none, or auto.")
    if len(value) > NICS_MAX:
        raise BadRequest(f"Invalid input for {path}: it has {len(value)} interfaces; {NICS_MAX} are accepted.")
    found = tuple(_nic(f"{path}[{place}]", one) for place, one in enumerate(value))
    ports = [one.port_id for one in found if one.port_id]
    tags = [one.tag for one in found if one.tag]
    if len(set(ports)) < len(ports) or len(set(tags)) < len(tags):
        raise BadRequest(f"Invalid input for {path}: a port, and a tag, stands there once.")
    return found


def _nic(path: str, value: Any) -> NicRequest:
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {path}: it must be an object.")
    extra = sorted(set(value) - {"uuid", "port", "fixed_ip", "tag"})
    if extra:
        raise BadRequest(f"Invalid input for {path}: additional properties are not allowed ({extra[0][:60]!r}).")
    ids = {name: _uuid(f"{path}.{name}", value[name]) for name in ("uuid", "port") if value.get(name) is not None}
    if not ids:
        raise BadRequest(f"Invalid input for {path}: it names neither a network (uuid) nor a port.")
    address = value.get("fixed_ip")
    if address is not None and "port" in ids:
        raise BadRequest(f"Specified fixed IP '{str(address)[:64]}' cannot be used with port '{ids['port']}'.")
    tag = value.get("tag")
    if tag is not None:
        tag = as_tag(f"{path}.tag", tag)
    return NicRequest(ids.get("port", ""), ids.get("uuid", ""), _address(f"{path}.fixed_ip", address), tag)


def _uuid(path: str, value: Any) -> str:
    if not isinstance(value, str) or not is_uuid(value):
        raise BadRequest(f"Invalid input for {path}: {str(value)[:64]!r} is not a UUID.")
    return canonical(value)


def _address(path: str, value: Any) -> str:
    if value is None:
        return ""
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise BadRequest(f"Invalid input for {path}: {str(value)[:64]!r} is not an IP address.") from None


def stripped(path: str, value: Any) -> str:
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
    return tuple(dict.fromkeys(as_tag(path, tag) for tag in value))


def _hostname(path: str, value: Any) -> str:
    hostname = as_text(path, value)
    if len(hostname) > 63 or _HOSTNAME.fullmatch(hostname) is None:
        raise BadRequest(f"Invalid input for {path}: it must be 2 to 63 letters, digits and inner hyphens.")
    return hostname


def _ip(version: int) -> Kind:
    def check(path: str, value: Any) -> str:
        address = ipaddress.ip_address(_address(path, value) or "0.0.0.0") if isinstance(value, str) else None
        if address is None or address.version != version:
            raise BadRequest(f"Invalid input for {path}: {str(value)[:64]!r} is not an IPv{version} address.")
        return str(address)

    return of(check, type="string", format=f"ipv{version}")


def _disk_config(path: str, value: Any) -> bool:
    return bool(either("AUTO", "MANUAL").read(path, value) == "AUTO")


def _server_metadata(path: str, value: Any) -> dict[str, str]:
    """What is the user's own, but for the keys that say how the server is migrated."""
    metadata = as_metadata(path, value, METADATA_MAX)
    if (wrong := migration_ladder.wrong_value(metadata)) is not None:
        raise BadRequest(f"Invalid input for {path}: {wrong}.")
    return metadata


def check_metadata(metadata: Mapping[str, str], limits: Mapping[str, int]) -> None:
    """Raises Forbidden when that is more than a server of that project may have."""
    limit = limits["metadata_items"]
    if quota.is_over(limit, 0, len(metadata)) or len(metadata) > METADATA_MAX:
        most = METADATA_MAX if limit == quota.UNLIMITED else min(limit, METADATA_MAX)
        raise Forbidden(f"Maximum number of metadata items exceeds {most}")


HOSTNAME = of(_hostname, type="string", pattern=f"^{_HOSTNAME.pattern}$", minLength=2, maxLength=63)
FQDN = HOST
IPV4, IPV6 = _ip(4), _ip(6)
DISK_CONFIG = of(_disk_config, enum=["AUTO", "MANUAL"])
SHORT_DESCRIPTION = or_null(text(DESCRIPTION_MAX))
_METADATA: dict[str, Any] = dict(METADATA.schema) | {"maxProperties": METADATA_MAX}
SERVER_METADATA = of(_server_metadata, **_METADATA)
_BASE64 = {"type": ["string", "null"], "maxLength": guest_data.USER_DATA_MAX, "contentEncoding": "base64"}


_NIC = {
    "type": "object",
    "properties": {
        "uuid": {"type": ["string", "null"]},
        "port": {"type": ["string", "null"]},
        "fixed_ip": {"type": ["string", "null"]},
        "tag": {"type": ["string", "null"], "minLength": 1, "maxLength": TAG_MAX},
    },
    "additionalProperties": False,
    "anyOf": [{"required": ["uuid"]}, {"required": ["port"]}],
}
_NICS = {"type": "array", "maxItems": NICS_MAX, "items": _NIC}


_TAG = {"type": "string", "minLength": 1, "maxLength": TAG_MAX, "pattern": "^[^,/]*$"}


TAGS = of(_tags, type="array", items=_TAG, maxItems=TAGS_MAX)


def _or_nothing(kind: Kind) -> Kind:
    return of(
        lambda path, value: None if value in NOTHING else kind.read(path, value),
        anyOf=[dict(kind.schema), {"enum": [None, ""]}],
    )


IPV4_OR_NOTHING, IPV6_OR_NOTHING = _or_nothing(IPV4), _or_nothing(IPV6)
_FLAVOR_ID = of(_flavor_id, anyOf=[{"type": "integer"}, {"type": "string", "minLength": 1, "maxLength": 255}])


_GROUPS = {
    "type": "array",
    "maxItems": NICS_MAX,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 255}},
        "additionalProperties": False,
    },
}


NO_FILES = unbuilt("files cannot be injected").until(56)
NO_CERTIFICATES = unbuilt("image signatures are not checked").since(63)
USER_DATA = of(_user_data, **_BASE64)
HOSTNAME = of(_hostname, type="string", pattern=_HOSTNAME.pattern, maxLength=63)


class Server(Body, frozen=True, kw_only=True):
    """The server, or with min_count and max_count the servers. Members of what is not built may say that it is not
    asked for."""

    personality: Annotated[None, NO_FILES] = None
    user_data: Annotated[str | None, USER_DATA] = None
    key_name: Annotated[str | None, of(_key_name, type=["string", "null"], maxLength=255)] = None
    trusted_image_certificates: Annotated[None, NO_CERTIFICATES] = None
    access_ipv4: Annotated[str | None, IPV4_OR_NOTHING] = msgspec.field(default=None, name="accessIPv4")
    access_ipv6: Annotated[str | None, IPV6_OR_NOTHING] = msgspec.field(default=None, name="accessIPv6")
    config_drive: Annotated[bool, of(_config_drive, anyOf=[dict(FLAG.schema), {"enum": [None, ""]}])] = False
    auto_disk_config: Annotated[bool, DISK_CONFIG] = msgspec.field(default=False, name="OS-DCF:diskConfig")
    security_groups: Annotated[tuple[str, ...], of(_security_groups, **_GROUPS)] = ()
    networks: Annotated[
        NicsAsked,
        of(_nics, **_NICS).until(36),
        of(_networks, anyOf=[{"enum": ["auto", "none"]}, _NICS]).since(37).needed(),
    ] = ()
    name: Annotated[str, of(stripped, **NAME.schema)]
    min_count: Annotated[int, whole(1)] = 1
    max_count: Annotated[int | None, whole(1)] = None
    availability_zone: Annotated[
        Any, anything(type=["string", "null"], description="A zone; an administrator may name zone:host:node.")
    ] = None
    host: Annotated[str | None, or_null(HOST).since(74)] = None
    hypervisor_hostname: Annotated[str | None, or_null(HOST).since(74)] = None
    image_id: Annotated[str, of(_image_id, type="string", maxLength=255)] = msgspec.field(default="", name="imageRef")
    old_devices: Annotated[tuple[OldDevice, ...], several(OldDevice, DEVICES_MAX)] = msgspec.field(
        default=(), name="block_device_mapping"
    )
    devices: Annotated[tuple[Device, ...], several(Device, DEVICES_MAX)] = msgspec.field(
        default=(), name="block_device_mapping_v2"
    )
    flavor_id: Annotated[str, _FLAVOR_ID] = msgspec.field(name="flavorRef")
    hostname: Annotated[
        str | None,
        HOSTNAME.since(90).until(93),
        FQDN.since(94),
    ] = None
    description: Annotated[str | None, SHORT_DESCRIPTION.since(19)] = None
    metadata: Annotated[dict[str, str], SERVER_METADATA] = msgspec.field(default_factory=dict)
    tags: Annotated[tuple[str, ...], TAGS.since(52)] = ()
    return_reservation_id: Annotated[bool, FLAG] = False
    admin_password: Annotated[str | None, or_null(text())] = msgspec.field(default=None, name="adminPass")


_HINTS = anything(type=["object", "null"], description="Scheduler hints; under one of the two names.")


class NewServer(Body, frozen=True):
    server: Server
    scheduler_hints: Annotated[Any, _HINTS] = msgspec.field(default=None, name=hints.NAMES[0])
    old_hints: Annotated[Any, _HINTS] = msgspec.field(default=None, name=hints.NAMES[1])
