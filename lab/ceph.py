"""A real Ceph for tests, demos and benchmarks: one monitor, one OSD, two seconds.

with ceph.ceph(directory, users=("volumes", "h1")) as cluster:
    ... cluster.conf, cluster.keyring("volumes"), cluster.osd.end(...) ...
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lab import network, processes
from lab.nodes import Node, ServerFailed, free_ports
from lab.servers import must_be_installed

TEMPLATE = Path(__file__).with_name("ceph.conf")
POOLS_SCRIPT = Path(__file__).with_name("ceph_pools.py")
SYSTEM_PYTHON = "/usr/bin/python3"  # whose packages hold the bindings
STEP_S = 60.0
OSD_PORTS = 8
OWN_PORTS = range(6789, 6790 + OSD_PORTS)  # in a network namespace where nobody else is
PARTS = ("mon", "osd", "mgr")
POOLS = ("volumes",)


class Place(NamedTuple):
    """An address of this machine, or of a network namespace on it, which whatever speaks to it enters."""

    address: str = "127.0.0.1"
    namespace: str = ""

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("nsenter", f"--net={network.path(self.namespace)}", "--") if self.namespace else ()

    def listens(self, port: int) -> bool:
        with contextlib.suppress(OSError), contextlib.ExitStack() as there:
            if self.namespace:
                there.enter_context(network.inside(self.namespace))
            there.enter_context(socket.create_connection((self.address, port), timeout=1.0))
            return True
        return False


class Ceph:
    """`store`: memstore, of which nothing stays, or bluestore. `at`: where it listens, on loopback if nowhere else.
    `size_bytes`: of its one disk, a sparse file."""

    def __init__(
        self, directory: Path, store: str = "memstore", size_bytes: int = 8 << 30, at: Place | None = None
    ) -> None:
        self.home = directory / "ceph"
        self.conf = self.home / "ceph.conf"
        self._whole = self.home / "whole"  # there once its first start has come to its end
        self.is_fresh = not self._whole.exists()
        self._at, self._environment = at or Place(), dict(os.environ)
        if self.is_fresh:
            shutil.rmtree(self.home, ignore_errors=True)
            self._lay_out(store, size_bytes)
        conf = self.conf.read_text()
        (self.fsid,) = re.findall(r"^fsid = (\S+)$", conf, re.MULTILINE)
        self.port = int(re.findall(r"^mon host = v1:\S+:(\d+)$", conf, re.MULTILINE)[0])
        self.mon = self._node("mon", "ceph-mon", "-i", "a")
        self.osd = self._node("osd", "ceph-osd", "-i", "0")
        self.mgr = self._node("mgr", "ceph-mgr", "-i", "x")

    def _lay_out(self, store: str, size_bytes: int) -> None:
        for part in PARTS:
            (self.home / part).mkdir(parents=True)
        (self.home / "run").mkdir()
        port, *osd_ports = OWN_PORTS if self._at.namespace else free_ports(1 + OSD_PORTS)
        places: dict[str, object] = {
            "fsid": uuid.uuid4(),
            "home": self.home,
            "port": port,
            "store": store,
            "bytes": size_bytes,
        }
        places |= {"first": min(osd_ports), "last": max(osd_ports), "address": self._at.address}
        text = TEMPLATE.read_text()
        for name, value in places.items():
            text = text.replace(f"{{{name}}}", str(value))
        self.conf.write_text(text)

    def _node(self, name: str, *command: str) -> Node:
        user = ("--setuser", "root", "--setgroup", "root")
        words = [*self._at.prefix, *command, "-c", str(self.conf), "-f", *user]
        return Node(self.home / name, self.port, words, self._at.listens)

    def keyring(self, user: str) -> Path:
        return self.home / f"ceph.client.{user}.keyring"

    @property
    def nodes(self) -> list[Node]:
        return [self.mgr, self.osd, self.mon]

    def start(self, pools: Sequence[str] = POOLS, users: Sequence[str] = (), *, has_manager: bool = False) -> None:
        """`users` may do with the images of all those pools what they like, and nothing else."""
        if self.is_fresh:
            self._make_monitor()
        self._begin(self.mon)
        if self.mon.is_running:  # by this process
            self.mon.wait()
        if self.is_fresh:
            osd_uuid = str(uuid.uuid4())
            self._run("ceph", "-c", str(self.conf), "--connect-timeout", "20", "osd", "new", osd_uuid, "0")
            self._run("ceph-osd", "-c", str(self.conf), "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
        self._begin(self.osd)
        if has_manager:
            self._begin(self.mgr)
        reached = ",".join(pools)
        asked = (reached, "manager" if has_manager else "alone", *(f"{user}={reached}" for user in users))
        self._run(SYSTEM_PYTHON, str(POOLS_SCRIPT), str(self.conf), *asked)
        self._whole.touch()
        self.is_fresh = False

    def stays(self, environment: Mapping[str, str]) -> None:
        """Let it outlive whoever starts it; by what it carries in its environment it is found again."""
        self._environment |= environment
        for node in self.nodes:
            node.stays(environment)

    def process(self, name: str) -> processes.Process | None:
        """mon, osd or mgr, whoever has started it; None while it does not run."""
        return processes.recorded(self.home / name / "pid")

    def _begin(self, node: Node) -> None:
        """Unless an earlier caller has done it."""
        if self.process(node.directory.name) is None:
            node.begin()
            processes.record(node.directory / "pid", node.pid)

    def _make_monitor(self) -> None:
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        manager = ("--cap", "mon", "allow profile mgr", "--cap", "osd", "allow *")
        disk = ("--cap", "mon", "allow profile osd", "--cap", "mgr", "allow profile osd", "--cap", "osd", "allow *")
        of_monitor = self.home / "mon.keyring"
        self._make_key(of_monitor, "mon.", "--cap", "mon", "allow *")
        for path, name, rights in (
            (self.keyring("admin"), "client.admin", everything),
            (self.home / "ceph.mgr.x.keyring", "mgr.x", manager),
            (self.home / "ceph.osd.0.keyring", "osd.0", disk),
        ):
            self._make_key(path, name, *rights)
            self._run("ceph-authtool", str(of_monitor), "--import-keyring", str(path))
        address = f"[v1:{self._at.address}:{self.port}]"
        made = (
            "--create",
            "--clobber",
            "--fsid",
            self.fsid,
            "--addv",
            "a",
            address,
            "--set-min-mon-release",
            "pacific",
        )
        self._run("monmaptool", *made, str(self.home / "monmap"))
        where = ("--monmap", str(self.home / "monmap"), "--keyring", str(of_monitor))
        self._run("ceph-mon", "-c", str(self.conf), "--mkfs", "-i", "a", *where)

    def _make_key(self, path: Path, name: str, *rights: str) -> None:
        self._run("ceph-authtool", "--create-keyring", str(path), "--gen-key", "-n", name, *rights)

    def ask(self, *command: str) -> str:
        """What `ceph` or `rbd` says, as the admin."""
        program, *rest = command
        return self._run(program, "-c", str(self.conf), *rest)

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(
                [*self._at.prefix, *command],
                capture_output=True,
                text=True,
                timeout=STEP_S,
                check=False,
                cwd="/",
                env=self._environment,
            )
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"{' '.join(command[:3])} has not ended in {STEP_S:.0f} s") from None
        if done.returncode:
            raise ServerFailed(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def end(self) -> None:
        """At once: nothing of it is wanted any more, or it is on its disk."""
        for node in self.nodes:
            node.end(signal.SIGKILL)


@contextlib.contextmanager
def ceph(
    directory: Path, users: Sequence[str] = (), *, pools: Sequence[str] = POOLS, has_manager: bool = False
) -> Iterator[Ceph]:
    """As long as the block lasts."""
    must_be_installed("ceph")
    cluster = Ceph(directory)
    try:
        cluster.start(pools, users, has_manager=has_manager)
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(cluster.home, ignore_errors=True)
