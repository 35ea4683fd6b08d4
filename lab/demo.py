"""`./dev demo`: the whole story, unattended, on real guests in a cloud of its own. Exit code 0 when every line held.

From when ada has booted, somebody outside pings her floating IP and stays logged in to her: neither may end.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab import listen, processes
from lab.backing import BUSES, STORAGES, STORES
from lab.cloud import CLONE, FAILURES, Cloud
from lab.compute import Compute, ticks
from lab.hosts import Host
from lab.login import Login, LoginFailed
from lab.quickstart import INSIDE, KEY, NETWORK
from lab.visitor import CutOff, Visitor

AGENT_BACK_S = 20.0
TICKS_S = 90.0  # a guest without KVM has to boot, beside all else that this machine does
GAP_MAX_MS = 5000.0  # more is an outage, whatever keeps the machine busy
NETWORK_AGENT = "neutron-linuxbridge-agent"


class LineFailed(Exception):
    """A line of the story did not hold; the message says what was found instead."""


def must(condition: bool, reason: str) -> None:
    if not condition:
        raise LineFailed(reason)


class Story:
    """The cloud, its servers, and a clock that starts with the story."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.began = time.monotonic()
        self.servers: dict[str, str] = {}
        self.api: Compute | None = None
        self.visitor: Visitor | None = None
        self.longest_gap_ms = 0.0

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    @property
    def compute(self) -> Compute:
        assert self.api is not None, "the cloud is up"
        return self.api

    def console(self, name: str) -> str:
        return (self.cloud.instances / self.servers[name] / "console.log").read_text(errors="replace")

    def ticks(self, name: str) -> list[int]:
        return ticks(self.console(name))

    def wait_for_tick(self, name: str, number: int, timeout_s: float = TICKS_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not (seen := self.ticks(name)) or seen[-1] < number:
            must(time.monotonic() < deadline, f"{name} has not reached tick {number} after {timeout_s} s")
            time.sleep(0.1)

    def goes_on(self, name: str) -> int:
        """Two more ticks come, none is missing; the last number."""
        last = self.ticks(name)[-1]
        self.wait_for_tick(name, last + 2)
        return self.ticks(name)[-1]

    def processes_of(self, *words: str) -> list[processes.Process]:
        """The program's own processes whose command line holds all of `words`."""
        files = {str(path) for path in self.cloud.configs}
        return [
            one
            for one in processes.everyone()
            if files & set(one.command()) and all(word in one.command() for word in words)
        ]

    # -- the lines ------------------------------------------------------------------------------------------------
    def two_guests_boot(self) -> None:
        image = self.compute.image_id()
        inside = self.compute.must("GET", f"{NETWORK}/networks?name={INSIDE}")["networks"][0]["id"]
        for name in ("ada", "bob"):
            self.servers[name] = self.compute.create(name, image, networks=[{"uuid": inside}], key_name=KEY)
        places = {
            name: str(self.compute.wait(one, "ACTIVE")["OS-EXT-SRV-ATTR:host"]) for name, one in self.servers.items()
        }
        must(set(places.values()) == {"h1", "h2"}, f"the guests were not spread: {places}")
        for name, host in places.items():
            self.wait_for_tick(name, 2)
            self.say(f"{name} runs on {host} and ticks")

    def ada_is_visited(self) -> None:
        login = Login(self.cloud, self.say)
        address = login.address(login.server("ada"))
        login.wait_for_sshd("ada", address)
        self.visitor = Visitor(self.cloud, address)
        self.visitor.look()
        self.say(
            f"ada is reached from outside at her floating IP {address}: pinged from now on, and one ssh session held"
        )

    def is_still_reached(self, lost_max: int | None = None) -> str:
        """What the visitor has seen since it was asked last."""
        assert self.visitor is not None, "ada is visited"
        seen = self.visitor.look()
        self.longest_gap_ms = max(self.longest_gap_ms, seen.gap_ms)
        must(seen.gap_ms <= GAP_MAX_MS, f"ada answered no ping for {seen.gap_ms:.0f} ms")
        must(lost_max is None or seen.lost <= lost_max, f"ada answered all pings but {seen.lost}")
        return f"longest ping gap {seen.gap_ms:.0f} ms ({seen.lost} lost), the session lives"

    def there_and_back(self) -> None:
        first = self.compute.host_of(self.servers["ada"])
        for _ in ("there", "back"):
            source = self.compute.host_of(self.servers["ada"])
            asked = time.monotonic()
            self.compute.migrate(self.servers["ada"])
            migration = self.compute.wait_migrated(self.servers["ada"])
            took_ms = (time.monotonic() - asked) * 1000
            must(migration["status"] == "completed", f"the migration ended as {migration['status']}")
            server = self.compute.wait(self.servers["ada"], "ACTIVE")
            must(server["OS-EXT-SRV-ATTR:host"] != source, f"ada is still on {source}")
            last = self.goes_on("ada")
            self.say(
                f"ada moved from {source} to {server['OS-EXT-SRV-ATTR:host']} in {took_ms:.0f} ms; "
                f"tick {last}, none missing, memory intact; {self.is_still_reached()}"
            )
        must(self.compute.host_of(self.servers["ada"]) == first, "ada did not come back")

    def agents_die(self) -> None:
        """All of her host, and what makes networks on the other one, where the router may be."""
        host = self.compute.host_of(self.servers["ada"])
        agents = {*self.processes_of("agent", host), *self.processes_of("agent", NETWORK_AGENT)}
        must(len(agents) >= 3, f"of three agents {len(agents)} were found")
        killed = time.monotonic()
        for one in agents:
            one.send(signal.SIGKILL)
        self._wait_state(host, "down")
        self.say(
            f"the agents of {host} and both network agents were killed with -9; {host} shows down after "
            f"{(time.monotonic() - killed) * 1000:.0f} ms"
        )
        self.goes_on("ada")
        self.say(f"ada runs on without them; {self.is_still_reached(lost_max=0)}")
        self._wait_state(host, "up")
        server = self.compute.server(self.servers["ada"])
        must(server["status"] == "ACTIVE" and server["OS-EXT-SRV-ATTR:host"] == host, f"ada is {server['status']}")
        self.say(
            f"the agents came back after {time.monotonic() - killed:.1f} s, and adopted ada; "
            f"tick {self.goes_on('ada')}, none missing; {self.is_still_reached(lost_max=0)}"
        )

    def _wait_state(self, host: str, state: str) -> None:
        deadline = time.monotonic() + AGENT_BACK_S
        while self.compute.services()[(host, "nova-compute")] != state:
            must(time.monotonic() < deadline, f"{host} does not show {state} after {AGENT_BACK_S} s")
            time.sleep(0.01)

    def control_dies_in_a_migration(self) -> None:
        server = self.servers["ada"]
        source = self.compute.host_of(server)
        self.compute.migrate(server)
        self._wait_running(server)
        for one in self.processes_of("droveway.main", "control"):
            one.send(signal.SIGKILL)
        self.say("control was killed with -9 in the middle of the live migration of ada")
        migration = self.compute.wait_migrated(server)
        where = str(self.compute.wait(server, "ACTIVE")["OS-EXT-SRV-ATTR:host"])
        expected = source if migration["status"] in {"error", "cancelled"} else migration["dest_compute"]
        must(where == expected, f"the migration is {migration['status']} and ada is on {where}")
        running = [host.name for host in self.cloud.lab.hosts if server in self._domains(host.name, "--state-running")]
        must(running == [where], f"ada's row says {where}, and it runs on {running}")
        self.say(
            f"control is back, the migration ended as {migration['status']}, ada runs on {where} alone; "
            f"tick {self.goes_on('ada')}, none missing; {self.is_still_reached()}"
        )

    def _wait_running(self, server: str) -> None:
        deadline = time.monotonic() + 10
        while self.compute.migrations(server)[0]["status"] in {"accepted", "queued", "preparing"}:
            must(time.monotonic() < deadline, "the migration did not begin within 10 s")
        time.sleep(0.2)

    def _domains(self, host: str, *options: str) -> list[str]:
        done = self.cloud.lab.host(host).run("virsh", "-q", "-c", "qemu:///system", "list", "--uuid", *options)
        must(done.returncode == 0, f"virsh on {host}: {done.stderr.strip()}")
        return done.stdout.split()

    def the_visitor_leaves(self) -> None:
        assert self.visitor is not None, "ada was visited"
        self.visitor.leave()
        self.say(
            f"the visitor leaves: {self.visitor.pinged()} pings answered, longest gap {self.longest_gap_ms:.0f} ms; "
            f"{self.visitor.said()} words of one ssh session, none missing"
        )

    def all_is_deleted(self) -> None:
        for server in self.servers.values():
            self.compute.delete(server)
        self.say("ada and bob are deleted")

    def instance_files(self) -> list[str]:
        return [path.name for path in self.cloud.instances.iterdir() if path.name != "_base"]

    def nothing_is_left(self) -> None:
        left = {
            "libvirt domains": [d for host in self.cloud.lab.hosts for d in self._domains(host.name, "--all")],
            "instance files": self.instance_files(),
            "servers": self.compute.must("GET", "/compute/v2.1/servers")["servers"],
            "ports of servers": [
                port
                for port in self.compute.must("GET", f"{NETWORK}/ports")["ports"]
                if port["device_owner"].startswith("compute:")
            ],
            "taps": [f"{host.name} {tap}" for host in self.cloud.lab.hosts for tap in _taps(host)],
            "open sagas": self.compute.must("GET", "/droveway/v1/sagas")["sagas"],
            "vcpus claimed": [
                h
                for h in self.compute.must("GET", "/compute/v2.1/os-hypervisors/detail", version="2.87")["hypervisors"]
                if h["vcpus_used"]
            ],
        }
        for what, found in left.items():
            must(not found, f"{len(found)} {what} are left: {found}")
        self.say(f"left behind: {', '.join(f'0 {what}' for what in left)}")

    def the_cloud_ends(self) -> None:
        lab = self.cloud.lab
        self.cloud.down()
        spaces = [p.name for p in Path("/run/netns").glob(f"dw-{lab.id}-*")] if Path("/run/netns").exists() else []
        must(not spaces, f"namespaces are left: {spaces}")
        alive = [one.pid for one in processes.everyone() if any(str(self.cloud.home) in word for word in one.command())]
        must(not alive, f"processes are left: {alive}")
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.cloud.home) in line]
        must(not mounts, f"mounts are left: {mounts}")
        self.say("the cloud is down: 0 namespaces, 0 processes, 0 mounts left")


