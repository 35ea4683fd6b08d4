"""Backends of volumes and what guests do with them: QEMU's own tools open a volume as a host would."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskSource, FileSource, NbdSource, RbdSource, SimulatedSource
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.drivers.images.simulated import SimulatedImages
from droveway.drivers.storage.dir.driver import DirStorage
from droveway.drivers.storage.exports.nbdkit import NbdExports
from droveway.drivers.storage.lvm.driver import LvmStorage
from droveway.drivers.storage.rbd.binding import load
from droveway.drivers.storage.rbd.cluster import Cluster, RbdSettings
from droveway.drivers.storage.rbd.command import RbdCommand
from droveway.drivers.storage.rbd.driver import RbdStorage
from droveway.drivers.storage.rbd.librbd import LibrbdCluster
from droveway.drivers.storage.simulated import SimulatedPool, SimulatedStorage
from droveway.pki import disk_identity, host_files, x509
from droveway.ports.images import TicketWanted
from droveway.ports.storage import Storage
from lab.ceph import Ceph
from lab.servers import obstacle

GIB = 1024**3
V1, V2, V3 = (f"{number:08x}-0000-4000-8000-00000000aaaa" for number in (1, 2, 3))
S1, S2 = (f"{number:08x}-0000-4000-8000-00000000bbbb" for number in (1, 2))
TICKET = ImageTicket("a ticket")
SECRET = b"what only this machine may read\n" * 16


class FiledImages(SharedPathImages):
    """Images that lie under a path; what is sent is kept in a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__("h1")
        self.sent = directory / "sent"
        self.sent.mkdir(exist_ok=True)

    async def send(self, image_id: str, source: Path, ticket: ImageTicket | None) -> None:
        if ticket is None:
            raise TicketWanted("a ticket is wanted", "a challenge")
        copy = ["cp", "--sparse=always", str(source), str(self.sent / image_id)]
        await asyncio.to_thread(subprocess.run, copy, check=True)


class Guest:
    """A disk that is open as a guest has it: qemu-io, fed line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ready(self) -> str:
        """What it says until it asks for a command."""
        assert self._process.stdout is not None
        try:
            return (await asyncio.wait_for(self._process.stdout.readuntil(b"qemu-io> "), 30)).decode()
        except asyncio.IncompleteReadError as ended:
            raise AssertionError(f"qemu-io has ended: {ended.partial.decode()}") from None

    async def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return await self.ready()

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def write(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> None:
        assert "wrote" in (said := await self.ask(f"write -f -P {byte} {offset_bytes} {length_bytes}")), said

    async def reads(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> bool:
        said = await self.ask(f"read -P {byte} {offset_bytes} {length_bytes}")
        return "read " in said and "verification failed" not in said


class StorageWorld:
    """`storage` is open; `images` are those that it is given; `converts`: images and what is sent have formats."""

    converts = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.images = FiledImages(directory)
        self.storage: Storage = self.make()

    def make(self, **given: Any) -> Storage:
        """The service's driver, as at each of its starts."""
        raise NotImplementedError

    async def open(self) -> None:
        await self.storage.open()

    async def close(self) -> None:
        await self.storage.close()
        self.images.close()

    async def restart(self) -> None:
        await self.storage.close()
        self.storage = self.make()
        await self.storage.open()

    def blockdev(self, source: DiskSource, host: str) -> str:
        """As QEMU of that host is told to open it."""
        raise NotImplementedError

    async def admit(self, volume: VolumeSpec, host: str) -> DiskSource:
        return await self.storage.admit(volume, host)

    def objects(self, host: str) -> list[str]:
        """What QEMU of that host has beside its disks."""
        return []

    # -- what a guest and an API do -------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def guest(self, source: DiskSource, host: str = "h1") -> AsyncIterator[Any]:
        process = await asyncio.create_subprocess_exec(
            *("stdbuf", "-o0", "qemu-io", *self.objects(host), "--cache", "writeback", "--image-opts"),
            f"driver=raw,{self.blockdev(source, host)}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.environment(host)},
        )
        try:
            guest = Guest(process)
            await guest.ready()
            yield guest
            if process.returncode is None:
                await process.communicate(b"quit\n")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def environment(self, host: str) -> dict[str, str]:
        return {}

    def image(self, name: str, data: bytes, disk_format: str = "raw", *options: str) -> ImageRef:
        path = self.directory / f"{name}.{disk_format}"
        path.write_bytes(data)
        if disk_format != "raw":
            raw = path.rename(path.with_suffix(".raw"))
            qemu_img("convert", "-f", "raw", "-O", disk_format, *options, str(raw), str(path))
        return self.ref(path, disk_format)

    def hostile(self) -> ImageRef:
        """A qcow2 image that names a file of the host as what lies behind it."""
        (self.directory / "secret").write_bytes(SECRET)
        path = self.directory / "hostile.qcow2"
        secret = str(self.directory / "secret")
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, str(path), "1M")
        return self.ref(path, "qcow2")

    def ref(self, path: Path, disk_format: str) -> ImageRef:
        data = path.read_bytes()
        return ImageRef(path.stem, disk_format, len(data), hashlib.sha512(data).hexdigest(), str(path))

    def content(self, image: ImageRef) -> bytes:
        return Path(image.path).read_bytes()

    async def bytes_of(self, volume: VolumeSpec, at: int, length: int, snapshot_id: str | None = None) -> bytes:
        reader = await self.storage.reader(volume, snapshot_id)
        try:
            return await reader.read(at, length)
        finally:
            await reader.close()

    async def put(self, volume: VolumeSpec, at: int, data: bytes) -> None:
        writer = await self.storage.writer(volume)
        try:
            await writer.write(at, data)
        finally:
            await writer.close()


