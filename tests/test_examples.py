"""The example files of the package are ones that the program takes, and say of the broker what the program needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import droveway
from droveway.config.file import load
from droveway.domain.broker_rights import publish_subjects, subscribe_subjects

EXAMPLES = Path(droveway.__file__).parent / "examples"
STARTS = {"cloud": "all", "control": "control", "api": "api", "agent": "agent"}


@pytest.mark.parametrize("name", STARTS)
def test_the_program_takes_it(name: str) -> None:
    assert load(EXAMPLES / f"{name}.toml", STARTS[name]).state_path.startswith("/var/lib/droveway")


def test_a_cloud_is_seven_lines() -> None:
    assert len((EXAMPLES / "cloud.toml").read_text().splitlines()) == 7


@pytest.mark.parametrize("unit", sorted(path.name for path in EXAMPLES.glob("*.service")))
def test_a_unit_starts_a_start_with_its_file(unit: str) -> None:
    found = re.search(r"droveway (\w+) --config /etc/droveway/(\w+)\.toml", (EXAMPLES / unit).read_text())
    assert found is not None
    assert unit == f"droveway-{found[1]}.service"
    assert load(EXAMPLES / f"{found[2]}.toml", found[1])


def test_the_broker_lets_a_host_do_what_it_needs_and_no_more() -> None:
    text = (EXAMPLES / "nats.conf").read_text().partition("user: host-h1")[2]
    for what, needed in (
        ("publish", publish_subjects("droveway", "h1")),
        ("subscribe", subscribe_subjects("droveway", "h1")),
    ):
        found = re.search(rf"{what}: \[([^]]+)\]", text)
        assert found is not None
        assert re.findall(r'"([^"]+)"', found[1]) == list(needed)
