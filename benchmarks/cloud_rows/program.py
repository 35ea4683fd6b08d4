"""The processes of a cloud, and what an act costs them."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims import cpu_seconds, median
from lab import processes
from lab.cloud import Cloud

ROUNDS = 5


def program(cloud: Cloud) -> list[int]:
    """The pids of the program: supervisor, control with the API, agents. Not libvirtd, not the lab."""
    found = []
    for one in processes.everyone():
        command = one.command()
        if str(cloud.config) in command and "droveway.main" in command:
            found.append(one.pid)
    return found


def control(cloud: Cloud) -> list[int]:
    """Control alone, with its API."""
    named = {one.pid: one.command() for one in processes.everyone()}
    return [pid for pid in program(cloud) if "control" in named.get(pid, [])]


def cpu_ms(pids: list[int], times: int, act: Callable[[int], object]) -> float:
    """CPU of the program for one `act`: the median of ROUNDS rounds, because the machine is noisy."""
    rounds = []
    for _ in range(ROUNDS):
        before = cpu_seconds(pids)
        for number in range(times // ROUNDS):
            act(number)
        rounds.append((cpu_seconds(pids) - before) * 1000 / (times // ROUNDS))
    return median(rounds)