class DirWorld(StorageWorld):
    """On the file system of the test, which clones no files where it is ext4."""

    @property
    def root(self) -> Path:
        return self.directory / "volumes"

    def make(self, **given: Any) -> Storage:
        self.root.mkdir(exist_ok=True)
        return DirStorage(
            "fast", self.root, self.directory / "state", self.images, SystemClock(), SystemNames(), **given
        )

    def blockdev(self, source: DiskSource, host: str) -> str:
        assert isinstance(source, FileSource) and source.backend == "fast"
        return f"file.driver=file,file.filename={self.root / source.name}"


class XfsWorld(DirWorld):
    """On a file system that clones files, in a file of its own."""

    def make(self, **given: Any) -> Storage:
        if not self.root.exists():
            self.root.mkdir()
            disk = self.directory / "xfs"
            with disk.open("wb") as file:
                file.truncate(2 * GIB)
            subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
            subprocess.run(["mount", "-o", "loop", str(disk), str(self.root)], check=True)
        return super().make(**given, is_mount=True)

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(subprocess.run, ["umount", str(self.root)], check=True)


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
    """A volume group on a file. Without device-mapper its volumes are linear."""

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
        return LvmStorage("block", self.group, given.get("thin_pool", ""), state, exports, self.images, SystemClock())

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
        for command in (("vgremove", "-q", "--driverloaded", "n", "-f", self.group), ("losetup", "-d", self.device)):
            await asyncio.to_thread(run, *command)


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
    subprocess.run(command, check=True, capture_output=True)


class SimulatedGuest:
    def __init__(self, pool: SimulatedPool, volume_id: str) -> None:
        self._storage, self._volume = SimulatedStorage(pool), VolumeSpec(volume_id, 1)

    async def write(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> None:
        await (await self._storage.writer(self._volume)).write(offset_bytes, bytes([byte]) * length_bytes)

    async def reads(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> bool:
        found = await (await self._storage.reader(self._volume)).read(offset_bytes, length_bytes)
        return found == bytes([byte]) * length_bytes


class SimulatedWorld(StorageWorld):
    """What is imagined has no formats: its images are raw."""

    converts = False

    def __init__(self, directory: Path) -> None:
        self._pool = SimulatedPool("imagined")
        super().__init__(directory)

    def make(self, **given: Any) -> Storage:
        images = SimulatedImages("h1", "a verifier", SystemClock(), SystemChance(), self)
        return SimulatedStorage(self._pool, images)

    @contextlib.asynccontextmanager
    async def guest(self, source: DiskSource, host: str = "h1") -> AsyncIterator[Any]:
        assert isinstance(source, SimulatedSource)
        self._pool.open_by(source.volume_id, host)
        yield SimulatedGuest(self._pool, source.volume_id)
        self._pool.closed_by(source.volume_id, host)

    def ref(self, path: Path, disk_format: str) -> ImageRef:
        return msgspec.structs.replace(super().ref(path, disk_format), path="")

    # -- as the APIs of its images --------------------------------------------------------------------------------
    async def give(self, image_id: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> tuple[int, str]:
        take((self.directory / f"{image_id}.raw").read_bytes())
        return 200, ""

    async def take(self, image_id: str, headers: Mapping[str, str], data: bytes) -> tuple[int, str]:
        (self.images.sent / image_id).write_bytes(data)
        return 204, ""


def can_mount_xfs() -> bool:
    return os.geteuid() == 0 and shutil.which("mkfs.xfs") is not None and Path("/dev/loop-control").exists()


WORLDS: dict[str, type[StorageWorld]] = {
    "simulated": SimulatedWorld,
    "dir": DirWorld,
    **({"dir-xfs": XfsWorld} if can_mount_xfs() else {}),
    "lvm": LvmWorld,
    "rbd": RbdWorld,
    "rbd-command": RbdCommandWorld,
}
# What each needs: a server, minutes.
MARKS = {
    "rbd": [pytest.mark.servers, pytest.mark.skipif(bool(obstacle("ceph")), reason=str(obstacle("ceph")))],
}
NO_LVM = "" if os.geteuid() == 0 else "loop devices need root"
NO_LVM = NO_LVM or str(obstacle("lvm") or obstacle("nbdkit") or "")
MARKS["lvm"] = [pytest.mark.servers, pytest.mark.skipif(bool(NO_LVM), reason=NO_LVM)]
MARKS["rbd-command"] = [*MARKS["rbd"], pytest.mark.full]
EACH = [pytest.param(kind, marks=MARKS.get(kind, ())) for kind in WORLDS]
REAL = [pytest.param(kind, marks=MARKS.get(kind, ())) for kind, world in WORLDS.items() if world.converts]


def play(kind: str, directory: Path, story: Callable[[Any], Coroutine[Any, Any, None]], worlds: Any = None) -> None:
    async def run() -> None:
        world = (worlds or WORLDS)[kind](directory)
        try:
            async with asyncio.timeout(120):
                await world.open()
                await story(world)
        finally:
            await world.close()

    uvloop.run(run())


def qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True)
