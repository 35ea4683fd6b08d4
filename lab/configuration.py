"""`python -m lab.configuration`: docs/configuration.md, from the types of the configuration file and the comments that
stand beside their fields; a test holds that it is current. `--write` writes it."""

from __future__ import annotations

import inspect
import sys
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from droveway.config.file import Config

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
HEAD = """# Configuration

Every key of the file that `--config` names (TOML). Generated from the types by `python -m lab.configuration --write`.
A key that is unknown, of another type or out of its bounds is said with what would be right, and nothing starts: exit
code 78. Which role needs which keys: [operating.md](operating.md). Where no default is shown, the key must be given.
"""


def page() -> str:
    lines = [HEAD]
    for title, kind in _tables(Config, ""):
        lines += [f"\n## {title}\n"]
        lines += [f"{_reason(kind)}\n"] if _reason(kind) else []
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        comments = _comments(kind)
        for one in msgspec.structs.fields(kind):
            if _struct_of(one.type) is None:
                lines.append(f"| `{one.name}` | {_type(one.type)} | {_default(one)} | {comments.get(one.name, '')} |")
    return "\n".join(lines) + "\n"


def _tables(kind: type[msgspec.Struct], prefix: str) -> list[tuple[str, type[msgspec.Struct]]]:
    """Each table of the file: its title and its type, in the order of the fields."""
    found = [(prefix or "Top of the file", kind)]
    for name, hint in get_type_hints(kind).items():
        inner = _struct_of(hint)
        if inner is not None:
            path = f"{prefix.strip('[]')}.{name}".lstrip(".")
            found += _tables(inner, f"[[{path}]]" if get_origin(hint) is tuple else f"[{path}]")
    return found


def _struct_of(hint: Any) -> type[msgspec.Struct] | None:
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return kind
    return None


def _reason(kind: type[msgspec.Struct]) -> str:
    said = kind.__dict__.get("__doc__") or ""
    return " ".join(said.split()) if not said.startswith(f"{kind.__name__}(") else ""


def _comments(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What stands behind each field, that of a base included."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if owner in (object, msgspec.Struct) or not issubclass(owner, msgspec.Struct):
            continue
        for line in inspect.getsource(owner).splitlines():
            name, colon, rest = line.strip().partition(":")
            if colon and name in owner.__annotations__ and "  # " in rest:
                found[name] = rest.partition("  # ")[2].strip().replace("|", "\\|")
    return found


def _type(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_type(one) for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is tuple:
        return f"list of {_type(get_args(hint)[0])}s"
    if get_origin(hint) is dict:
        return "table of strings"
    return {str: "string", int: "integer", float: "number", bool: "boolean"}.get(hint, str(hint))


def _default(one: Any) -> str:
    if one.required:
        return ""
    if one.default is None:
        return "by the driver" if one.name in {"report_interval", "service_down_time"} else "–"
    if one.default is msgspec.NODEFAULT:
        return f"`{msgspec.json.encode(one.default_factory()).decode()}`"
    text = msgspec.json.encode(list(one.default) if isinstance(one.default, tuple) else one.default).decode()
    return f"`{text}`"


def main() -> int:
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page())
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
