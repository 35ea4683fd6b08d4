"""What members of bodies take, as api/http/bodies.py has them: each check beside the JSON Schema that says the same."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from droveway.api.http.bodies import Kind
from droveway.api.http.validate import FALSE, INT_MAX, TRUE, as_flag, as_host, as_integer, as_metadata, as_name, as_text
from droveway.domain.faults import BadRequest

Check = Callable[[str, Any], Any]
DIGITS = "^-?[0-9]{1,18}$"


def of(check: Check, /, **schema: Any) -> Kind:
    """A check of one's own, and what it takes in JSON Schema."""
    return Kind(check, schema)


def text(most: int = 255, least: int = 0) -> Kind:
    return of(lambda path, value: as_text(path, value, most, least), type="string", minLength=least, maxLength=most)


def whole(low: int, high: int = INT_MAX) -> Kind:
    """A whole number within bounds, or its digits."""
    number = {"type": "integer", "minimum": low, "maximum": high}
    return of(
        lambda path, value: as_integer(path, value, low, high), anyOf=[number, {"type": "string", "pattern": DIGITS}]
    )


def or_null(kind: Kind) -> Kind:
    return of(
        lambda path, value: None if value is None else kind.read(path, value),
        anyOf=[{"type": "null"}, dict(kind.schema)],
    )


def one_of(words: Collection[str]) -> Kind:
    """One of these words."""
    return _word(tuple(words), f"one of {', '.join(words)}")


def either(first: str, second: str) -> Kind:
    return _word((first, second), f"{first} or {second}")


def _word(possible: tuple[str, ...], allowed: str) -> Kind:

    def check(path: str, value: Any) -> Any:
        if not isinstance(value, str) or value not in possible:
            raise BadRequest(f"Invalid input for {path}: it must be {allowed}.")
        return value

    return of(check, enum=list(possible))


def anything(**schema: Any) -> Kind:
    """Not looked at here."""
    return of(lambda _, value: value, **schema)


NAME = of(as_name, type="string", minLength=1, maxLength=255)
HOST = of(as_host, type="string", pattern=r"^[a-zA-Z0-9\-._]{1,255}$")


def _nothing(path: str, value: Any) -> None:
    if value is not None:
        raise BadRequest(f"Invalid input for {path}: it must be null.")


NULL = of(_nothing, type="null")
FLAG = of(as_flag, anyOf=[{"type": "boolean"}, {"type": "string", "enum": sorted(TRUE | FALSE)}])
METADATA = of(
    as_metadata,
    type="object",
    maxProperties=128,
    propertyNames={"pattern": r"^[a-zA-Z0-9\-_:. ]{1,255}$"},
    additionalProperties={"type": "string", "maxLength": 255},
)


def plain_schema(structure: type) -> dict[str, Any]:
    """Of a structure that msgspec reads by its types alone."""
    _, found = msgspec.json.schema_components([structure])
    return dict(found[structure.__name__])
