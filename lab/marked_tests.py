"""Which files of tests a part of a run has to load: to load all of them costs ten CPU seconds in each of its processes,
and thirty where nothing is compiled yet.

A test has a marker by its own file, or by what that file takes from others of the tests: so those are read that name it
and those that import them. As a plugin of pytest, `-p lab.marked_tests`, this refuses to run where that is not so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parent.parent
MARKERS = ("lab", "servers", "alone")
_IMPORT = re.compile(r"^ *from (tests(?:\.\w+)*) import (\([^)]*\)|.*)", re.MULTILINE)


@cache
def _texts() -> dict[str, str]:
    """By the name of their module."""
    return {
        ".".join(path.relative_to(CLONE).with_suffix("").parts): path.read_text()
        for path in sorted((CLONE / "tests").rglob("*.py"))
    }


def files(marker: str) -> list[str]:
    """Those in which there may be tests with that marker, as paths from the clone."""
    texts = _texts()
    named = {module for module, text in texts.items() if f"mark.{marker}" in text}
    named |= {module for module in texts if _uses(module) & named}
    named |= {module for module in texts if f"{module.rpartition('.')[0]}.conftest" in named}
    names = sorted(
        module.replace(".", "/") + ".py" for module in named if module.rpartition(".")[2].startswith("test_")
    )
    assert names, f"no test is marked {marker}"
    return names


@cache
def _uses(module: str) -> set[str]:
    found: set[str] = set()
    for package, names in _IMPORT.findall(_texts()[module]):
        found.add(package)
        found |= {f"{package}.{name}" for name in re.findall(r"\w+", names)}
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker in MARKERS:
        if missed := not_found(marker, items):
            raise pytest.UsageError(f"marked {marker}, and lab/marked_tests.py does not see it: {', '.join(missed)}")


def not_found(marker: str, items: Iterable[pytest.Item]) -> list[str]:
    there = set(files(marker))
    marked = {item.nodeid.partition("::")[0] for item in items if item.get_closest_marker(marker) is not None}
    return sorted(name for name in marked - there if (CLONE / name).exists())
