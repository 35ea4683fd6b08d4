"""docs/images.md names every property that is heeded, or that may only say what is so anyway."""

from __future__ import annotations

import re
from pathlib import Path

from droveway.scheduler.image_properties import KNOWN

PAGE = (Path(__file__).parents[2] / "docs" / "images.md").read_text()


def test_every_property_that_is_known_is_on_the_page_and_no_other() -> None:
    table = PAGE.split("\n| property | ")[1].split("\n\n")[0]
    named = set(re.findall(r"`([a-z]+_\w+|architecture|mappings)(?:=[\w-]+)?`", table))
    assert named == set(KNOWN)
