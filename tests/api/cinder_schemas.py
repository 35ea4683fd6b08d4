"""What Cinder publishes of requests and Tempest of answers, as lab/cinder_schemas.py has collected it."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft4Validator, FormatChecker
from jsonschema.exceptions import ValidationError

_DATA = json.loads(gzip.decompress((Path(__file__).parent / "cinder_schemas.json.gz").read_bytes()))
CALLS: dict[str, dict[str, list[list[int]]]] = _DATA["calls"]
FORMATS = FormatChecker(())
VOLUME_STATUSES = (
    *("creating", "available", "deleting", "error", "error_deleting", "error_managing", "managing", "attaching"),
    *("in-use", "detaching", "maintenance", "restoring-backup", "error_restoring", "reserved", "awaiting-transfer"),
    *("backing-up", "error_backing-up", "error_extending", "downloading", "uploading", "retyping", "extending"),
)
SNAPSHOT_STATUSES = (
    *("error", "available", "creating", "deleting", "deleted", "updating", "error_deleting", "unmanaging"),
    *("backing-up", "restoring"),
)
MIGRATION_STATUSES = ("migrating", "error", "success", "completing", "none", "starting")


def _format(name: str, check: Callable[[Any], object]) -> None:
    @FORMATS.checks(name)
    def checked(value: object) -> bool:
        try:
            return check(value) is not False
        except (ValueError, AttributeError, TypeError):
            return False


def _short(value: Any) -> bool:
    return value is None or len(value.strip()) <= 255


_format("uuid", lambda value: value is None or uuid.UUID(value))
_format("date-time", lambda value: value is None or datetime.fromisoformat(value))
_format("uri", lambda value: urlsplit(value).scheme and urlsplit(value).netloc)
_format("name", lambda value: bool(value and value.strip()))
_format("name_skip_leading_trailing_spaces", lambda value: bool(value and value.strip()) and _short(value))
_format("name_non_mandatory_remove_white_spaces", _short)
_format("description_non_mandatory_remove_white_spaces", _short)
_format("disabled_reason", lambda value: bool(value.strip()) and _short(value))
_format("mysql_text", lambda value: len(value.encode()) <= 65535)
_format("base64", base64.b64decode)
_format("validate_volume_reset_body", lambda value: any(value.values()))
_format("volume_status", lambda value: value is None or value in VOLUME_STATUSES)
_format("snapshot_status", lambda value: value in SNAPSHOT_STATUSES)
_format("backup_status", lambda value: value in ("available", "error"))
_format("volume_attach_status", lambda value: value in (None, "attached", "detached"))
_format("volume_migration_status", lambda value: value is None or value in MIGRATION_STATUSES)


@functools.lru_cache(512)
def _validator(number: int, *, is_answer: bool) -> Draft4Validator:
    schema = _DATA["schemas"][number]
    return Draft4Validator(schema.get("response_body", {}) if is_answer else schema, format_checker=FORMATS)


def _number(call: str, kind: str, version: int) -> int | None:
    spans = CALLS[call].get(kind, ())
    return next((number for first, last, number in spans if first <= version <= last), None)


def wrong(call: str, kind: str, version: int, value: Any) -> str | None:
    """What the schema says against that value; None when nothing. `kind`: request or response."""
    number = _number(call, kind, version)
    if number is None:
        return None
    found = _validator(number, is_answer=kind == "response").iter_errors(value)
    error: ValidationError | None = next(iter(found), None)
    while error is not None and error.context:
        error = error.context[0]
    return None if error is None else f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def statuses(call: str, version: int) -> list[int]:
    """Of an answer to that call."""
    number = _number(call, "response", version)
    return [] if number is None else list(_DATA["schemas"][number]["status_code"])


def edges(call: str, kind: str, most: int = 71) -> list[int]:
    """The first and last microversions of whatever changes there."""
    spans = CALLS[call].get(kind, ())
    return sorted({edge for span in spans for edge in (span[0], min(span[1], most)) if edge <= most})


POLICIES: dict[str, str] = _DATA["policies"]  # method, path and the name of an action -> role
