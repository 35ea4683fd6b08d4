"""How soon a death is seen: hosts whose heart and agent are real processes, killed one by one."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.claims import Claim, progress
from benchmarks.liveness_rows.rig import Control, end, p99, spread, start, tail, wait_for
from lab import servers

HOSTS, ROUNDS, POWER_OFFS = 10, 10, 50
COMPUTE = "nova-compute"
SEEN_S = 20.0


class Timing:
    """A configuration, and what it promises."""

    def __init__(self, interval_s: float, down_s: float, bar_s: float) -> None:
        self.interval_s, self.down_s, self.bar_s = interval_s, down_s, bar_s


class Host:
    """One simulated host with a heart and an agent of its own, started by nobody but this."""

    def __init__(self, control: Control, name: str, bus: str) -> None:
        self.name, self.home = name, control.home / name
        self.home.mkdir()
        (self.home / "bus.sock").symlink_to(control.home / "bus.sock")
        self.config = self.home / "droveway.toml"
        self.config.write_text(
            f'state_path = "{self.home}"\nlog_level = "warning"\n{bus}\n'
            f'[[host]]\nname = "{name}"\nhypervisor = "simulated"\n'
        )
        self.said = self.home / "said"
        self.heart = self._start("heart")
        self.start_agent()

    def _start(self, part: str) -> subprocess.Popen[bytes]:
        return start(
            [sys.executable, "-m", "droveway.main", part, "--host", self.name, "--config", str(self.config)], self.said
        )

    def start_agent(self) -> None:
        self.agent = self._start("agent")

    def signal(self, number: signal.Signals) -> None:
        for process in (self.heart, self.agent):
            process.send_signal(number)

    def end(self) -> None:
        for process in (self.agent, self.heart):
            end(process)


def measure() -> list[Claim]:
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory:
        place = Path(directory)
        with servers.nats(place / "broker") as broker:
            bus = f'bus = "nats"\n{{}}\n[nats]\nservers = ["nats://127.0.0.1:{broker.port}"]\n'
            nats = _measured(place / "nats", "NATS", bus, Timing(1.0, 3.0, 3.5))
        return [*nats, *_measured(place / "socket", "the socket bus", "{}\n", Timing(0.25, 0.75, 1.0))]


def _measured(home: Path, over: str, bus: str, timing: Timing) -> list[Claim]:
    home.mkdir()
    text = bus.format(f"report_interval = {timing.interval_s}\nservice_down_time = {timing.down_s}")
    control = Control(home, text)
    try:
        with _hosts(control, text) as hosts:
            progress(f"{POWER_OFFS} hosts are powered off, over {over}")
            offs_s, wrong_off = _power_offs(control, hosts, timing)
            kills_s, wrong, reasons = _kills(control, hosts, over)
    finally:
        control.end()
    return [
        Claim(
            f"kill -9 of an agent -> down with the reason, over {over}: p99",
            p99(kills_s),
            0.5,
            "s",
            f"{spread(kills_s)}; {wrong} false downs; said: {reasons.pop() if len(reasons) == 1 else reasons}",
        ),
        Claim(
            f"host powered off -> down, interval {timing.interval_s:g} s, over {over}: p99",
            p99(offs_s),
            timing.bar_s,
            "s",
            f"{spread(offs_s)}; service_down_time {timing.down_s:g} s; {wrong_off} false downs",
        ),
    ]


@contextlib.contextmanager
def _hosts(control: Control, bus: str) -> Iterator[list[Host]]:
    hosts: list[Host] = []
    try:
        for number in range(HOSTS):
            hosts.append(Host(control, f"real{number}", bus))
        wait_for(lambda: control.is_up(HOSTS), 60, lambda: "".join(tail(one.said) for one in hosts))
        time.sleep(2.0)
        yield hosts
    finally:
        for host in hosts:
            host.end()


def _down_s(control: Control, host: Host, since_s: float) -> float | None:
    """How long after that moment it was seen as down."""
    for down in reversed(control.downs):
        if down.at_s < since_s:
            return None
        if down.host == host.name and down.binary == COMPUTE:
            return down.at_s - since_s
    return None


def _await_down(control: Control, host: Host, since_s: float) -> float:
    wait_for(lambda: _down_s(control, host, since_s) is not None, SEEN_S, lambda: f"{host.name} is not down")
    return _down_s(control, host, since_s) or 0.0


def _is_up(control: Control, host: Host, since_s: float) -> bool:
    return any(at_s > since_s and subject == f"{host.name}/{COMPUTE}" for at_s, subject in control.ups[-4 * HOSTS :])


def _await_up(control: Control, since_s: dict[Host, float]) -> None:
    wait_for(
        lambda: all(_is_up(control, host, at_s) for host, at_s in since_s.items()),
        SEEN_S,
        lambda: "".join(tail(host.said) for host in since_s),
    )


def _kills(control: Control, hosts: list[Host], over: str) -> tuple[list[float], int, set[str]]:
    """Every agent once a round; then all of them are started again."""
    took_s: list[float] = []
    before = len(control.downs)
    for number in range(ROUNDS):
        progress(f"agents are killed, over {over}, round {number + 1} of {ROUNDS}")
        killed_s = {}
        for host in hosts:
            time.sleep(random.uniform(0.05, 0.25))
            killed_s[host] = time.monotonic()
            host.agent.kill()
        took_s += [_await_down(control, host, at_s) for host, at_s in killed_s.items()]
        again_s = time.monotonic()
        for host in hosts:
            host.agent.wait()
            host.start_agent()
        _await_up(control, dict.fromkeys(hosts, again_s))
        time.sleep(0.5)
    news = control.downs[before:]
    return took_s, len(news) - len(took_s), {down.reason for down in news}


def _power_offs(control: Control, hosts: list[Host], timing: Timing) -> tuple[list[float], int]:
    """A power-off is silence: heart and agent are stopped at once, so that no kernel has news. At most two hosts are
    silent and not yet judged at any time, for three would be a storm."""
    off_s: dict[Host, float] = {}
    took_s: list[float] = []
    resting = list(hosts)
    back: dict[Host, float] = {}
    before, begun, next_s = len(control.downs), 0, time.monotonic()
    while len(took_s) < POWER_OFFS:
        if begun < POWER_OFFS and resting and time.monotonic() >= next_s:
            host = resting.pop(0)
            off_s[host] = time.monotonic()
            host.signal(signal.SIGSTOP)
            begun += 1
            next_s = time.monotonic() + timing.down_s * random.uniform(0.4, 0.5)
        for host, at_s in list(off_s.items()):
            seen_s = _down_s(control, host, at_s)
            if seen_s is not None:
                took_s.append(seen_s)
                del off_s[host]
                back[host] = time.monotonic()
                host.signal(signal.SIGCONT)
            elif time.monotonic() - at_s > SEEN_S:
                raise TimeoutError(f"{host.name} was powered off and is not down")
        for host, at_s in list(back.items()):
            if _is_up(control, host, at_s) and time.monotonic() - at_s > 2 * timing.interval_s:
                del back[host]
                resting.append(host)
        time.sleep(0.01)
    _await_up(control, back)
    return took_s, len(control.downs) - before - len(took_s)
