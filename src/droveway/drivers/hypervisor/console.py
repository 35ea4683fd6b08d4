"""The tail of a guest's serial console: what every driver keeps of it, and how its last lines are cut."""

from __future__ import annotations

KEPT_BYTES = 256 * 1024


def decode(tail: bytes) -> str:
    """The last bytes of a console as text. A guest may send anything, and the cut may fall within a character."""
    return tail[-KEPT_BYTES:].decode("utf-8", "replace")


def last_lines(text: str, length_lines: int | None) -> str:
    """The last lines; all of them when None. A line break at the end begins no further line."""
    if length_lines is None:
        return text
    if length_lines <= 0:
        return ""
    end = "\n" if text.endswith("\n") else ""
    lines = text.removesuffix("\n").split("\n")
    return "\n".join(lines[-length_lines:]) + end
