"""The example files of the package are ones that the program takes, and say of the broker what the program needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import droveway
from droveway.config.file import load
from droveway.domain.broker_rights import publish_subjects, subscribe_subjects
from droveway.domain.service_kinds import COMPUTE, NETWORK

EXAMPLES = Path(droveway.__file__).parent / "examples"
STARTS = {"cloud": "all", "control": "control", "api": "api", "agent": "agent"}


@pytest.mark.parametrize("name", STARTS)
def test_the_program_takes_it(name: str) -> None:
    assert load(EXAMPLES / f"{name}.toml", STARTS[name]).state_path.startswith("/var/lib/droveway")


def test_a_cloud_is_seven_lines() -> None:
    assert len((EXAMPLES / "cloud.toml").read_text().splitlines()) == 7


UNITS = sorted(path.name for path in EXAMPLES.glob("*.service"))
SERVICE_OF = {"droveway-network-agent.service": NETWORK}  # of the others it is the command that names them


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_a_start_with_its_file(unit: str) -> None:
    text = (EXAMPLES / unit).read_text()
    found = re.search(r"droveway (\w+) --config /etc/droveway/(\w+)\.toml(?: --service (\S+))?\n", text)
    assert found is not None
    assert (found[3] or "") == SERVICE_OF.get(unit, "")
    assert unit in SERVICE_OF or unit == f"droveway-{found[1]}.service"
    config = load(EXAMPLES / f"{found[2]}.toml", found[1])
    if found[1] == "agent":
        assert config.carriers((), found[3] or COMPUTE)


def test_each_service_of_the_example_host_has_a_unit() -> None:
    (host,) = load(EXAMPLES / "agent.toml", "agent").host
    assert set(host.services) == {COMPUTE, *SERVICE_OF.values()}


def test_what_serves_guests_outlives_the_unit_of_the_network_agent() -> None:
    """Of the others everything ends with them."""
    assert {unit for unit in UNITS if "\nKillMode=process\n" in (EXAMPLES / unit).read_text()} == set(SERVICE_OF)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Where the program is, on this machine."""
    for unit in UNITS:
        text = (EXAMPLES / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/opt/droveway/bin/droveway", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "droveway" not in said.stderr + said.stdout


def test_the_broker_lets_a_host_do_what_it_needs_and_no_more() -> None:
    text = (EXAMPLES / "nats.conf").read_text().partition("user: host-h1")[2]
    for what, needed in (
        ("publish", publish_subjects("droveway", "h1")),
        ("subscribe", subscribe_subjects("droveway", "h1")),
    ):
        found = re.search(rf"{what}: \[([^]]+)\]", text)
        assert found is not None
        assert re.findall(r'"([^"]+)"', found[1]) == list(needed)
