"""Every driver by its name: each line can be made, and one more hypervisor is one more line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from droveway.config.drivers import (
    BUSES,
    CREDENTIALS,
    HYPERVISORS,
    MEMBERSHIPS,
    NETWORKS,
    STORAGES,
    HypervisorDriver,
    known,
)
from droveway.config.file import Config, load
from droveway.config.hosts import HostConfig
from droveway.domain.faults import WrongConfiguration
from droveway.domain.service_kinds import COMPUTE
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.drivers.hypervisor.simulated.fleet import Fleet
from droveway.ports.hypervisor import MadeHypervisor
from droveway.ports.images import Images
from droveway.process import agent
from droveway.process.load import load as load_driver

STARTS = [
    line.start
    for table in (HYPERVISORS, BUSES, CREDENTIALS, MEMBERSHIPS, NETWORKS, STORAGES)
    for line in table.values()
    if line.start
]
made_for: list[str] = []


def make(_config: Config, hosts: Sequence[HostConfig], images: Callable[[str], Images]) -> list[MadeHypervisor]:
    fleet = Fleet(SystemClock(), SystemChance())
    for host in hosts:
        fleet.add_host(host.name)
        images(host.name)
        made_for.append(host.name)
    return [MadeHypervisor(SimulatedHypervisor(fleet, host.name)) for host in hosts]


@pytest.mark.parametrize("start", STARTS)
def test_a_line_names_a_function_that_there_is(start: str) -> None:
    assert callable(load_driver(start))


def written(tmp_path: Path, more: str = "") -> Path:
    path = tmp_path / "agent.toml"
    state = f'host_state_path = "{tmp_path}/h1"'
    path.write_text(
        f'role = "agent"\nstate_path = "{tmp_path}"\n[[host]]\nname = "h1"\nhypervisor = "made"\n{state}\n{more}'
    )
    return path


def test_one_more_hypervisor_is_one_more_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongConfiguration, match=f"hypervisor = 'made' must be {known(HYPERVISORS)}"):
        load(written(tmp_path), "agent")
    *_, last = HYPERVISORS
    line = HypervisorDriver(f"{__name__}:make", needs=("instances_path",), has_endpoints=False)
    monkeypatch.setitem(HYPERVISORS, "made", line)
    assert known(HYPERVISORS).endswith(f"{last} or made")
    with pytest.raises(WrongConfiguration, match="host h1: instances_path is missing; a made host needs it"):
        load(written(tmp_path), "agent")
    config = load(written(tmp_path, f'instances_path = "{tmp_path}"\n'), "agent")
    made_for.clear()
    (work,) = agent._STARTS[COMPUTE](config, [config.host_named("h1")], COMPUTE)
    work.close()
    assert made_for == ["h1"]
