"""Hearts, services and control's ear, for tests: hearts and services are real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from droveway.config.file import Config, load
from droveway.domain.liveness import DIED, LEFT
from droveway.drivers.bus.broker import BrokerControlBus
from droveway.drivers.bus.nats_link import NatsLink, NatsSettings
from droveway.drivers.bus.rabbitmq_link import RabbitLink, RabbitSettings
from droveway.drivers.bus.socket import SocketControlBus
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import Beat, ControlBus, HeartDisconnected, Notice, Welcome
from tests.agents import heart_member

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 30.0
INTERVAL_S = 0.1


class HeartDirectory:
    """A directory with the configuration of one host, h1, and what was started there."""

    def __init__(self, home: Path, more: str = "", tail: str = "") -> None:
        self.home, self.config_path, self.said = home, home / "droveway.toml", home / "said"
        self.boot_id_path, self.socket_path = home / "boot_id", home / "h1" / "heart.sock"
        self.boot_id_path.write_text("boot-1\n")
        self.config_path.write_text(
            f'state_path = "{home}"\nreport_interval = {INTERVAL_S}\nservice_down_time = 1.0\n{more}\n'
            f'[[host]]\nname = "h1"\nhypervisor = "libvirt"\npeer_uri = "qemu+tls://h1/system"\ndata_uri = "tcp://h1"\n'
            f'instances_path = "{home}"\nhost_state_path = "{home}/h1"\nboot_id_path = "{self.boot_id_path}"\n{tail}'
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def config(self) -> Config:
        return load(self.config_path)

    def heart(self, *more: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "droveway.main", "heart", "--config", str(self.config_path), *more]
        if "--host" not in more:
            command += ["--host", "h1"]
        return self._start(command, pass_fds)

    def member(
        self,
        binary: str = "nova-compute",
        host: str = "h1",
        boot_id: str = "boot-1",
        interval_s: float = INTERVAL_S,
        path: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        words = [str(path or self.socket_path), host, boot_id, binary, str(interval_s)]
        return self._start([sys.executable, "-m", heart_member.__name__, *words], ())

    def _start(self, command: list[str], pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        with self.said.open("ab") as said:
            self.processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=pass_fds, cwd=ROOT
                )
            )
        return self.processes[-1]

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(SOON_S)

    def command_of(self, process: subprocess.Popen[bytes]) -> str:
        return Path(f"/proc/{process.pid}/cmdline").read_text()

    def told(self) -> str:
        return self.said.read_text() if self.said.exists() else ""


class RecordingControlBus:
    """Control's end of a bus; keeps what it hears, and when."""

    def __init__(self, bus: ControlBus) -> None:
        self.bus = bus
        self.beats: list[Beat] = []
        self.gone: list[HeartDisconnected] = []
        self.at_s: list[float] = []

    def on_notice(self, notice: Notice) -> Welcome | None:
        if isinstance(notice, Beat):
            self.beats.append(notice)
            self.at_s.append(time.monotonic())
        elif isinstance(notice, HeartDisconnected):
            self.gone.append(notice)
        return None

    async def beat(self, condition: Callable[[Beat], bool] = lambda _: True, timeout_s: float = SOON_S) -> float:
        """Wait for such a beat, from now on; when it came, by the monotonic clock."""
        seen = len(self.beats)
        async with asyncio.timeout(timeout_s):
            while True:
                for beat, at_s in zip(self.beats[seen:], self.at_s[seen:], strict=True):
                    seen += 1
                    if condition(beat):
                        return at_s
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def recorder(config: Config) -> AsyncIterator[RecordingControlBus]:
    if config.bus == "nats":
        settings = msgspec.convert(msgspec.to_builtins(config.nats), NatsSettings)
        one = RecordingControlBus(BrokerControlBus(NatsLink(settings, SystemChance()), SystemNames()))
    elif config.bus == "rabbitmq":
        rabbit = msgspec.convert(msgspec.to_builtins(config.rabbitmq), RabbitSettings)
        one = RecordingControlBus(BrokerControlBus(RabbitLink(rabbit, SystemChance()), SystemNames()))
    else:
        one = RecordingControlBus(SocketControlBus(config.bus_path))
    await one.bus.serve(one.on_notice)
    try:
        yield one
    finally:
        await one.bus.close()


def play(place: HeartDirectory, story: Callable[[RecordingControlBus], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with recorder(place.config) as one:
            await story(one)

    try:
        asyncio.run(whole())
    finally:
        place.end()


def has(
    binary: str = "nova-compute", lateness: Callable[[int], bool] = lambda ms: ms < LEFT, note: str = ""
) -> Callable[[Beat], bool]:
    """A beat in which that service stands so."""

    def fits(beat: Beat) -> bool:
        if binary not in beat.services:
            return False
        at = beat.services.index(binary)
        return lateness(beat.lateness_ms[at]) and note in (beat.notes[at] if beat.notes else "")

    return fits


def died(lateness_ms: int) -> bool:
    return lateness_ms == DIED


def left(lateness_ms: int) -> bool:
    return lateness_ms == LEFT


def is_lean(pid: int) -> bool:
    """Whether that process has become a heart: its command line says so."""
    try:
        return b"droveway.agents.heart.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def memory_kib(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def signalled(process: subprocess.Popen[bytes], number: signal.Signals) -> float:
    """When, by the monotonic clock."""
    os.kill(process.pid, number)
    return time.monotonic()