def _taps(host: Host) -> list[str]:
    done = host.run("ip", "-o", "link", "show")
    return [line.split(": ")[1] for line in done.stdout.splitlines() if line.split(": ")[1].startswith("dwt")]


@contextlib.contextmanager
def own_cloud() -> Iterator[Cloud]:
    """A cloud in a directory of its own, with the clone's cache; gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="dw-"))
    cache = CLONE / ".droveway" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (home / "cache").symlink_to(cache)
    cloud = Cloud(home)
    try:
        yield cloud
    finally:
        cloud.down()
        shutil.rmtree(home, ignore_errors=True)


def lines_of(cloud: Cloud) -> tuple[Story, tuple[Callable[[], None], ...]]:
    """The story of that cloud."""
    if cloud.choice.storage == "ceph":
        from lab import demo_ceph  # which is a story of this kind

        of_ceph = demo_ceph.CephStory(cloud)
        return of_ceph, demo_ceph.lines(of_ceph)
    story = Story(cloud)
    return story, (
        story.two_guests_boot,
        story.ada_is_visited,
        story.there_and_back,
        story.agents_die,
        story.control_dies_in_a_migration,
        story.the_visitor_leaves,
        story.all_is_deleted,
        story.nothing_is_left,
        story.the_cloud_ends,
    )


def tell(cloud: Cloud) -> int:
    story, lines = lines_of(cloud)
    story.say("a cloud of two hosts is started")
    cloud.up(simulated=False, foreground=False, quiet=True)
    story.api = Compute(cloud.port, cloud.clouds_yaml)
    story.say(f"it answers at http://127.0.0.1:{cloud.port}")
    for line in lines:
        try:
            line()
        except (CutOff, LineFailed, LoginFailed, *FAILURES, OSError, http.client.HTTPException) as failure:
            story.say(f"FAILED: {line.__name__.replace('_', ' ')}: {failure}")
            kept = Path(tempfile.gettempdir()) / f"droveway-demo-{os.getpid()}.log"
            shutil.copy(cloud.log, kept)
            story.say(f"the program's log is kept in {kept}")
            return 1
    story.say("every line of the story held")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--bus", choices=BUSES)
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--storage", choices=STORAGES)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        listen()
        with own_cloud() as cloud:
            cloud.choose(arguments.bus, arguments.store, arguments.storage)
            code = tell(cloud)
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; its cloud has been taken down")
    except FAILURES as failure:
        sys.exit(f"demo: {failure}")
    sys.exit(code)


if __name__ == "__main__":
    from lab import demo  # noqa: PLW0406 - as other stories know it: one LineFailed, not two

    demo.main()
