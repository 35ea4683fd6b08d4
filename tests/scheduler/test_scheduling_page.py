"""docs/scheduling.md names every rule in its order, every weigher, and every finding of the audit."""

from __future__ import annotations

import re
from pathlib import Path

from droveway.domain.audit_findings import KINDS
from droveway.scheduler.filters import FILTERS
from droveway.scheduler.weighers import WEIGHERS

PAGE = (Path(__file__).parents[2] / "docs" / "scheduling.md").read_text()


def rows(heading: str) -> list[str]:
    """The first cells of the table under that heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line.split("|")[1].strip() for line in section.splitlines() if re.match(r"\| [a-z]", line)][1:]


def test_the_rules_in_their_order() -> None:
    assert rows("The rules") == [rule.name for rule in FILTERS]


def test_the_weighers() -> None:
    assert rows("Which of those that fit") == [weigher.name for weigher in WEIGHERS]


def test_the_findings() -> None:
    named = {kind.strip() for cell in rows("The audit") for kind in cell.split(":")[0].split(",")}
    assert named == set(KINDS)
