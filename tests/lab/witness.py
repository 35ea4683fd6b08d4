"""A running cloud as a test looks at it: what the API says, what the hosts have, and whether the two agree."""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.processes import POLL_S, Process, everyone, wait_for

COMPUTE = "/compute/v2.1"
SETTLES_S = 40.0  # loops may have to see to what a killed process left
BOOTS_S = 120.0


class Witness:
    """`servers` are those that a test has made and not deleted: nothing else may be anywhere."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.compute = Compute(cloud.port, cloud.clouds_yaml)
        self.image = self.compute.image_id()
        self.servers: set[str] = set()

    # -- servers --------------------------------------------------------------------------------------------------
    def create(self, name: str, flavor: str = "tiny", **more: Any) -> str:
        """Ask for it; what becomes of it is the test's business."""
        server = self.compute.create(name, self.image, flavor, **more)
        self.servers.add(server)
        return server

    def booted(self, name: str, **more: Any) -> str:
        """One that ticks."""
        server = self.create(name, **more)
        self.compute.wait(server, "ACTIVE")
        self.wait_for_tick(server, 0)
        return server

    def delete(self, server: str) -> None:
        self.compute.delete(server)
        self.servers.discard(server)

    def flavor(self, name: str, ram_mb: int = 128, disk_gb: int = 1, vcpus: int = 1) -> str:
        body = {"flavor": {"id": name, "name": name, "ram": ram_mb, "disk": disk_gb, "vcpus": vcpus}}
        return str(self.compute.must("POST", f"{COMPUTE}/flavors", body)["flavor"]["id"])

    def fault(self, server: str) -> str:
        return str(self.compute.wait(server, "ERROR")["fault"]["message"])

    def other_than(self, host: str) -> str:
        return next(one.name for one in self.cloud.lab.hosts if one.name != host)

    def is_resting(self, server: str, status: str, host: str) -> None:
        """It is where it was and nothing is being done to it."""
        found = self.compute.server(server)
        shown = (found["status"], found["OS-EXT-STS:task_state"], found["OS-EXT-SRV-ATTR:host"])
        assert shown == (status, None, host)

    # -- the guest's own word -------------------------------------------------------------------------------------
    def console(self, server: str) -> str:
        path = self.cloud.lab.shared / "instances" / server / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def boots(self, server: str) -> int:
        """How many times it has come up."""
        return self.console(server).count("BOOTED")

    def comes_up(self, server: str, times: int) -> None:
        """For the `times`th time in its life, not more often."""
        self.wait(lambda: self.boots(server) >= times and self.last_tick(server) >= 0, BOOTS_S, f"boot {times}")
        assert self.boots(server) == times

    def last_tick(self, server: str) -> int:
        """Since it last came up; -1 before the first one. Raises ApiFailed when one is missing."""
        return ([-1, *ticks(self.console(server))] if "BOOTED" in self.console(server) else [-1])[-1]

    def wait_for_tick(self, server: str, number: int) -> None:
        self.wait(lambda: self.last_tick(server) >= number, BOOTS_S, f"tick {number} of {server}")

    def ticks_on(self, server: str) -> None:
        """Two more come and none is missing."""
        self.wait_for_tick(server, self.last_tick(server) + 2)

    @staticmethod
    def wait(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        assert wait_for(condition, timeout_s), f"{what}: not within {timeout_s:g} s"

    # -- hosts ----------------------------------------------------------------------------------------------------
    def virsh(self, host: str, *words: str) -> str:
        done = self.cloud.lab.host(host).run("virsh", "-q", "-c", "qemu:///system", *words)
        assert done.returncode == 0, f"virsh {' '.join(words)} on {host}: {done.stderr}"
        return done.stdout

    def places(self, *options: str) -> dict[str, list[str]]:
        """Server -> the hosts whose libvirt has it; with `--state-running`, on which it runs."""
        found: dict[str, list[str]] = {}
        for host in self.cloud.lab.hosts:
            for server in self.virsh(host.name, "list", "--uuid", *(options or ("--all",))).split():
                found.setdefault(server, []).append(host.name)
        return found

    def processes_of(self, *words: str) -> list[Process]:
        """The program's own processes whose command line holds all of `words`."""
        wanted = ["droveway.main", str(self.cloud.config), *words]
        return [one for one in everyone() if all(word in one.command() for word in wanted)]

    def hypervisors(self) -> dict[str, dict[str, Any]]:
        found = self.compute.must("GET", f"{COMPUTE}/os-hypervisors/detail", version="2.87")["hypervisors"]
        return {str(one["hypervisor_hostname"]): one for one in found}

    def services(self) -> dict[str, dict[str, Any]]:
        """Of the hosts' agents, with the sentence of each verdict."""
        found = self.compute.must("GET", "/droveway/v1/services?binary=nova-compute")["services"]
        return {one["host"]: one for one in found}

    def usable(self, *hosts: str) -> None:
        """Until the scheduler may use these hosts again."""

        def are_usable() -> bool:
            return all(self.services()[one]["word"] == "up" and self.answers(one) for one in hosts)

        asked = patiently(are_usable, BOOTS_S)
        assert asked, f"{hosts} cannot be used: {self.services()}"

    def answers(self, host: str) -> bool:
        """Whether control takes that host's hypervisor for one that answers."""
        store = sqlite3.connect(f"file:{self.cloud.home}/droveway.sqlite?mode=ro", uri=True)
        with contextlib.closing(store):
            return bool(store.execute("SELECT hypervisor_up FROM hosts WHERE name = ?", (host,)).fetchone()[0])

    # -- nothing is lost and nothing is left ----------------------------------------------------------------------
    def settled(self) -> None:
        """Rows, domains, files, claims and sagas agree, and there is nothing beside them."""
        found: dict[str, tuple[Any, Any]] = {}

        def agrees() -> bool:
            found.clear()
            found.update(self._compare())
            return not found

        assert wait_for(agrees, SETTLES_S), "; ".join(
            f"{what}: {is_}, not {to_be}" for what, (is_, to_be) in found.items()
        )

    def _compare(self) -> dict[str, tuple[Any, Any]]:
        """What is not as it should be: (is, should be)."""
        rows = self.compute.must("GET", f"{COMPUTE}/servers/detail?all_tenants=1")["servers"]
        placed = [row for row in rows if row["OS-EXT-SRV-ATTR:host"] is not None]
        running = {row["id"]: [row["OS-EXT-SRV-ATTR:host"]] for row in placed if row["status"] == "ACTIVE"}
        claimed = {host.name: 0 for host in self.cloud.lab.hosts}
        for row in placed:
            claimed[row["OS-EXT-SRV-ATTR:host"]] += row["flavor"]["ram"]
        files = {path.name for path in (self.cloud.lab.shared / "instances").iterdir()} - {"_base"}
        domains, places = self.places(), {row["id"]: row["OS-EXT-SRV-ATTR:host"] for row in placed}
        used = {name: one["memory_mb_used"] for name, one in self.hypervisors().items()}
        compared = {
            "servers": ({row["id"] for row in rows}, self.servers),
            "tasks": ([row["OS-EXT-STS:task_state"] for row in rows if row["OS-EXT-STS:task_state"]], []),
            "running": (self.places("--state-running"), running),
            "domains elsewhere": ({one: where for one, where in domains.items() if where != [places.get(one)]}, {}),
            "instance files": (files, {row["id"] for row in placed}),
            "open sagas": (self.compute.must("GET", "/droveway/v1/sagas")["sagas"], []),
            "memory claimed": (used, claimed),
        }
        return {what: (is_, should) for what, (is_, should) in compared.items() if is_ != should}


def patiently(ask: Callable[[], bool], timeout_s: float = 30.0, look_s: float = POLL_S) -> bool:
    """Until it is so; meanwhile control may be away."""

    def asked() -> bool:
        try:
            return ask()
        except (OSError, http.client.HTTPException):
            return False

    return wait_for(asked, timeout_s, look_s)


def paused(seconds: float) -> None:
    """A moment in the middle of something: no condition could be waited for."""
    time.sleep(seconds)


def home_is_clean(cloud: Cloud) -> None:
    """Nothing of that cloud lives on the machine: no namespace, process, mount."""
    spaces = [one.name for one in Path("/run/netns").glob(f"dw-{cloud.lab.id}-*")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(cloud.home) in line]
    alive = [one.command() for one in everyone() if any(str(cloud.home) in word for word in one.command())]
    assert (spaces, mounts, alive) == ([], [], [])
