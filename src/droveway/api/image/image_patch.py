"""PATCH of an image: Glance's JSON patch, on the top level of an image and on the items of its tags."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from droveway.api.http.faults import WrongMediaType
from droveway.api.http.request import Request
from droveway.api.image import image_fields
from droveway.domain.faults import BadRequest, Conflict, Forbidden
from droveway.store.image import images
from droveway.store.rows import ImageRow

# how an operation is written there: {"op": "add", "path": "/x", "value": …}, or {"add": "/x", "value": …}
_NAMED, _KEYED = "application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch"
_OPERATIONS = ("add", "replace", "remove")
MEDIA_TYPES = (_NAMED, _KEYED)
_NAMED_OPERATION = {
    "type": "object",
    "required": ["op", "path"],
    "properties": {"op": {"enum": list(_OPERATIONS)}, "path": {"type": "string"}, "value": {}},
}
_KEYED_OPERATION = {
    "type": "object",
    "properties": {**{op: {"type": "string"} for op in _OPERATIONS}, "value": {}},
}
SCHEMA = {"type": "array", "items": {"anyOf": [_NAMED_OPERATION, _KEYED_OPERATION]}}
_INDEX = re.compile(r"0|[1-9]\d{0,3}")


class Operation(NamedTuple):
    op: str
    path: tuple[str, ...]
    value: Any


def form_of(request: Request) -> str:
    """The media type of the body. Raises WrongMediaType."""
    given = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if given not in (_NAMED, _KEYED):
        raise WrongMediaType(f"An image is changed by a JSON patch of type {_NAMED}.", accepted=MEDIA_TYPES)
    return given


def operations(body: Any, form: str) -> list[Operation]:
    """Checked as far as that goes without the image."""
    if not isinstance(body, list):
        raise BadRequest("Request body must be a JSON array of operation objects.")
    return [_operation(each, form) for each in body]


def _operation(given: Any, form: str) -> Operation:
    if not isinstance(given, dict):
        raise BadRequest("Operations must be JSON objects.")
    if form == _KEYED:
        named = [op for op in _OPERATIONS if op in given]
        op, pointer = (named[0], given[named[0]]) if len(named) == 1 else (None, None)
    else:
        op, pointer = given.get("op"), given.get("path")
    if op not in _OPERATIONS or not isinstance(pointer, str):
        raise BadRequest(f"Operations must be one of {', '.join(_OPERATIONS)}, on a path.")
    path = _path(pointer)
    root = path[0]
    if root in image_fields.READ_ONLY:
        raise Forbidden(f"Attribute '{root}' is read-only.")
    if len(path) != 1 and not (root == "tags" and len(path) == 2):
        raise BadRequest(f"Invalid JSON pointer for this resource: '{pointer[:100]}'")
    if op != "remove" and "value" not in given:
        raise BadRequest(f'Operation "{op}" on {pointer[:100]} requires a member named "value".')
    return Operation(op, path, given.get("value"))


def _path(pointer: str) -> tuple[str, ...]:
    """RFC 6901, and as strict as Glance: no empty part."""
    if not pointer.startswith("/"):
        raise BadRequest(f'Pointer `{pointer[:100]}` does not start with "/".')
    parts = pointer[1:].split("/")
    if not all(part.strip() for part in parts):
        raise BadRequest(f"Pointer `{pointer[:100]}` has an empty part.")
    if re.search("~(?![01])", pointer):
        raise BadRequest(f'Pointer `{pointer[:100]}` contains "~" not part of a recognized escape sequence.')
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


FORMATS: tuple[Literal["disk_format", "container_format"], ...] = ("disk_format", "container_format")


class Patched:
    """An image's columns and properties with operations done on them, one after the other."""

    def __init__(self, row: ImageRow) -> None:
        self._row = row
        self.columns: dict[str, Any] = {}
        self.properties: dict[str, str] = dict(row["properties"])

    def apply(self, operation: Operation) -> None:
        op, path, value = operation
        name = path[0]
        if len(path) == 2:
            self._change_tags(op, path[1], value)
        elif name in image_fields.SETTABLE:
            self._set(op, name, value)
        elif name == "os_hidden" and op != "remove":
            image_fields.check_hidden(value)
        elif name in ("id", "owner", "os_hidden"):
            raise Forbidden(f"Attribute '{name}' cannot be changed here.")
        elif op != "add" and name not in self.properties:
            raise Conflict(f"Property {name[:255]} does not exist.")
        elif op == "remove":
            del self.properties[name]
        else:
            self.properties[name] = image_fields.check_property(name, value)

    def _set(self, op: str, name: str, value: Any) -> None:
        column, check = image_fields.SETTABLE[name]
        if op == "remove":
            raise Forbidden(f"Property {name} may not be removed.")
        formats = {name: self._row[name] for name in FORMATS}
        if column in formats and self._row["status"] != images.QUEUED and value != formats[column]:
            raise Forbidden(f"Attribute '{name}' can only be changed while the image has no data.")
        self.columns[column] = check(value)

    def _change_tags(self, op: str, where: str, value: Any) -> None:
        """`-` is behind the last one."""
        tags = list(self.columns.get("tags", self._row["tags"]))
        if where != "-" and _INDEX.fullmatch(where) is None:
            raise BadRequest(f"Invalid JSON pointer for this resource: '/tags/{where[:64]}': tags are numbered from 0.")
        index = len(tags) if where == "-" else int(where)
        if index > len(tags) - (op != "add"):
            raise BadRequest(f"Invalid JSON pointer for this resource: '/tags/{where}': there are {len(tags)} tags.")
        if op != "add":
            del tags[index]
        if op != "remove":
            tags.insert(index, image_fields.check_tag(value))
        self.columns["tags"] = tags

    def values(self) -> dict[str, Any]:
        """The columns to be written. Raises TooLarge; what an older release let in may stay, so that its image can be
        renamed, or be deleted once it is protected no longer."""
        if "tags" in self.columns:
            self.columns["tags"] = image_fields.check_tags(self.columns["tags"])
        if "tags" in self.columns or self.properties != self._row["properties"]:
            image_fields.check_size(self.properties, self.columns.get("tags", self._row["tags"]))
        return {**self.columns, "properties": self.properties}
