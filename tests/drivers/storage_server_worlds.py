"""Backends that need servers: a pool of a real Ceph, a volume group that is served by nbdkit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

from droveway.domain.volume.disks import DiskSource, NbdSource, RbdSource
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.clock import SystemClock
from droveway.drivers.storage.exports.nbdkit import NbdExports
from droveway.drivers.storage.lvm.driver import LvmStorage
from droveway.drivers.storage.lvm.volume_group import has_mapper
from droveway.drivers.storage.rbd.binding import load
from droveway.drivers.storage.rbd.cluster import Cluster, RbdSettings
from droveway.drivers.storage.rbd.command import RbdCommand
from droveway.drivers.storage.rbd.driver import RbdStorage
from droveway.drivers.storage.rbd.librbd import LibrbdCluster
from droveway.pki import disk_identity, host_files, x509
from droveway.ports.storage import Storage
from lab.ceph import Ceph
from tests.drivers.storage_world import (
    GIB,
    StorageWorld,
)


class RbdWorld(StorageWorld):
    """A pool of the session's cluster (conftest.py), empty at the beginning of a test and at its end."""

    cluster: Ceph

    def settings(self, user: str = "volumes", pool: str = "volumes") -> RbdSettings:
        return RbdSettings(str(self.directory / "state" / "ceph.conf"), user, pool)

    def make(self, **given: Any) -> Storage:
        settings = self.settings()
        cluster = self.speaker(settings)
        files = (str(self.cluster.conf), str(self.cluster.keyring("volumes")), self.directory / "state")
        return RbdStorage("ceph", settings, *files, cluster, self.images, SystemClock(), **given)

    def speaker(self, settings: RbdSettings) -> Cluster:
        binding = load()
        assert binding is not None, "python3-rbd is there, and this Python is of its version"
        return LibrbdCluster(settings, binding)

    def blockdev(self, source: DiskSource, host: str) -> str:
        """As a host with a user of its own: it has the cluster's ceph.conf and its own keyring."""
        assert isinstance(source, RbdSource) and source.fsid == self.cluster.fsid
        conf = self.directory / f"ceph-{host}.conf"
        conf.write_text(f"{self.cluster.conf.read_text()}\n[client.{host}]\nkeyring = {self.cluster.keyring(host)}\n")
        where = f"file.driver=rbd,file.pool={source.pool},file.image={source.image}"
        return f"{where},file.conf={conf},file.user={host}"

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(self.empty)

    def empty(self) -> None:
        binding = load()
        assert binding is not None
        admin = binding.rados.Rados(conffile=str(self.cluster.conf), name="client.admin")
        admin.connect()
        with admin.open_ioctx("volumes") as io:
            for _ in range(8):  # what has clones goes after them
                for name in binding.rbd.RBD().list(io):
                    with contextlib.suppress(binding.rbd.Error):
                        with binding.rbd.Image(io, name) as image:
                            for one in image.list_snaps():
                                if one["namespace"] == 0:
                                    image.remove_snap(one["name"])
                        binding.rbd.RBD().remove(io, name)
                for one in list(binding.rbd.RBD().trash_list(io)):
                    with contextlib.suppress(binding.rbd.Error):
                        binding.rbd.RBD().trash_remove(io, one["id"], True)
            left = binding.rbd.RBD().list(io)
        admin.shutdown()
        assert left == [], left


class RbdCommandWorld(RbdWorld):
    """By the `rbd` command."""

    def speaker(self, settings: RbdSettings) -> Cluster:
        return RbdCommand(settings)


class LvmWorld(StorageWorld):
    """A volume group on a file, with linear volumes."""

    thin_pool = ""

    def __init__(self, directory: Path) -> None:
        self.group = f"droveway-{os.getpid()}-{directory.name[-20:]}"
        disk = directory / "pv"
        with disk.open("wb") as file:
            file.truncate(8 * GIB)
        shown = subprocess.run(["losetup", "-f", "--show", str(disk)], check=True, capture_output=True, text=True)
        self.device = shown.stdout.strip()
        run("pvcreate", "-q", self.device)
        run("vgcreate", "-q", self.group, self.device)
        self.pki = DiskPki(directory)
        super().__init__(directory)

    def make(self, **given: Any) -> Storage:
        state = self.directory / "state"
        exports = NbdExports(state / "exports", "127.0.0.1", self.pki.server)
        return LvmStorage(
            "block", self.group, given.get("thin_pool", self.thin_pool), state, exports, self.images, SystemClock()
        )

    async def admit(self, volume: VolumeSpec, host: str) -> DiskSource:
        return await self.storage.admit(volume, host, identity=self.pki.identity(host))

    def objects(self, host: str) -> list[str]:
        self.pki.identity(host)
        return ["--object", f"tls-creds-x509,id=tls,endpoint=client,dir={self.pki.directory_of(host)}"]

    def blockdev(self, source: DiskSource, host: str) -> str:
        assert isinstance(source, NbdSource)
        where = f"file.driver=nbd,file.host={source.address},file.port={source.port},file.export={source.export}"
        return f"{where},file.tls-creds=tls,file.reconnect-delay=30"

    async def close(self) -> None:
        exports = self.storage._exports  # type: ignore[attr-defined]
        await super().close()
        for volume_id in exports.known():
            for host in exports.hosts(volume_id):
                exports.withdraw(volume_id, host)
        without = () if has_mapper() else ("--driverloaded", "n")
        for command in (("vgremove", "-q", *without, "-f", self.group), ("losetup", "-d", self.device)):
            await asyncio.to_thread(run, *command)


class LvmThinWorld(LvmWorld):
    """With a thin pool, which needs the kernel's device-mapper."""

    thin_pool = "thin"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        run("lvcreate", "-q", "-L", "6G", "-T", f"{self.group}/{self.thin_pool}")


class DiskPki:
    """The CA of a cloud, the certificate of the host that serves, and each host's identity for opening disks."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._now_us = directory / "pki", SystemClock().now_us()
        self._key, self._ca = x509.make_authority("cloud", self._now_us, self._now_us + 10**14, 10**11)
        self.server = self._directory / "server"
        self.sign("1")

    def sign(self, serial: str) -> None:
        """A certificate of the host that serves, as when it joins, and when it is renewed."""
        key = x509.make_key()
        times = (self._now_us - 10**11, self._now_us + 10**14)
        public = x509.public_key(x509.request(key, "block"))
        by = x509.authority(self._key, self._ca)
        certificate = x509.sign(by, public, serial, "block", "droveway://host/block", ["127.0.0.1"], *times)
        host_files.write_files(self.server, {"cert.pem": certificate, "key.pem": key})

    def directory_of(self, host: str) -> Path:
        return self._directory / host

    def identity(self, host: str) -> str:
        return disk_identity.ensure(self.directory_of(host), host, self._ca, self._now_us)


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
