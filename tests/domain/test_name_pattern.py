"""What may be asked of a name: as `re.search` would answer it, in bounded time, or refused."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.domain.faults import BadRequest
from droveway.domain.name_pattern import ESCAPE, like

CHARACTERS = "aAbBé🐑%_-]} \\.*+?^$()[{|1"
PIECES = st.sampled_from(
    [".", ".*", *(re.escape(c) for c in CHARACTERS), *(c for c in CHARACTERS if re.escape(c) == c), "%", "_", "\\é"]
)
NAMES = st.text(CHARACTERS, max_size=8)


def matches(pattern: str, name: str) -> bool:
    """As the store asks: SQLAlchemy's `ilike`."""
    with closing(sqlite3.connect(":memory:")) as database:
        query = "SELECT lower(?) LIKE lower(?) ESCAPE ?"
        (found,) = database.execute(query, (name, like(pattern), ESCAPE)).fetchone()
    return bool(found)


def would_match(pattern: str, name: str) -> bool:
    return re.search(pattern, name, re.IGNORECASE | re.ASCII) is not None


@given(st.lists(PIECES, max_size=6), st.sampled_from(["", "^"]), st.sampled_from(["", "$"]), NAMES)
def test_what_is_accepted_means_what_it_means_as_a_regular_expression(
    pieces: list[str], begin: str, end: str, name: str
) -> None:
    pattern = begin + "".join(pieces) + end
    assert matches(pattern, name) == would_match(pattern, name)


@given(NAMES, NAMES)
def test_any_other_text_is_refused_or_means_the_same(pattern: str, name: str) -> None:
    try:
        like(pattern)
    except BadRequest:
        return
    assert matches(pattern, name) == would_match(pattern, name)


@given(NAMES)
def test_a_name_is_found_by_itself_escaped(name: str) -> None:
    assert matches(f"^{re.escape(name)}$", name)


@pytest.mark.parametrize(
    ("pattern", "character", "at"),
    [
        ("(a+)+$", "(", 1),
        ("a*", "*", 2),
        ("web[1]", "[", 4),
        ("a|b", "|", 2),
        ("a.+", "+", 3),
        ("a.*?", "?", 4),
        ("a^", "^", 2),
        ("$a", "$", 1),
        ("a\\", "\\", 2),
        ("\\d", "\\", 1),
        ("a{2}", "{", 2),
    ],
)
def test_the_rest_is_refused_and_the_reason_shows_where(pattern: str, character: str, at: int) -> None:
    with pytest.raises(BadRequest) as caught:
        like(pattern)
    assert f"{character!r} at character {at} is not understood" in caught.value.reason


@pytest.mark.parametrize("pattern", ["a.*" * 85, ".*a" * 80 + "b", (".a.*" * 60) + "b", "." * 255])
def test_no_pattern_takes_long(pattern: str) -> None:
    """A backtracking matcher would not come back from some of these; the test would never end."""
    matches(pattern, "a" * 254 + "!")
