"""What `?name=` means. In OpenStack's API it is a regular expression, and hardly anybody means one: clients send a name
or `^name$`. What they do send is translated to a LIKE pattern, which a database matches in bounded time; a stranger's
real regular expression could keep a backtracking matcher busy for ever, so everything else is refused.
"""

from __future__ import annotations

import re

from droveway.domain.faults import BadRequest

ESCAPE = "\\"  # of the LIKE patterns made here
_ANY = "%"
# One piece at a time, and only what reads the same to every dialect of regular expressions.
_PIECE = re.compile(r"(?P<any>\.\*)|(?P<one>\.)|\\(?P<escaped>[^A-Za-z0-9])|(?P<plain>[^\\^$.*+?{(|\[)])", re.DOTALL)


def like(pattern: str, what: str = "name") -> str:
    """The LIKE pattern for the names that `pattern` finds, wherever in the name unless `^` or `$` say otherwise; to be
    matched without regard to case, as Nova does on MySQL. Names hold no line breaks. Raises BadRequest."""
    at = 1 if pattern.startswith("^") else 0
    parts = [] if at else [_ANY]
    while at < len(pattern):
        piece = _PIECE.match(pattern, at)
        if piece is None:
            if pattern[at:] == "$":
                return "".join(parts)
            raise BadRequest(
                f"Invalid input for {what}: {pattern[at]!r} at character {at + 1} is not understood; it is found by "
                "its text, with ^ and $ for its ends, . for any character, .* for any text, and \\ before a "
                "character that stands for itself."
            )
        at = piece.end()
        if piece["any"]:
            parts.append(_ANY)
        elif piece["one"]:
            parts.append("_")
        else:
            parts.append(_literal(piece["escaped"] or piece["plain"]))
    return "".join([*parts, _ANY])


def _literal(character: str) -> str:
    return ESCAPE + character if character in (ESCAPE, _ANY, "_") else character
