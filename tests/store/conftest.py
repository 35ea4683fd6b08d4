"""Every test of the store runs on each database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store import databases


@pytest.fixture(params=databases.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    return databases.fresh(kind, tmp_path)
