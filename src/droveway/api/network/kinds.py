"""What members of bodies take, beside api/http/kinds.py: ids, addresses, pools and routes as Networking spells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from droveway.api.http.kinds import of, or_null, text
from droveway.api.http.validate import as_flag, as_text, canonical, is_dashed_uuid
from droveway.domain.network import addresses
from droveway.domain.network.refusals import InvalidInput
from droveway.store.network.addressing import AddressRequest

LIST_MAX = 1000
PAIRS_MAX = 10
TAGS_MAX, TAG_MAX = 50, 255
_UUID_SCHEMA = {"type": "string", "pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"}


def _wrong(path: str, value: Any, what: str) -> InvalidInput:
    return InvalidInput(f"Invalid input for {path}. Reason: {str(value)[:64]!r} is not {what}.")


def as_uuid(path: str, value: Any) -> str:
    if not isinstance(value, str) or not is_dashed_uuid(value):
        raise _wrong(path, value, "a valid UUID")
    return canonical(value)


def _flag(path: str, value: Any) -> bool:
    return bool(value) if value in (0, 1) and isinstance(value, int) else as_flag(path, value)


def as_address(path: str, value: Any) -> str:
    return str(addresses.address(path, value))


def _cidr(path: str, value: Any) -> str:
    return str(addresses.network(path, value))


def as_list(path: str, value: Any, most: int = LIST_MAX) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(path, value, "a list")
    if len(value) > most:
        raise InvalidInput(f"Invalid input for {path}. Reason: it has {len(value)} items; at most {most} are accepted.")
    return value


def as_object(path: str, value: Any, *members: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, value, "an object")
    unknown = sorted(value.keys() - set(members))
    if unknown:
        raise InvalidInput(f"Invalid input for {path}. Reason: there is no '{unknown[0][:64]}' in it.")
    return value


def _two(first: str, second: str, read: tuple[Callable[[str, Any], str], Callable[[str, Any], str]]) -> Any:
    """A list of objects of two members, as pairs."""

    def check(path: str, value: Any) -> tuple[tuple[str, str], ...]:
        found = []
        for number, item in enumerate(as_list(path, value)):
            where = f"{path}.{number}"
            given = as_object(where, item, first, second)
            if first not in given or second not in given:
                raise _wrong(where, item, f"an object with {first} and {second}")
            found.append((read[0](f"{where}.{first}", given[first]), read[1](f"{where}.{second}", given[second])))
        return tuple(found)

    item = {
        "type": "object",
        "properties": {first: {"type": "string"}, second: {"type": "string"}},
        "required": [first, second],
        "additionalProperties": False,
    }
    return of(check, anyOf=[{"type": "null"}, {"type": "array", "items": item, "maxItems": LIST_MAX}])


def _fixed_ips(path: str, value: Any) -> tuple[AddressRequest, ...]:
    found = []
    for number, item in enumerate(as_list(path, value)):
        where = f"{path}.{number}"
        given = as_object(where, item, "subnet_id", "ip_address")
        subnet_id, address = given.get("subnet_id"), given.get("ip_address")
        if subnet_id is None and address is None:
            raise InvalidInput(f"Invalid input for {where}. Reason: IP allocation requires subnet_id or ip_address.")
        found.append(
            AddressRequest(
                None if subnet_id is None else as_uuid(f"{where}.subnet_id", subnet_id),
                None if address is None else as_address(f"{where}.ip_address", address),
            )
        )
    return tuple(found)


def _pairs(path: str, value: Any) -> tuple[tuple[str, str], ...]:
    """Addresses or ranges, each with a MAC or without."""
    found = []
    for number, item in enumerate(as_list(path, value, PAIRS_MAX)):
        where = f"{path}.{number}"
        given = as_object(where, item, "ip_address", "mac_address")
        if "ip_address" not in given:
            raise InvalidInput(f"Invalid input for {where}. Reason: AllowedAddressPair must contain ip_address.")
        cidr = addresses.network(f"{where}.ip_address", given["ip_address"])
        mac = given.get("mac_address")
        shown = str(cidr) if "/" in given["ip_address"] else str(cidr.network_address)
        found.append((shown, "" if mac is None else addresses.mac(f"{where}.mac_address", mac)))
    if len(set(found)) != len(found):
        raise InvalidInput(f"Invalid input for {path}. Reason: a pair stands there twice.")
    return tuple(found)


def _uuids(path: str, value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(as_uuid(f"{path}.{number}", one) for number, one in enumerate(as_list(path, value))))


def _addresses(path: str, value: Any) -> tuple[str, ...]:
    return tuple(as_address(f"{path}.{number}", one) for number, one in enumerate(as_list(path, value)))


def _cidrs(path: str, value: Any) -> tuple[str, ...]:
    return tuple(_cidr(f"{path}.{number}", one) for number, one in enumerate(as_list(path, value)))


def as_tags(path: str, value: Any) -> tuple[str, ...]:
    found = []
    for number, one in enumerate(as_list(path, value, TAGS_MAX)):
        found.append(as_tag(f"{path}.{number}", one))
    return tuple(dict.fromkeys(found))


def as_tag(path: str, value: Any) -> str:
    tag = as_text(path, value, TAG_MAX, 1)
    if "," in tag:
        raise InvalidInput(f"Invalid input for {path}. Reason: a tag has no comma: in queries it parts them.")
    return tag


def _nothing(path: str, value: Any) -> None:
    """What is accepted when it is empty: zones and profiles that clients send of themselves."""
    if value:
        raise InvalidInput(f"Invalid input for {path}. Reason: nothing can be chosen here: leave it out.")


def _profile(path: str, value: Any) -> dict[str, Any]:
    """What Neutron's drivers are told; kept and shown."""
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > PAIRS_MAX:
        raise _wrong(path, value, f"an object of at most {PAIRS_MAX} members")
    return value


