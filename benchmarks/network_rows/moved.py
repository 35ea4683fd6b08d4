"""A guest that is pinged while it is live-migrated: ours from outside, through its floating IP and the rules; beside it
the same guest on a static bridge and VXLAN, moved by libvirt alone and pinged from the bridge."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.claims import Claim, median, progress
from benchmarks.cloud_rows.bare_guest import BareGuest
from benchmarks.network_rows.simulated_ports import network_id
from lab.cloud import Cloud
from lab.compute import Compute
from lab.login import Login
from lab.processes import wait_for
from lab.quickstart import KEY
from lab.visitor import ANSWER, Visitor

PAIRS = 10
COMES_UP_S, QUIET_S = 60.0, 1.0
BRIDGE, TUNNEL, VNI, PORT = "brstatic", "vxstatic", 77, 4790


def measure(cloud: Cloud) -> Iterator[Claim]:
    ours_ms, bare_ms = gaps(cloud)
    floor = median(bare_ms)
    note = (
        f"{PAIRS} pairs in turn; bare libvirt {floor:.0f} ms, ours at worst {max(ours_ms):.0f}, bare {max(bare_ms):.0f}"
    )
    yield Claim("longest gap of pings over a live migration", median(ours_ms), floor + 60, "ms", note)


def gaps(cloud: Cloud) -> tuple[list[float], list[float]]:
    """The longest time without an answer, in ms, of each pair: ours and bare libvirt's."""
    compute = Compute(cloud.port, cloud.clouds_yaml)
    server = compute.create("mover", compute.image_id(), networks=[{"uuid": network_id(compute)}], key_name=KEY)
    compute.wait(server, "ACTIVE")
    login = Login(cloud)
    address = login.address(login.server("mover"))
    login.wait_for_sshd("mover", address)
    static_bridge(cloud)
    bare = BareGuest(cloud, server, BRIDGE)
    visitor, pinging = (
        Visitor(cloud, address),
        _Pinging(cloud, bare.host, cloud.home / "bare.pings", _mac(cloud, server)),
    )
    ours_ms: list[float] = []
    bare_ms: list[float] = []
    try:
        for pair in range(PAIRS):
            progress(f"live migration under pings, pair {pair + 1} of {PAIRS}")
            acts = [
                lambda: ours_ms.append(_move(compute, server, visitor)),
                lambda: bare_ms.append(_bare(bare, pinging)),
            ]
            for act in acts if pair % 2 else reversed(acts):
                act()
    finally:
        visitor.leave()
        pinging.end()
        bare.end()
    compute.delete(server)
    return ours_ms, bare_ms


def _move(compute: Compute, server: str, visitor: Visitor) -> float:
    visitor.look()
    compute.migrate(server)
    status = compute.wait_migrated(server)["status"]
    assert status == "completed", f"the migration ended as {status}"
    compute.wait(server, "ACTIVE")
    time.sleep(QUIET_S)
    return visitor.look().gap_ms


def _bare(bare: BareGuest, pinging: _Pinging) -> float:
    pinging.look()
    bare.move()
    time.sleep(QUIET_S)
    return pinging.look()


def static_bridge(cloud: Cloud) -> None:
    hosts = cloud.lab.hosts[:2]
    for host, other in (hosts, hosts[::-1]):
        lines = (
            f"link add {BRIDGE} type bridge",
            f"link set {BRIDGE} up",
            f"link add {TUNNEL} type vxlan id {VNI} dstport {PORT} local {host.address} remote {other.address}",
            f"link set {TUNNEL} master {BRIDGE} up",
        )
        for line in lines:
            done = host.run("ip", *line.split())
            assert done.returncode == 0, f"{host.name}: ip {line}: {done.stderr}"


def _mac(cloud: Cloud, server: str) -> str:
    for host in cloud.lab.hosts:
        listed = host.run("virsh", "-q", "-c", "qemu:///system", "domiflist", server)
        if listed.returncode == 0:
            return listed.stdout.split()[-1]
    raise AssertionError(f"no host has server {server}")


class _Pinging:
    """From that host, by the guest's link-local address: it needs nobody who gives it another one."""

    def __init__(self, cloud: Cloud, host: str, heard: Path, mac: str) -> None:
        octets = [int(one, 16) for one in mac.split(":")]
        octets[0] ^= 2
        groups = (octets[0] << 8 | octets[1], octets[2] << 8 | 0xFF, 0xFE00 | octets[3], octets[4] << 8 | octets[5])
        address = "fe80::" + ":".join(f"{one:x}" for one in groups)
        self._heard, self._looked = heard, 0
        command = cloud.lab.host(host).command("ping", "-6", "-D", "-n", "-i", "0.02", f"{address}%{BRIDGE}")
        with heard.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, cwd="/"
            )
        assert wait_for(lambda: len(self._answers()) > 5, COMES_UP_S), f"the bare guest does not answer at {address}"

    def _answers(self) -> list[float]:
        return [float(when) for when, _ in ANSWER.findall(self._heard.read_text())]

    def look(self) -> float:
        """The longest time without an answer since the look before, in milliseconds; once it answers afresh."""
        before = len(self._answers())
        assert wait_for(lambda: len(self._answers()) > before + 1, COMES_UP_S), "the bare guest answers no more"
        answers = self._answers()
        since, self._looked = answers[max(0, self._looked - 1) :], len(answers)
        return max(after - earlier for earlier, after in itertools.pairwise(since)) * 1000

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
