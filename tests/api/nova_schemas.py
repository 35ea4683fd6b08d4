"""Nova's published schemas, as lab/nova_schemas.py has collected them: what a call takes and answers, by version."""

from __future__ import annotations

import base64
import functools
import gzip
import ipaddress
import json
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

_DATA = json.loads(gzip.decompress((Path(__file__).parent / "nova_schemas.json.gz").read_bytes()))
FORMATS = FormatChecker(("ipv4", "ipv6", "regex"))


def _format(name: str, check: Callable[[str], object]) -> None:
    @FORMATS.checks(name)
    def checked(value: object) -> bool:
        if not isinstance(value, str):
            return True
        try:
            return check(value) is not False
        except ValueError:
            return False


def _is_printable(text: str) -> bool:
    return bool(text.strip()) and not any(unicodedata.category(one)[0] == "C" for one in text)


_format("uuid", uuid.UUID)
_format("date-time", datetime.fromisoformat)
_format("uri", lambda text: bool(urlsplit(text).scheme and urlsplit(text).netloc))
_format("base64", lambda text: base64.b64decode(text, validate=True))
_format("cidr", lambda text: "/" in text and ipaddress.ip_network(text, strict=False))
_format("mac-address", lambda text: re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", text.lower()) is not None)
_format("name", lambda text: _is_printable(text) and text == text.strip())


def anonymous(path: str) -> str:
    """A path whose named segments have no names."""
    return re.sub(r"\{[^}]*\}", "{}", path)


POLICIES: dict[str, str] = {anonymous(call): role for call, role in _DATA["policies"].items()}
CALLS: dict[str, dict[str, Any]] = {anonymous(call): found for call, found in _DATA["calls"].items()}


@functools.lru_cache(512)
def _validator(number: int) -> Draft202012Validator:
    return Draft202012Validator(_DATA["schemas"][number], format_checker=FORMATS)


def validator(call: str, kind: str, version: int) -> Draft202012Validator | None:
    """`call`: method and path, and the name of an action; `kind`: request, query or response."""
    for first, last, number in CALLS[anonymous(call)].get(kind, ()):
        if first <= version <= last:
            return _validator(number)
    return None


def wrong(call: str, kind: str, version: int, value: Any) -> str | None:
    """What Nova's schema says against that value; None when nothing."""
    found = validator(call, kind, version)
    if found is None:
        return None
    error: ValidationError | None = next(iter(found.iter_errors(value)), None)
    while error is not None and error.context:
        error = error.context[0]
    return None if error is None else f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def edges(call: str, most: int, kinds: Iterable[str] = ("request", "query", "response", "range")) -> set[int]:
    """The first and last microversions of whatever changes there."""
    of = CALLS[anonymous(call)]
    spans = [span for kind in kinds for span in of.get(kind, ())]
    return {edge for span in spans for edge in span[:2] if 1 <= edge <= most} | {1, most}


def has(call: str, version: int) -> bool:
    """Whether Nova has that call at that microversion."""
    spans = CALLS[anonymous(call)]["range"] if CALLS[anonymous(call)].get("range") else [[1, 10_000]]
    return any(first <= version <= last for first, last in spans)
