"""The start of the driver, as the configuration of a host has it."""

from __future__ import annotations

from pathlib import Path

from droveway.config.hosts import HostConfig
from droveway.drivers.network.bridge.driver import BridgeNetwork


def make(host: HostConfig, directory: Path) -> BridgeNetwork:
    return BridgeNetwork(host.name, dict(_pair(one) for one in host.physical_networks), directory)


def _pair(word: str) -> tuple[str, str]:
    name, _, device = word.partition(":")
    return name, device
