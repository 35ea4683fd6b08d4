"""docs/configuration.md is what the types say, and says what every key means."""

from __future__ import annotations

import re

from lab.configuration import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m lab.configuration --write"


def test_every_key_has_a_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.*) \| (.*) \|$", page(), re.MULTILINE)
    assert len(rows) > 100
    assert [name for name, _, _, meaning in rows if not meaning.strip()] == []