_STRINGS = {"type": "array", "items": {"type": "string"}, "maxItems": LIST_MAX}
TEXT = text(255)
UUID = of(as_uuid, **_UUID_SCHEMA)
UUID_OR_NULL = or_null(UUID)
FLAG = of(_flag, anyOf=[{"type": "boolean"}, {"type": "string"}, {"enum": [0, 1]}])
ADDRESS = of(as_address, type="string")
ADDRESS_OR_NULL = or_null(ADDRESS)
CIDR = of(_cidr, type="string")
MAC = of(addresses.mac, type="string")
POOLS = _two("start", "end", (as_address, as_address))
ROUTES = _two("destination", "nexthop", (_cidr, as_address))
FIXED_IPS = of(
    _fixed_ips, anyOf=[{"type": "null"}, {"type": "array", "items": {"type": "object"}, "maxItems": LIST_MAX}]
)
PAIRS = of(_pairs, anyOf=[{"type": "null"}, {"type": "array", "items": {"type": "object"}, "maxItems": PAIRS_MAX}])
UUIDS = of(_uuids, anyOf=[{"type": "null"}, {"type": "array", "items": dict(_UUID_SCHEMA), "maxItems": LIST_MAX}])
CIDRS = of(_cidrs, anyOf=[{"type": "null"}, dict(_STRINGS)])
ADDRESSES = of(_addresses, anyOf=[{"type": "null"}, dict(_STRINGS)])
TAGS = of(as_tags, type="array", items={"type": "string", "minLength": 1, "maxLength": TAG_MAX}, maxItems=TAGS_MAX)
NOTHING = of(_nothing, anyOf=[{"type": "null"}, {"type": "array", "maxItems": 0}])
PROFILE = of(_profile, anyOf=[{"type": "null"}, {"type": "object", "maxProperties": PAIRS_MAX}])
PROJECT = text(64)
