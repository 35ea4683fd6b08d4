"""A lab: several KVM hosts on one machine, and nothing of them left when it is taken down.

A host is a set of namespaces (network, mount, uts, ipc, pid) with its own libvirtd. Its pid 1 is `host-init`; killing
that is a power failure. Links and the bridge between the hosts live in a control network namespace of the lab, so the
machine's own network never sees them. A second bridge, in a namespace of its own, is what is outside of the cloud:
every host has a cable to it, and it leads nowhere else. Every object carries the lab's id, which is made from its
directory: labs in different directories do not meet, and one that was interrupted is found again by the next call in
the same place.

Directories, below the lab's own (visible at the same path on every host, for nothing hides them):
    shared/       the shared store: the same files everywhere
    instances/    each host sees its own private directory here
    h1/ h2/ …     what is private to a host: its libvirt's state, caches and logs; kept when the lab goes down
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import libvirtd, network, registry
from lab.processes import Process, end, everyone, in_network, recorded, wait_for

HERE = Path(__file__).resolve().parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = (
    "libvirtd",
    "virsh",
    "qemu-system-x86_64",
    "ip",
    "unshare",
    "nsenter",
    "setsid",
    "taskset",
    "mount",
    "hostname",
)
START_S = 5.0
LIBVIRTD_S = 20.0
TCP_RETRIES = 6  # 25 s; QEMU stands still as long as the kernel tries, when its last words go to a host that is cut off
GUESTS_END_S, VISITORS_END_S = 3.0, 1.0
END_S = 5.0
OUTSIDE = "172.24.4.1/24"  # who is outside, and the way out for the cloud's routers
OUTER_DEVICE = "eth1"  # a host's, without an address


class LabFailed(Exception):
    """The lab could not do what was asked; the message says which host and why."""


def obstacle() -> str | None:
    """Why there cannot be lab hosts on this machine; None when there can."""
    if os.geteuid() != 0:
        return "namespaces and libvirtd need root"
    missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    isolate = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"]
    try:
        tried = subprocess.run(isolate, capture_output=True, text=True, timeout=START_S, check=False)
    except subprocess.TimeoutExpired:
        return f"unshare did not end within {START_S:.0f} s"
    return tried.stderr.strip() if tried.returncode else None


@dataclass(frozen=True)
class Host:
    """One host as others need to know it. Paths and sockets are as seen inside, unless said otherwise."""

    lab: Path
    lab_id: str
    name: str
    address: str

    libvirt_socket = "/run/libvirt/libvirt-sock"
    boot_id_path = "/run/boot-id"

    @property
    def netns(self) -> str:
        return f"dw-{self.lab_id}-{self.name}"

    @property
    def state(self) -> Path:
        return self.lab / self.name

    @property
    def instances(self) -> Path:
        """This host's private instance store."""
        return self.lab / "instances"

    @property
    def peer_uri(self) -> str:
        """How another host's libvirtd reaches this one."""
        if libvirtd.has_tls(self.state):
            return f"qemu+tls://{self.name}/system"
        return f"qemu+tcp://{self.address}/system"

    @property
    def data_uri(self) -> str:
        """Where another host sends a migrating guest's memory and disks."""
        return f"{'tls' if libvirtd.has_tls(self.state) else 'tcp'}://{self.address}"

    @property
    def init(self) -> Process | None:
        """Pid 1 of the host, as seen outside; None when the host is off."""
        return recorded(self.state / "init")

    @property
    def libvirtd(self) -> Process | None:
        init = self.init
        if init is None:
            return None
        return next((one for one in everyone() if one.parent() == init.pid and one.name() == "libvirtd"), None)

    def outside(self, path: str) -> Path:
        """A path inside the running host, as the machine outside can open it."""
        init = self.init
        if init is None:
            raise LabFailed(f"host {self.name} of {self.lab} is not running")
        return Path(f"/proc/{init.pid}/root{path}")

    def outside_uri(self) -> str:
        """A libvirt URI that works from outside the host."""
        return f"qemu+unix:///system?socket={self.outside(self.libvirt_socket)}"

    def boot_id(self) -> str:
        return self.outside(self.boot_id_path).read_text().strip()

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` inside."""
        return [str(HERE / "enter"), str(self.lab), self.name, "--", *command]

    def run(self, *command: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*command), capture_output=True, text=True, timeout=timeout_s, check=False, cwd="/"
        )

    def answers(self) -> bool:
        """Whether its libvirtd takes connections."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(str(self.outside(self.libvirt_socket)))
        except (OSError, LabFailed):
            return False
        return True


class Lab:
    """The lab whose state directory this is. Nothing happens before `up`."""

    def __init__(self, directory: Path | str, cache: Path | None = None) -> None:
        self.directory = Path(directory).resolve()
        self.shared = self.directory / "shared"
        self.cache = cache  # what all labs of a clone may share: answers that cost time to find
        self.id = registry.identity(self.directory)
        self.control = f"dw-{self.id}-ctl"
        self.outside = f"dw-{self.id}-out"

    # -- what there is --------------------------------------------------------------------------------------------
    @property
    def hosts(self) -> list[Host]:
        try:
            count = int(json.loads((self.directory / "lab.json").read_text())["hosts"])
        except (OSError, ValueError, KeyError):
            count = 0
        return [
            Host(self.directory, self.id, f"h{number}", f"{self._subnet()}.{10 + number}")
            for number in range(1, count + 1)
        ]

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabFailed(f"the lab in {self.directory} has no host {name}: it has {', '.join(self._names()) or 'none'}")

    def _names(self) -> dict[str, str]:
        return {host.name: host.address for host in self.hosts}

    @property
    def address(self) -> str:
        """The lab's own on the bridge: what listens there, in the namespace `control`, is reached by every host."""
        return f"{self._subnet()}.1"

    def _subnet(self) -> str:
        """Ends inside the lab's namespaces, so it need only be one that reads like what it is."""
        first, second = bytes.fromhex(self.id)[:2]
        return f"10.{64 + first % 128}.{second}"

    # -- up and down ----------------------------------------------------------------------------------------------
    def up(self, hosts: int = 2, wait: bool = True) -> list[Host]:
        """Start what is not running. Harmless when all is, and after an `up` or `down` that was interrupted."""
        reason = obstacle()
        if reason is not None:
            raise LabFailed(f"there can be no lab hosts here: {reason}")
        if not 1 <= hosts <= 200:
            raise LabFailed(f"a lab has 1 to 200 hosts, not {hosts}")
        for directory in (self.shared, self.directory / "instances"):
            directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            registry.enter(self.id, self.directory)
            self._remember(max(hosts, len(self.hosts)))
            if not network.is_bridged(self.control):
                self._make_bridge()
            for host in self.hosts:  # running ones too: they learn the names of new ones
                libvirtd.write_files(host.state, host.address, self._names())
            for host in self.hosts:
                if host.init is None:
                    self._boot(host)
        if wait:
            self.wait()
        return self.hosts

    def wait(self, *names: str) -> None:
        """Until the libvirtd of every running host, or of those named, takes connections."""
        for host in [self.host(name) for name in names] or self.hosts:
            booted = host.init
            if booted is None:
                continue
            in_time = wait_for(lambda: host.answers() or not booted.is_alive(), LIBVIRTD_S)  # noqa: B023
            if not booted.is_alive():
                raise LabFailed(f"host {host.name} ended while it started: {_last_words(host, 'init.log')}")
            if not in_time:
                words = _last_words(host, "libvirtd.log")
                raise LabFailed(f"libvirtd of host {host.name} did not answer within {LIBVIRTD_S:.0f} s: {words}")

    def warm(self) -> None:
        """Let every libvirtd learn now what it would otherwise learn when its first guest starts."""
        waiting = [
            subprocess.Popen(
                host.command("virsh", "-q", "-c", "qemu:///system", "capabilities"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for host in self.hosts
        ]
        for one, host in zip(waiting, self.hosts, strict=True):
            try:
                one.wait(LIBVIRTD_S)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait(LIBVIRTD_S)
            if self.cache is not None:
                libvirtd.keep_probed(host.state, self.cache / "capabilities")

    def down(self) -> None:
        """End everything the lab started, and everything started inside it. Its directory stays."""
        if not self.directory.exists():
            registry.remove(self.id)
            return
        with self._alone():
            self.end_guests()
            # Who is logged in from a terminal gives it back in order.
            end(lambda: in_network([network.path(self.outside)]), signal.SIGTERM, VISITORS_END_S)
            registry.remove(self.id)
            for host in self.hosts:
                (host.state / "init").unlink(missing_ok=True)

    def end_guests(self) -> None:
        """QEMU writes back what it holds when it is asked to end; it is not asked twice."""
        namespaces = [network.path(host.netns) for host in self.hosts if host.init is not None]

        def guests() -> list[Process]:
            return [one for one in in_network(namespaces) if one.name().startswith("qemu-system")]

        end(guests, signal.SIGTERM, GUESTS_END_S)

    # -- one host -------------------------------------------------------------------------------------------------
    def power_off(self, name: str, silent: bool = False) -> None:
        """A power failure. With `silent` its peers hear nothing, not even that connections ended."""
        host = self.host(name)
        with self._alone():
            if silent:
                self.cut(name)
            if not end(lambda: in_network([network.path(host.netns)]), signal.SIGKILL, END_S):
                raise LabFailed(f"host {name} did not end within {END_S:.0f} s of being killed")
            self.cut(name)  # its bridges are the kernel's, and would forward on
            (host.state / "init").unlink(missing_ok=True)

    def cut(self, name: str) -> None:
        """Pull its cables: nobody is told that a connection has ended."""
        for namespace in (self.control, self.outside):
            network.build(namespace, f"link set {self.host(name).name} down")

    def mend(self, name: str) -> None:
        for namespace in (self.control, self.outside):
            network.build(namespace, f"link set {self.host(name).name} up")

    def power_on(self, name: str, wait: bool = True) -> Host:
        host = self.host(name)
        with self._alone():
            if host.init is None:
                self._boot(host)
        if wait:
            self.wait(name)
        return host

    def stop_libvirtd(self, name: str) -> None:
        """End it and keep it from coming back; guests run on."""
        host = self.host(name)
        host.outside("/run/libvirtd.held").touch()
        self._end_libvirtd(host, signal.SIGTERM)

    def start_libvirtd(self, name: str) -> None:
        host = self.host(name)
        host.outside("/run/libvirtd.held").unlink(missing_ok=True)
        self.wait(name)

    def kill_libvirtd(self, name: str) -> None:
        """As if it had crashed: the host's init starts it again."""
        self._end_libvirtd(self.host(name), signal.SIGKILL)

    def _end_libvirtd(self, host: Host, number: signal.Signals) -> None:
        running = host.libvirtd
        if running is not None and not end(lambda: [running] if running.is_alive() else [], number, END_S):
            running.send(signal.SIGKILL)

    # -- how ------------------------------------------------------------------------------------------------------
    def _make_bridge(self) -> None:
        for namespace, cidr in ((self.outside, OUTSIDE), (self.control, f"{self.address}/24")):
            registry.clear(namespace)
            network.create_bridged(namespace, cidr)
        for host in self.hosts:  # whatever was plugged into the bridge before is unplugged now
            registry.clear(host.netns)

    def _boot(self, host: Host) -> None:
        registry.clear(host.netns)
        (host.state / "init").unlink(missing_ok=True)
        if self.cache is not None:
            libvirtd.seed_probed(host.state, self.cache / "capabilities")
        network.create(host.netns)
        network.plug(self.control, host.name, host.netns, "eth0")
        network.plug(self.outside, host.name, host.netns, OUTER_DEVICE)
        network.build(host.netns, "link set lo up", f"addr add {host.address}/24 dev eth0", "link set eth0 up")
        with network.inside(host.netns):
            Path("/proc/sys/net/ipv4/tcp_retries2").write_text(f"{TCP_RETRIES}\n")
        self._start_init(host)

    def _start_init(self, host: Host) -> None:
        """In a session of its own and nobody's child: Ctrl-C does not reach it, and it outlives its starter."""
        isolate = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL"]
        with (host.state / "log" / "init.log").open("wb") as log:
            started = subprocess.run(
                [
                    "setsid",
                    "--fork",
                    "nsenter",
                    f"--net={network.path(host.netns)}",
                    *isolate,
                    "/bin/sh",
                    str(HERE / "host-init"),
                    str(host.state),
                    host.name,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                timeout=START_S,
                check=False,
                env={"PATH": PATH, "LANG": "C.UTF-8"},
            )
        if started.returncode or not wait_for(lambda: host.init is not None, START_S):
            raise LabFailed(f"host {host.name} did not start: {_last_words(host, 'init.log')}")

    def _remember(self, hosts: int) -> None:
        unfinished = self.directory / "lab.json.new"
        unfinished.write_text(json.dumps({"id": self.id, "hosts": hosts}) + "\n")
        unfinished.rename(self.directory / "lab.json")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time changes what there is; whoever is interrupted leaves the lock, not a stale file."""
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _last_words(host: Host, log: str) -> str:
    try:
        words = (host.state / "log" / log).read_text(errors="replace").split("\n")
    except OSError:
        words = []
    return " / ".join([word for word in words if word][-3:]) or "it left no word in its log"
