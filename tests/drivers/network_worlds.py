"""Hosts and guests as network namespaces: real packets without a hypervisor. A guest is a namespace whose cable ends at
its host as the tap of its port would. Hosts are joined by a bridge in a namespace of its own, the underlay."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from droveway.domain.network_plan import (
    FixedIp,
    GroupRule,
    HostNetworks,
    Ipv6Mode,
    PlannedNetwork,
    PlannedPort,
    PlannedSubnet,
    RemotePort,
    RuleDirection,
    SecurityGroup,
    bridge_of,
)
from droveway.drivers.network.bridge import kernel
from droveway.drivers.network.bridge.driver import BridgeNetwork
from lab import network

NEEDED = ("nft", "dnsmasq", "conntrack", "ping", "busybox", "ip", "bridge")
_COUNT = itertools.count()
ANY_EGRESS = (GroupRule(RuleDirection.EGRESS, 4), GroupRule(RuleDirection.EGRESS, 6))


def obstacle() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in NEEDED if shutil.which(name, path=kernel.PATH) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


NEEDS_REAL_NETWORKS = pytest.mark.skipif(bool(obstacle()), reason=f"no real networks here: {obstacle()}")


def identity(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def mac(number: int) -> str:
    return f"52:54:00:00:{number // 256:02x}:{number % 256:02x}"


def subnet(number: int = 1, cidr: str = "10.0.0.0/24", **given: object) -> PlannedSubnet:
    front = cidr.partition("/")[0].removesuffix("0")
    gateway = "fe80::1" if ":" in cidr else f"{front}1"
    values = {"gateway": gateway, "dhcp_address": f"{front}2", "has_dhcp": True, **given}
    return PlannedSubnet(identity(number), cidr, **values)  # type: ignore[arg-type]


SLAAC6 = {"ipv6_mode": Ipv6Mode.SLAAC, "gateway": ""}


def planned_network(number: int = 1, *subnets: PlannedSubnet, vni: int = 100, **given: object) -> PlannedNetwork:
    its = subnets or (subnet(1), subnet(2, "fd00::/64", **SLAAC6))
    values = {"dhcp_mac": "fa:16:3e:ff:ff:01", **given}
    return PlannedNetwork(identity(number), 1450, vni, subnets=its, **values)  # type: ignore[arg-type]


def port(number: int, network_number: int = 1, groups: tuple[str, ...] = (), **given: object) -> PlannedPort:
    """Its address ends in its number, as its MAC does; so do those of two networks."""
    own = number % 100
    ips = (FixedIp(identity(1), f"10.0.0.{own}"), FixedIp(identity(2), f"fd00::{own}"))
    values = {"fixed_ips": ips, "mac": mac(own), **given}
    return PlannedPort(identity(number), identity(network_number), groups=groups, **values)  # type: ignore[arg-type]


def group(number: int, *rules: GroupRule, members: tuple[str, ...] = ()) -> SecurityGroup:
    return SecurityGroup(identity(number), (*ANY_EGRESS, *rules), members)


def tcp(number: int, version: int = 4, **given: object) -> GroupRule:
    return GroupRule(RuleDirection.INGRESS, version, 6, number, number, **given)  # type: ignore[arg-type]


PING = (GroupRule(RuleDirection.INGRESS, 4, 1), GroupRule(RuleDirection.INGRESS, 6, 58))


def remote(one: PlannedPort, tunnel_address: str) -> RemotePort:
    return RemotePort(one.mac, tuple(ip.address for ip in one.fixed_ips), tunnel_address)


class Guest:
    """`device`: of its host. It has its addresses at once, unless it is to ask for them."""

    def __init__(self, host: Host, one: PlannedPort, *, is_configured: bool = True) -> None:
        self.name, self.host, self.port = f"{host.name}g{next(_COUNT)}", host, one
        network.create(self.name)
        peer = f"peer name eth0 address {one.mac} netns {self.name}"
        network.build(host.name, f"link add {one.device} mtu 1450 type veth {peer}")
        with kernel.inside(self.name):
            kernel.set_sysctl("ipv6/conf/default/accept_dad", "0")
            kernel.set_sysctl("ipv6/conf/eth0/accept_dad", "0")
            kernel.set_sysctl("ipv6/conf/eth0/accept_ra", "0" if is_configured else "1")
        lines = ["link set lo up", "link set eth0 mtu 1450 up"]
        if is_configured:
            lines += [f"addr add {ip.address}/{64 if ':' in ip.address else 24} dev eth0" for ip in one.fixed_ips]
        network.build(self.name, *lines)

    def plug(self) -> None:
        """As a hypervisor does it."""
        bridge = bridge_of(self.port.network_id)
        network.build(self.host.name, f"link set {self.port.device} addrgenmode none master {bridge} up")

    def run(self, *command: str, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*command), capture_output=True, text=True, timeout=timeout_s, check=False, cwd="/"
        )

    def command(self, *command: str) -> list[str]:
        return ["nsenter", f"--net={network.path(self.name)}", "--", *command]

    def pings(self, address: str, count: int = 1, wait_s: float = 1.0) -> bool:
        return self.run("ping", "-n", "-c", str(count), "-i", "0.05", "-W", str(wait_s), address).returncode == 0

    def connects(self, address: str, number: int, wait_s: float = 1.0) -> bool:
        code = f"import socket; socket.create_connection(({address!r}, {number}), {wait_s}).recv(1)"
        return self.run("python3", "-IS", "-c", code).returncode == 0

    @contextlib.contextmanager
    def serving(self, number: int, code: str = "c.sendall(b'x')") -> Iterator[subprocess.Popen[str]]:
        """A TCP server for IPv4 and IPv6; `code` is what it does with a connection `c`."""
        text = (
            "import socket, threading, time\n"
            f"s = socket.create_server(('::', {number}), family=socket.AF_INET6, dualstack_ipv6=True)\n"
            "print('serving', flush=True)\n"
            f"def each(c):\n    {code}\n"
            "while True: threading.Thread(target=each, args=(s.accept()[0],), daemon=True).start()\n"
        )
        with self.started("python3", "-IS", "-c", text) as process:
            assert process.stdout is not None and process.stdout.readline() == "serving\n"
            yield process

    @contextlib.contextmanager
    def started(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @contextlib.contextmanager
    def pinging(self, address: str) -> Iterator[dict[str, int]]:
        """Every 5 ms; what it holds afterwards: how many were sent and how many were lost."""
        counted: dict[str, int] = {}
        with self.started("ping", "-n", "-q", "-i", "0.005", address) as process:
            time.sleep(0.1)
            yield counted
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            words = next(line for line in process.stdout if "transmitted" in line).split()
            counted["sent"], counted["lost"] = int(words[0]), int(words[0]) - int(words[3])


class Host:
    """`address`: of its tunnels."""

    def __init__(self, rig: Rig, number: int, **physical: str) -> None:
        self.name, self.address = f"{rig.name}h{number}", f"192.0.2.{number}"
        self.underlay = rig.name
        self.directory = rig.directory / self.name
        network.create(self.name)
        network.build(
            rig.name,
            f"link add {self.name} type veth peer name eth0 netns {self.name}",
            f"link set {self.name} master br0 up",
        )
        network.build(self.name, "link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up")
        self.physical = physical
        self.driver = self.new_driver()

    def new_driver(self) -> BridgeNetwork:
        return BridgeNetwork(self.name, self.physical, self.directory, str(network.path(self.name)))

    async def begin_anew(self) -> None:
        """Another process of the driver, which knows nothing."""
        await self.driver.close()
        self.driver = self.new_driver()
        await self.driver.open()

    def links(self) -> set[str]:
        return set(kernel.links(self.name))

    def rules(self) -> str:
        return subprocess.run(
            ["nsenter", f"--net={network.path(self.name)}", "--", "nft", "-s", "list", "ruleset"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def dropped(self, chain: str) -> int:
        """Packets, by the counters of that chain of the bridge family."""
        done = subprocess.run(
            [
                "nsenter",
                f"--net={network.path(self.name)}",
                "--",
                "nft",
                "-j",
                "list",
                "chain",
                "bridge",
                "droveway",
                chain,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        rules = [one["rule"]["expr"] for one in json.loads(done.stdout)["nftables"] if "rule" in one]
        return sum(expr["counter"]["packets"] for rule in rules for expr in rule if "counter" in expr)

    def sh(self, line: str) -> None:
        subprocess.run(["nsenter", f"--net={network.path(self.name)}", "--", "sh", "-c", line], check=True, cwd="/")


class Rig:
    """Some hosts, their guests and the underlay; as a context it leaves nothing behind."""

    def __init__(self, hosts: int = 1) -> None:
        self.name = f"dwn{os.getpid()}-{next(_COUNT)}"
        self.directory = Path(tempfile.mkdtemp(prefix="droveway-network-"))
        self.directory.chmod(0o755)  # dnsmasq, which is not root, reads what is below
        network.create(self.name)
        network.build(self.name, "link set lo up", "link add br0 type bridge", "link set br0 up")
        self.hosts = [Host(self, number) for number in range(1, hosts + 1)]
        self.guests: list[Guest] = []

    async def __aenter__(self) -> Rig:
        for host in self.hosts:
            await host.driver.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for host in self.hosts:
            await host.driver.remove_all()
            await host.driver.close()
        for one in (*self.guests, *self.hosts, self):
            network.delete(one.name)
        shutil.rmtree(self.directory)

    def guest(self, host: Host, one: PlannedPort, *, is_configured: bool = True) -> Guest:
        made = Guest(host, one, is_configured=is_configured)
        self.guests.append(made)
        return made

    def plan(self, host: Host, revision: int = 1, **given: object) -> HostNetworks:
        others = tuple(one.address for one in self.hosts if one is not host)
        return HostNetworks(revision, host.address, others, **given)  # type: ignore[arg-type]


def is_running(pid: int) -> bool:
    """And not only waiting to be buried."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def wait_until(is_so: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.05)


@contextlib.contextmanager
def talking(guest: Guest, code: str) -> Iterator[Callable[[], str]]:
    """A program that answers each line; what the call returns is its answer, empty when it has ended."""
    process = subprocess.Popen(
        guest.command("python3", "-IS", "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask() -> str:
        stdin.write("\n")
        stdin.flush()
        return stdout.readline().strip()

    try:
        yield ask
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        stdout.close()
