"""What members of bodies take, beside api/http/kinds.py: names, sizes and metadata as Block Storage spells them.

Names and descriptions are kept without the spaces at their ends, as Cinder does; null and an empty name are none."""

from __future__ import annotations

import re
from typing import Any

from droveway.api.http.kinds import Check, of, or_null
from droveway.api.http.validate import INT_MAX, as_flag, as_integer, as_text, canonical, is_uuid
from droveway.domain.faults import BadRequest
from droveway.domain.quota import LIMIT_MAX

NAME_MAX = 255
ITEMS_MAX = 1024  # of metadata: every list carries it
_KEY = re.compile(r"[a-zA-Z0-9\-_:. /]{1,255}")
_NO_SPACE_KEY = re.compile(r"[a-zA-Z0-9\-_:.]{1,255}")
_BACKEND = re.compile(r"[a-zA-Z0-9\-._#@:/+\[\]]{1,255}")


def _text(path: str, value: Any) -> str | None:
    return None if value is None else as_text(path, value.strip() if isinstance(value, str) else value, NAME_MAX)


def _required_name(path: str, value: Any) -> str:
    return as_text(path, value.strip() if isinstance(value, str) else value, NAME_MAX, 1)


def as_uuid(path: str, value: Any) -> str:
    if not isinstance(value, str) or not is_uuid(value):
        raise BadRequest(f"Invalid input for {path}: {str(value)[:64]!r} is not a 'uuid'.")
    return canonical(value)


def _size(path: str, value: Any) -> int:
    return as_integer(path, value, 1, INT_MAX)


def _items(pattern: re.Pattern[str], *, null_is: str | None = None) -> Check:
    """`null_is`: what stands for a value that is null; None: none is."""

    def check(path: str, value: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise BadRequest(f"Invalid input for {path}: it must be an object of texts.")
        if len(value) > ITEMS_MAX:
            raise BadRequest(f"Invalid input for {path}: it has {len(value)} items; at most {ITEMS_MAX} are accepted.")
        found = {}
        for key, item in value.items():
            if pattern.fullmatch(key) is None:
                raise BadRequest(
                    f"Invalid input for {path}: the key {key[:64]!r} is not 1 to 255 of the characters that keys have."
                )
            given = null_is if item is None and null_is is not None else item
            found[key] = as_text(f"{path}.{key}", given, NAME_MAX)
        return found

    return check


def _as_backend(path: str, value: Any) -> str:
    if not isinstance(value, str) or _BACKEND.fullmatch(value) is None:
        raise BadRequest(f"Invalid input for {path}: {str(value)[:64]!r} is not HOST@BACKEND.")
    return value.partition("#")[0]  # the pool of a backend is the backend itself


def _nothing(path: str, value: Any) -> None:
    """Looked at no further: the name of the action says everything."""


_ITEM = {"type": "string", "maxLength": NAME_MAX}
TEXT = of(_text, type=["string", "null"], maxLength=NAME_MAX)
REQUIRED_NAME = of(_required_name, type="string", minLength=1, maxLength=NAME_MAX)
UUID = of(as_uuid, type="string", format="uuid")
UUID_OR_NULL = or_null(UUID)
SIZE = of(
    _size, anyOf=[{"type": "integer", "minimum": 1, "maximum": INT_MAX}, {"type": "string", "pattern": "^[0-9]+$"}]
)
SIZE_OR_NULL = or_null(SIZE)
LIMIT = of(
    lambda path, value: as_integer(path, value, -1, LIMIT_MAX),
    anyOf=[{"type": "integer", "minimum": -1, "maximum": LIMIT_MAX}, {"type": "string", "pattern": "^-?[0-9]+$"}],
)
FLAG_OR_NULL = or_null(of(as_flag, anyOf=[{"type": "boolean"}, {"type": "string"}]))
METADATA = of(_items(_KEY), type="object", maxProperties=ITEMS_MAX, additionalProperties=dict(_ITEM))
METADATA_OR_NULL = or_null(METADATA)
SPECS = of(
    _items(_KEY, null_is=""),
    type="object",
    maxProperties=ITEMS_MAX,
    additionalProperties={"type": ["string", "null"], "maxLength": NAME_MAX},
)
EXTRA_SPECS = of(
    _items(_NO_SPACE_KEY, null_is=""),
    type="object",
    maxProperties=ITEMS_MAX,
    additionalProperties={"type": ["string", "null"], "maxLength": NAME_MAX},
)
BACKEND = of(_as_backend, type="string", pattern=f"^{_BACKEND.pattern}$")
NOTHING = of(_nothing)
OBJECT_OR_TEXT = of(lambda _, value: value, type=["object", "string", "null"])
