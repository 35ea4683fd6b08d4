"""The table [network] of the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from droveway.config.file import load
from droveway.domain.faults import WrongConfiguration


def written(directory: Path, text: str) -> Path:
    path = directory / "droveway.toml"
    path.write_text(f'state_path = "{directory}"\n{text}\n')
    return path


def test_without_a_driver_there_are_no_networks(tmp_path: Path) -> None:
    network = load(written(tmp_path, "")).network
    assert (network.driver, network.mtu_bytes, network.quota.port) == ("", 1500, 500)


def test_what_is_said_is_taken(tmp_path: Path) -> None:
    text = '[network]\ndriver = "bridge"\nmtu_bytes = 9000\nphysical_networks = ["a", "b"]\n[network.quota]\nport = -1'
    network = load(written(tmp_path, text)).network
    assert (network.driver, network.mtu_bytes, network.physical_networks) == ("bridge", 9000, ("a", "b"))
    assert (network.quota.port, network.quota.network) == (-1, 100)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('driver = "ovn"', "network.driver = 'ovn' must be bridge or simulated"),
        ("mtu_bytes = 1329", "network.mtu_bytes = 1329 must be from 1330"),
        ('physical_networks = ["a b"]', "network.physical_networks: 'a b' must be"),
        (f"physical_networks = {['a'] * 65}", "65 names; 64 are taken"),
        ("quota = {port = -2}", "network.quota.port = -2 must be from -1"),
        ("quota = {ports = 1}", "unknown key `ports`"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(WrongConfiguration) as caught:
        load(written(tmp_path, f"[network]\n{line}"))
    assert words in caught.value.reason


def test_an_agent_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(WrongConfiguration, match="network does not belong into the file of role agent"):
        load(written(tmp_path, 'role = "agent"\n[network]\ndriver = "bridge"'))
