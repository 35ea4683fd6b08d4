"""The processes of a cloud, and what an act costs them."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims import cpu_seconds, median
from droveway.domain.service_kinds import NETWORK
from lab import processes
from lab.cloud import Cloud

ROUNDS = 5


def program(cloud: Cloud) -> list[int]:
    """The pids of the program: supervisor, control with the API, hearts, agents. Not libvirtd, not the lab."""
    return [pid for pids in by_service(cloud).values() for pid in pids]


def by_service(cloud: Cloud) -> dict[str, list[int]]:
    """The same, apart: "networks" and "volumes" for the processes of these services, "servers" for what is needed
    without them."""
    found: dict[str, list[int]] = {"servers": [], "networks": [], "volumes": []}
    for one in processes.everyone():
        command = one.command()
        if "droveway.main" not in command or not any(str(cloud.home) in word for word in command):
            continue
        is_of_network = NETWORK in command or "metadata" in command
        is_of_volume = any(word.startswith("cinder-") for word in command)
        found["networks" if is_of_network else "volumes" if is_of_volume else "servers"].append(one.pid)
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
