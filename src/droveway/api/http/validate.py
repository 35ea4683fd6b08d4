"""Checks of values: every refusal is one sentence that names the value and what it must be."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

from droveway.domain.faults import BadRequest

TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE = frozenset({"0", "f", "false", "off", "n", "no"})
INT_MAX = 2**31 - 1

_UUID = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")
_KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
_HOST = re.compile(r"[a-zA-Z0-9\-._]{1,255}")
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,18}")


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def is_dashed_uuid(text: str) -> bool:
    return len(text) == 36 and is_uuid(text)


def canonical(uuid: str) -> str:
    """The one spelling in which ids are kept: small letters, with dashes."""
    digits = uuid.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def as_flag(name: str, value: Any) -> bool:
    """A boolean, or one of the words for it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUE:
            return True
        if word in FALSE:
            return False
    raise BadRequest(f"Invalid input for {name}: {_show(value)} is not a boolean.")


def as_integer(name: str, value: Any, low: int, high: int = INT_MAX) -> int:
    """A whole number, or its digits as text, within bounds."""
    if isinstance(value, str) and _PLAIN_NUMBER.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"Invalid input for {name}: {_show(value)} is not a whole number.")
    if not low <= value <= high:
        raise BadRequest(f"Invalid input for {name}: {_show(value)} is not between {low} and {high}.")
    return value


def as_text(name: str, value: Any, most: int = 255, least: int = 0) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"Invalid input for {name}: {_show(value)} is not a text.")
    if not least <= len(value) <= most:
        raise BadRequest(
            f"Invalid input for {name}: it is {len(value)} characters long; {least} to {most} are accepted."
        )
    return value


def as_name(name: str, value: Any) -> str:
    """A name that people read: 1 to 255 characters, printable, no space at either end."""
    text = as_text(name, value, 255, 1)
    if text != text.strip():
        raise BadRequest(f"Invalid input for {name}: it must not begin or end with a space.")
    for character in text:
        category = unicodedata.category(character)
        # Cf holds the joiners inside emoji; Cn holds emoji newer than this Python
        if (category[0] == "C" and category not in ("Cf", "Cn")) or category in ("Zl", "Zp"):
            raise BadRequest(f"Invalid input for {name}: U+{ord(character):04X} is not a printable character.")
    return text


def as_host(name: str, value: Any) -> str:
    if not isinstance(value, str) or _HOST.fullmatch(value) is None:
        raise BadRequest(f"Invalid input for {name}: {_show(value)} is not a host name.")
    return value


def as_metadata(name: str, value: Any, most: int = 128) -> dict[str, str]:
    """Keys and values of text, as servers carry them."""
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {name}: it must be an object of texts.")
    if len(value) > most:
        raise BadRequest(f"Invalid input for {name}: it has {len(value)} items; at most {most} are accepted.")
    for key, item in value.items():
        if _KEY.fullmatch(key) is None:
            raise BadRequest(
                f"Invalid input for {name}: the key {_show(key)} is not 1 to 255 of a-z A-Z 0-9 - _ : . space."
            )
        as_text(f"{name}.{key}", item)
    return value


def as_time_us(name: str, value: str) -> int:
    """An ISO 8601 time as microseconds; UTC when it names no zone."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise BadRequest(f"Invalid input for {name}: {_show(value)} is not an ISO 8601 time.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000 + moment.microsecond


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
