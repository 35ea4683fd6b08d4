"""Over the socket bus one control works on its database alone; a second one does not start, and names the first."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from droveway.config.file import Config
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.process import alone
from droveway.store.engine.transaction import MemoryStore
from droveway.store.schema import metadata
from droveway.store.work import leases
from lab.nodes import free_ports
from lab.processes import wait_for
from tests.test_starts import EX_CONFIG, SOON_S, Program


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The file of a control with a place and a port of its own, and the first one's database."""
    (tmp_path / "second").mkdir()
    file = tmp_path / "second.toml"
    file.write_text(
        f'state_path = "{tmp_path}/second"\nname = "two"\ndatabase = "sqlite:///{tmp_path}/first/../first/droveway.sqlite"'
        f'\n[api]\nlisten = "127.0.0.1:{free_ports(1)[0]}"\nclouds_yaml = "{tmp_path}/second/clouds.yaml"\n'
    )
    return file


def test_a_second_control_on_the_same_database_does_not_start(tmp_path: Path, second: Path) -> None:
    (tmp_path / "first").mkdir()
    first = Program(tmp_path / "first")
    first.start()
    try:
        with closing(first.is_up()) as compute:
            (control,) = first.processes("control")
            control.send(signal.SIGSTOP)  # as in a swap storm: it stands still, and is not gone
            done = subprocess.run(
                [sys.executable, "-m", "droveway.main", "control", "--config", str(second)],
                capture_output=True,
                text=True,
                timeout=SOON_S,
                check=False,
            )
            control.send(signal.SIGCONT)
            assert (done.returncode, done.stderr.count("\n")) == (EX_CONFIG, 1), done.stderr
            assert f"control 'control' (pid {control.pid}, bus socket) works on sqlite:///" in done.stderr
            assert "stop that one first" in done.stderr
            assert {state for (_, binary), state in compute.services().items() if binary == "nova-compute"} == {"up"}
            # Killed without a word, it is at once followed by the next.
            control.send(signal.SIGKILL)
            assert wait_for(lambda: first.processes("control") not in ([], [control]), SOON_S)
        first.is_up().close()
        # And so is the whole program.
        assert first.running is not None
        before = first.processes()
        first.running.kill()
        first.running.wait(SOON_S)
        first.start()
        assert wait_for(lambda: not set(before) & set(first.processes()), SOON_S)
        first.is_up().close()
    finally:
        assert first.running is not None
        first.running.terminate()
        first.running.wait(SOON_S)


def config(tmp_path: Path, name: str, bus: str = "socket") -> Config:
    return Config(state_path=str(tmp_path), name=name, bus=bus)


def test_controls_at_a_broker_share_a_database_and_one_over_the_socket_bus_does_not(tmp_path: Path) -> None:
    shared = [alone.hold(config(tmp_path, name, "nats"), 0.0) for name in ("a", "b")]
    with pytest.raises(WrongConfiguration, match=r"control 'b' \(pid \d+, bus nats\) works on sqlite:///"):
        alone.hold(config(tmp_path, "c"), 0.0)
    for lock in shared:
        assert lock is not None
        os.close(lock)
    lock = alone.hold(config(tmp_path, "c"), 0.0)
    assert lock is not None
    for bus in ("socket", "rabbitmq"):
        with pytest.raises(WrongConfiguration, match="control 'c'"):
            alone.hold(config(tmp_path, "d", bus), 0.0)
    os.close(lock)
    alone.check(config(tmp_path, "d"))


async def test_on_another_machine_the_lease_that_moves_is_another_control() -> None:
    class Quick(SystemClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds / 100)

        def monotonic_s(self) -> float:
            return super().monotonic_s() * 100

    clock = Quick()
    store = MemoryStore(clock, SystemNames())
    metadata.create_all(store.engine)
    here = Config(state_path="/nowhere", name="here", database="postgresql://u:secret@db:5432/droveway")
    await store.run(leases.regain, "control:here", "here")
    await store.run(leases.regain, "control:former", "former")  # which has ended, or goes by the name `here` now
    await alone.check_leases(here, store, clock)
    looking = asyncio.create_task(alone.check_leases(here, store, clock))
    await asyncio.sleep(0.02)
    await store.run(leases.renew, "control:former", 1)
    with pytest.raises(WrongConfiguration, match=r"control 'former' works on db:5432/droveway already") as said:
        await looking
    assert "secret" not in said.value.reason
    await store.close()
