"""An image as its body says it, which of that may be set, and how it is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from droveway.api.http.kinds import of
from droveway.api.http.render import seconds
from droveway.api.http.validate import as_flag, as_integer, as_text
from droveway.domain.faults import BadRequest, Forbidden, TooLarge
from droveway.domain.image_format import DISK_FORMATS
from droveway.store.rows import ImageRow

VISIBILITIES = ("public", "private", "shared", "community")
READ_ONLY = frozenset(
    (
        "status",
        "created_at",
        "updated_at",
        "self",
        "file",
        "schema",
        "checksum",
        "size",
        "virtual_size",
        "direct_url",
        "os_hash_algo",
        "os_hash_value",
        "locations",
        "stores",
        "first",
        "next",
    )
)
PROPERTIES_MAX = 128
TAGS_MAX = 128
METADATA_MAX_BYTES = 16 * 1024  # of properties and tags, as JSON: a list shows them of a thousand images
RESERVED = "os_glance_"


def body(row: ImageRow) -> dict[str, Any]:
    image_id = row["id"]
    return {
        **row["properties"],
        "id": image_id,
        "name": row["name"],
        "status": row["status"],
        "visibility": row["visibility"],
        "protected": row["protected"],
        "os_hidden": False,
        "container_format": row["container_format"],
        "disk_format": row["disk_format"],
        "min_ram": row["min_ram_mb"],
        "min_disk": row["min_disk_gb"],
        "size": None if row["status"] == "saving" else row["size_bytes"],
        "virtual_size": row["virtual_size_bytes"],
        "checksum": row["checksum"],
        "os_hash_algo": "sha512" if row["sha512"] else None,
        "os_hash_value": row["sha512"],
        "owner": row["project_id"],
        "tags": row["tags"],
        "created_at": seconds(row["created_at_us"]),
        "updated_at": seconds(row["updated_at_us"]),
        "self": f"/v2/images/{image_id}",
        "file": f"/v2/images/{image_id}/file",
        "schema": "/v2/schemas/image",
    }


# -- what may be set --------------------------------------------------------------------------------------------------
def _name(value: Any) -> str | None:
    return None if value is None else as_text("name", value)


def _one_of(name: str, words: tuple[str, ...]) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if value is None or value in words:
            return value  # type: ignore[no-any-return]
        raise BadRequest(f"Invalid input for {name}: {str(value)[:40]!r} is not one of {', '.join(words)}.")

    return check


def _visibility(value: Any) -> str:
    if value not in VISIBILITIES:
        raise BadRequest(f"Invalid input for visibility: it must be one of {', '.join(VISIBILITIES)}.")
    return str(value)


def check_tag(value: Any) -> str:
    return as_text("tags", value, 255, 1)


def check_tags(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise BadRequest("Invalid input for tags: it must be a list of texts.")
    tags = sorted({check_tag(tag) for tag in value})
    if len(tags) > TAGS_MAX:
        raise TooLarge(f"An image has at most {TAGS_MAX} tags; these are {len(tags)}.")
    return tags


def check_hidden(value: Any) -> None:
    if as_flag("os_hidden", value):
        raise BadRequest("Images cannot be hidden here.")


# name in the body -> (column, check)
SETTABLE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "name": ("name", _name),
    "visibility": ("visibility", _visibility),
    "protected": ("protected", lambda value: as_flag("protected", value)),
    "container_format": ("container_format", _one_of("container_format", ("bare",))),
    "disk_format": ("disk_format", _one_of("disk_format", DISK_FORMATS)),
    "min_ram": ("min_ram_mb", lambda value: as_integer("min_ram", value, 0)),
    "min_disk": ("min_disk_gb", lambda value: as_integer("min_disk", value, 0)),
    "tags": ("tags", check_tags),
}


def check_property(name: str, value: Any) -> str:
    """A property of the user's own: a short text under a short name."""
    if name in READ_ONLY:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if name.startswith(RESERVED):
        raise Forbidden(f"Attribute '{name[:64]}' is reserved.")
    as_text("the name of a property", name, 255, 1)
    return as_text(name, value, 4096)


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Checked columns and checked properties out of what a client sent."""
    columns: dict[str, Any] = {}
    properties: dict[str, str] = {}
    for name, value in values.items():
        if name in SETTABLE:
            column, check = SETTABLE[name]
            columns[column] = check(value)
        elif name == "os_hidden":
            check_hidden(value)
        else:
            properties[name] = check_property(name, value)
    check_size(properties, columns.get("tags", ()))
    return columns, properties


def check_size(properties: Mapping[str, str], tags: Sequence[str]) -> None:
    """Raises TooLarge, as Glance answers beyond its limits."""
    if len(properties) > PROPERTIES_MAX:
        raise TooLarge(f"An image has at most {PROPERTIES_MAX} properties of its own; these are {len(properties)}.")
    size = len(msgspec.json.encode((properties, tags)))
    if size > METADATA_MAX_BYTES:
        raise TooLarge(
            f"The properties and tags of an image are at most {METADATA_MAX_BYTES} bytes in all; these are {size}."
        )


# -- schemas ----------------------------------------------------------------------------------------------------------
def schema() -> dict[str, Any]:
    """Enough of a JSON schema for clients that ask which names are an image's own."""
    text: dict[str, Any] = {"type": ["null", "string"]}
    number = {"type": ["null", "integer"]}
    flag = {"type": "boolean"}
    kinds: dict[str, dict[str, Any]] = {
        "min_ram": number,
        "min_disk": number,
        "size": number,
        "virtual_size": number,
        "protected": flag,
        "os_hidden": flag,
        "tags": {"type": "array", "items": {"type": "string"}},
        "disk_format": {"type": ["null", "string"], "enum": [None, *DISK_FORMATS]},
        "container_format": {"type": ["null", "string"], "enum": [None, "bare"]},
        "visibility": {"type": "string", "enum": list(VISIBILITIES)},
    }
    names = (
        "id",
        "name",
        "owner",
        *SETTABLE,
        "os_hidden",
        "status",
        "created_at",
        "updated_at",
        "checksum",
        "size",
        "virtual_size",
        "os_hash_algo",
        "os_hash_value",
        "self",
        "file",
        "schema",
    )
    properties = {
        name: {**kinds.get(name, text), **({"readOnly": True} if name in READ_ONLY else {})} for name in names
    }
    return {
        "name": "image",
        "properties": properties,
        "additionalProperties": {"type": "string"},
        "links": [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}],
    }


def list_schema() -> dict[str, Any]:
    link = {"type": "string"}
    properties = {"images": {"type": "array", "items": schema()}, "first": link, "next": link, "schema": link}
    return {"name": "images", "properties": properties}


def _object(_: str, value: Any) -> dict[str, Any]:
    """What is in it is checked member by member, by `split`, once it is known whose image it is."""
    if not isinstance(value, dict):
        raise BadRequest("Invalid input: the body must be an object.")
    return dict(value)


NEW = of(
    _object,
    **{name: part for name, part in schema().items() if name in ("properties", "additionalProperties")},
    type="object",
)
