"""Names of groups and members, in the few characters that every server's namespace takes."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from droveway.domain.faults import BadRequest
from droveway.ports.membership import NAME_MAX

# host, or host/binary; a slash in it can only have been %2F, because nothing splits names at slashes before
_USUAL = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~/-]*").fullmatch


def encode(name: str) -> str:
    """Letters, digits and `_.-~` stand for themselves, everything else is percent-encoded UTF-8."""
    if not 0 < len(name) <= NAME_MAX:
        raise BadRequest(f"the name {name[:40]!r} has {len(name)} characters; 1 to {NAME_MAX} are allowed")
    try:
        encoded = quote(name, safe="")
    except UnicodeEncodeError:
        raise BadRequest(f"the name {name!r} is not text that can be sent") from None
    return encoded.replace(".", "%2E") if encoded in {".", ".."} else encoded  # no path component in ZooKeeper


def decode(encoded: str) -> str | None:
    """The name, or None for something that no `encode` made."""
    if _USUAL(plain := encoded.replace("%2F", "/")) and len(plain) <= NAME_MAX:
        return plain  # the short way: a thousand names are read in a millisecond
    try:
        name = unquote(encoded, errors="strict")
        return name if encode(name) == encoded else None
    except (UnicodeDecodeError, BadRequest):
        return None
