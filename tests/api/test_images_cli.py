"""`droveway image quota …` as an operator types it, against an API that is really served."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.test_services_cli import Served


class Images(Served):
    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "droveway.main", "image", *words]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Images]:
    made = Images(tmp_path)
    yield made
    made.stop()


def rows(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines]


def test_quotas_of_images_are_shown_and_set(served: Images) -> None:
    unlimited = [["Resource", "Limit", "Used"], ["image_count_total", "-1", "0"], ["image_size_total", "-1", "0"]]
    code, lines = served.says("quota", "red")
    assert (code, rows(lines)) == (0, unlimited)
    code, lines = served.says("quota", "red", "--count", "5", "--size", "1024")
    assert (code, [row[1] for row in rows(lines)[1:]]) == (0, ["5", "1024"])
    code, lines = served.says("quota", "red", "--reset", "--count", "7")
    assert (code, [row[1] for row in rows(lines)[1:]]) == (0, ["7", "-1"])
    code, lines = served.says("quota", "default", "--size", "9")
    assert (code, rows(lines)[2]) == (0, ["image_size_total", "9", "-"])
    code, lines = served.says("quota", "nobody")
    assert (code, "no project nobody" in "\n".join(lines)) == (1, True)
