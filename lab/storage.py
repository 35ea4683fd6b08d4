"""Where the volumes of a cloud lie: directories that all hosts share, a Ceph of this cloud's own, or a volume group
whose volumes are served over NBD with TLS.

Ceph's daemons and the exports of volumes live in the lab's own network namespace, at the lab's address on the bridge
between its hosts: the hosts reach them as they would another machine, and the machine's own network sees none of it.
What is stored lies in files below the cloud's directory, and stays when the cloud goes down.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from droveway.domain import certificates as life
from droveway.domain.certificates import DAY_US, HOST, Holder
from droveway.pki import authority_files, host_files, x509
from lab import block, libvirtd, processes, servers
from lab.ceph import Ceph, Place
from lab.hosts import Host, Lab
from lab.nodes import ServerFailed
from lab.task import Task

BLOCK = "block1"  # the host that carries the service of the one backend, and of backups
POOL, ROOTS, SERVICE_USER = "volumes", "vms", "volumes"  # pools of volumes and of root disks
SIZE_BYTES = 32 << 30  # of a sparse file
ENDS_S = 30.0
CERTIFICATE_LIVES_US, RENEWED_BEFORE_US = 90 * DAY_US, 30 * DAY_US
NEEDS = {"ceph": ("ceph",), "lvm": ("lvm", "nbdkit")}


class Storage:
    """`kind`: dir, ceph or lvm. `start` begins it, once the lab's network is there, and `wait` waits for it."""

    def __init__(self, home: Path, lab: Lab, kind: str) -> None:
        self.kind, self._home, self._lab = kind, home, lab
        self._mark = f"DROVEWAY_STORAGE={home}"  # carried by all that is started here
        self.files_of = ""  # of Ceph: the host whose root disks are files of its own all the same
        self._task: Task | None = None
        self._started: list[Ceph] = []  # whose daemons are children of this process

    @property
    def backends(self) -> int:
        """How many of them `hosts` has."""
        return len(self._lab.hosts) if self.kind == "dir" else 1

    @property
    def instances(self) -> Path:
        """Where each host keeps its guests' files: all see that, for migration; where root disks lie in Ceph each has a
        directory of its own."""
        return (self._lab.directory if self.kind == "ceph" else self._lab.shared) / "instances"

    # -- up and down --------------------------------------------------------------------------------------------------
    def start(self) -> None:
        for name in NEEDS.get(self.kind, ()):
            obstacle = servers.obstacle(name)
            if obstacle is not None:
                raise ServerFailed(obstacle)
        if self.kind == "ceph":
            self._task = Task(self._start_ceph)
        elif self.kind == "lvm":
            block.attach(self._disk, SIZE_BYTES, self.volume_group)
            self._certify()

    def wait(self) -> None:
        if self._task is not None:
            self._task.result()
            self._task = None

    def end(self) -> None:
        """When no guest writes any more: what was answered lies in files."""
        if not processes.end(lambda: processes.with_environment(self._mark), signal.SIGKILL, ENDS_S):
            raise ServerFailed(f"the storage of {self._home} outlived SIGKILL by {ENDS_S:.0f} s")
        for cluster in self._started:
            for node in cluster.nodes:
                node.reap()
        self._started.clear()

    # -- Ceph ---------------------------------------------------------------------------------------------------------
    def _start_ceph(self) -> None:
        directory = self._home / "servers"
        if not (directory / "ceph" / "whole").exists():  # those of a start that was interrupted
            self.end()
        directory.mkdir(parents=True, exist_ok=True)
        cluster = self.ceph()
        name, _, value = self._mark.partition("=")
        cluster.stays({name: value})
        self._started.append(cluster)
        cluster.start((POOL, ROOTS), (SERVICE_USER, *(host.name for host in self._lab.hosts)), has_manager=True)

    def ceph(self) -> Ceph:
        """This cloud's; made when it is not there."""
        at = Place(self._lab.address, self._lab.control)
        return Ceph(self._home / "servers", "bluestore", SIZE_BYTES, at)

    # -- a volume group -----------------------------------------------------------------------------------------------
    @property
    def volume_group(self) -> str:
        return f"dw-{self._lab.id}"

    @property
    def _disk(self) -> Path:
        return self._lab.directory / "block" / "disk"

    def _certify(self) -> None:
        """Each host has a certificate of the cloud's CA: the one that serves shows it, the others make from it what
        they open served disks with. The CA is that of the program, which finds its key where it would make it."""
        directory, now_us = self._home / "ca", time.time_ns() // 1000
        known = authority_files.read_files(directory)
        own = next(iter(known.values())) if known else authority_files.make_files(directory, now_us)
        addresses = {host.name: host.address for host in self._lab.hosts}
        for name, address in {**addresses, BLOCK: self._lab.address}.items():
            self._sign(own, name, address, now_us)

    def _sign(self, by: x509.Authority, name: str, address: str, now_us: int) -> None:
        settings = host_files.Settings(name, str(self._tls(name)), "")
        try:
            there = x509.facts((self._tls(name) / "current" / "cert.pem").read_text())
            if there.names == (name, address) and there.not_after_us > now_us + RENEWED_BEFORE_US:
                return
        except (OSError, x509.WrongPem):
            pass
        key = x509.make_key()
        public = x509.public_key(x509.request(key, name))
        times = (now_us - life.BACKDATED_US, now_us + CERTIFICATE_LIVES_US)
        made = x509.sign(by, public, f"{now_us:x}", name, Holder(HOST, name).uri, (name, address), *times)
        host_files.install(settings, key, {"certificate": made, "authorities": by.pem, "revoked": ""})

    def _tls(self, name: str) -> Path:
        return self._home / "hosts" / name / "tls"

    # -- what the program is told -------------------------------------------------------------------------------------
    def of_host(self, host: Host) -> dict[str, Any]:
        """Keys of a host that carries guests: how it opens volumes, and the backend that it has itself."""
        if self.kind == "ceph":
            roots = {} if host.name == self.files_of else {"images_type": "rbd", "images_rbd_pool": ROOTS}
            return {**self._ceph_user(host.name), **roots, "services": [], "backend": []}
        if self.kind == "lvm":
            opens = {"disk_tls_path": f"/etc/{libvirtd.DISK_TLS}", "tls_path": str(self._tls(host.name))}
            return {**opens, "services": [], "backend": []}
        volumes = {f"disks-{one.name}": self._lab.shared / "volumes" / one.name for one in self._lab.hosts}
        for directory in volumes.values():
            directory.mkdir(parents=True, exist_ok=True)
        name = f"disks-{host.name}"
        backup = ["cinder-backup"] if host.name == self._lab.hosts[0].name else []
        return {
            "backend_paths": [f"{one}:{directory}" for one, directory in volumes.items()],
            "services": [f"cinder-volume@{name}", *backup],
            "backend": [{"name": name, "driver": "dir", "path": str(volumes[name])}],
        }

    def _ceph_user(self, user: str) -> dict[str, Any]:
        home = self._home / "servers" / "ceph"
        keyring = home / f"ceph.client.{user}.keyring"
        return {"ceph_conf": str(home / "ceph.conf"), "ceph_user": user, "ceph_keyring": str(keyring)}

    def own_hosts(self) -> list[dict[str, Any]]:
        """Those that carry no guests."""
        if self.kind == "dir":
            return []
        if self.kind == "ceph":
            backend = {"name": "ceph", "driver": "rbd", "pool": POOL, **self._ceph_user(SERVICE_USER)}
            more = {}
        else:
            backend = {"name": "lvm", "driver": "lvm", "volume_group": self.volume_group, "address": self._lab.address}
            more = {"tls_path": str(self._tls(BLOCK))}
        return [
            {
                "name": BLOCK,
                "enter": [*Place(self._lab.address, self._lab.control).prefix],
                "host_state_path": str(self._home / "hosts" / BLOCK),
                **more,
                "services": [f"cinder-volume@{backend['name']}", "cinder-backup"],
                "backend": [backend],
            }
        ]

    def __str__(self) -> str:
        """What there is, for people."""
        if self.kind == "ceph":
            conf = self._home / "servers" / "ceph" / "ceph.conf"
            entered = " ".join(Place(self._lab.address, self._lab.control).prefix)
            pools = f"pools {POOL} and, of root disks, {ROOTS} of a Ceph at {self._lab.address}"
            return f"{pools}\n           it answers {entered} ceph -c {conf} -s"
        if self.kind == "lvm":
            return f"volume group {self.volume_group}, served by NBD with TLS at {self._lab.address}"
        return "directories that the hosts share"
