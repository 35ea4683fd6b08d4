"""Two hosts for the hypervisor contract: simulated ones, or real ones of a lab, behind the same few handles.

More than 400 lines because each handle stands once for each of the two.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from droveway.domain.model import Guest, GuestJob, GuestSpec, GuestState, ImageRef
from droveway.domain.network_plan import bridge_of, device_of
from droveway.domain.volume.disks import DiskFormat, FileSource, SimulatedSource, VolumeDisk
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.hypervisor.simulated.driver import Durations, Faults, Fleet, SimulatedHypervisor
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.ports.hypervisor import Hypervisor

GIB = 1024**3
SOON_S = 60.0
BOOTS_S = 150.0  # what a guest without KVM has to boot, beside everything else


async def until(holds: Callable[[], Awaitable[bool]], every_s: float = 0.05, within_s: float = SOON_S) -> None:
    """For what nobody tells: what a guest writes, and states that are gone before a hint arrives."""
    async with asyncio.timeout(within_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(every_s)


class Client:
    """A driver as an agent holds it, with what it has been told."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self.hypervisor = hypervisor
        self.changes: list[str] = []
        self.connections: list[tuple[bool, str]] = []
        self._told = asyncio.Event()

    async def open(self) -> Client:
        await self.hypervisor.open(self._changed, self._connection)
        return self

    def _changed(self, instance_id: str) -> None:
        self.changes.append(instance_id)
        self._told.set()

    def _connection(self, is_up: bool, reason: str) -> None:
        self.connections.append((is_up, reason))
        self._told.set()

    @property
    def is_up(self) -> bool:
        return bool(self.connections) and self.connections[-1][0]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Until something it was told makes that true."""
        async with asyncio.timeout(SOON_S):
            while not holds():
                self._told.clear()
                await self._told.wait()

    async def until_guest(self, instance_id: str, holds: Callable[[Guest], bool]) -> Guest:
        """By the driver's hints alone: what is never told is never seen."""
        async with asyncio.timeout(SOON_S):
            while True:
                self._told.clear()
                guest = await self.hypervisor.guest(instance_id)
                if holds(guest):
                    return guest
                await self._told.wait()

    async def until_moved(self, instance_id: str) -> Guest:
        return await self.until_guest(instance_id, lambda g: g.job is not GuestJob.OUTGOING)


class World:
    """`a` and `b` are the agents' drivers on two hosts that share a store."""

    a: Client
    b: Client

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self._clients: list[Client] = []

    def driver(self, which: str) -> Hypervisor:
        raise NotImplementedError

    async def client(self, which: str) -> Client:
        """Another agent on that host."""
        client = Client(self.driver(which))
        self._clients.append(client)
        return await client.open()

    def image(self) -> ImageRef:
        return self.raw_image(b"\x00" * 512 + b"not much of a disk" * 100)

    def raw_image(self, data: bytes = b"", size_bytes: int = 0) -> ImageRef:
        path = self.tmp_path / f"{SystemNames().uuid()}.raw"
        path.write_bytes(data)
        if size_bytes:
            os.truncate(path, size_bytes)
        data = path.read_bytes() if not size_bytes else b""
        checksum = hashlib.sha512(data).hexdigest()
        return ImageRef("an-image", "raw", path.stat().st_size, checksum, str(path))

    def spec(self, disk_gb: int = 1, image: ImageRef | None = None) -> GuestSpec:
        return GuestSpec(SystemNames().uuid(), "né <'\"\x00\x1b😀>", 1, 128, disk_gb, image or self.image())

    def deaf(self) -> GuestSpec:
        """Of a guest that answers no request: it has no operating system."""
        return self.spec(image=self.raw_image(b"\x00" * 512))

    def has_files(self, instance_id: str) -> bool:
        raise NotImplementedError

    async def make_bridge(self, network_id: str) -> None:
        """On both hosts, as their network agents would."""

    def nics_of(self, which: str, instance_id: str) -> list[tuple[str, str, str]]:
        """Device, bridge and MAC of each interface, as that hypervisor has them now."""
        raise NotImplementedError

    def volume(
        self, disk_format: DiskFormat = DiskFormat.RAW, size_gb: int = 1, data: bytes = b"", **more: Any
    ) -> VolumeDisk:
        """A new one, which both hosts can open."""
        raise NotImplementedError

    def grow(self, disk: VolumeDisk, size_gb: int) -> None:
        """As its backend does."""

    def volumes_of(self, which: str, instance_id: str) -> list[tuple[str, str]]:
        """Device and id of each volume, as that hypervisor has them now."""
        raise NotImplementedError

    def size_seen(self, which: str, instance_id: str, disk: VolumeDisk) -> int:
        """In GiB, as its guest sees it."""
        raise NotImplementedError

    def drive_of(self, instance_id: str) -> bytes:
        """Whatever tells one config drive from another; empty where there is none."""
        raise NotImplementedError

    def bind_device(self, spec: GuestSpec) -> None:
        """Give the guest, which runs on a, something of its host's that cannot go along."""
        raise NotImplementedError

    def slow_copies(self, spec: GuestSpec) -> None:
        """Let copies of the running guest take long enough to be met in their middle."""

    def hurry(self, spec: GuestSpec) -> None:
        """Let the copy that is under way end soon."""

    async def lose_hypervisor(self, which: str) -> None:
        raise NotImplementedError

    async def return_hypervisor(self, which: str) -> None:
        raise NotImplementedError

    async def copy_with_lost_end(self, spec: GuestSpec) -> None:
        """Copy it from a to b, and let a's hypervisor fail between the switch and the end."""
        raise NotImplementedError

    @asynccontextmanager
    async def lived_in(self) -> Any:
        self.a, self.b = await self.client("a"), await self.client("b")
        try:
            await self.a.until(lambda: self.a.is_up)
            await self.b.until(lambda: self.b.is_up)
            yield self
            self.check()
        finally:
            for client in self._clients:
                await client.hypervisor.close()
            self.clean()

    def check(self) -> None:
        """Anything wrong that no answer has said?"""

    def clean(self) -> None:
        pass

    def run(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def told() -> None:
            async with self.lived_in():
                await story(self)

        asyncio.run(told())

    async def boot(self, disk_gb: int = 1) -> GuestSpec:
        spec = self.spec(disk_gb)
        await self.a.hypervisor.prepare(spec)
        await self.a.hypervisor.start(spec)
        return spec

    async def until_booted(self, spec: GuestSpec) -> None:
        async def holds() -> bool:
            return "BOOTED" in await self.a.hypervisor.console(spec.instance_id, None)

        await until(holds, within_s=BOOTS_S)

    async def move(self, spec: GuestSpec) -> Guest:
        """From a to b; how the source sees it once the copy has ended."""
        await self.b.hypervisor.admit(spec)
        await self.a.hypervisor.begin_migration(spec, self.b.hypervisor.endpoint())
        return await self.a.until_moved(spec.instance_id)


class SimulatedWorld(World):
    def __init__(self, tmp_path: Path, *, apart: bool = False) -> None:
        super().__init__(tmp_path)
        self.fleet = Fleet(SystemClock(), SystemChance())
        for name in ("a", "b"):
            self.fleet.add_host(name, store=name if apart else "shared")

    def driver(self, which: str) -> Hypervisor:
        return SimulatedHypervisor(self.fleet, which)

    def has_files(self, instance_id: str) -> bool:
        return instance_id in self.fleet.stores["shared"].disks

    def nics_of(self, which: str, instance_id: str) -> list[tuple[str, str, str]]:
        nics = self.fleet.hosts[which].domains[instance_id].nics
        return [(device_of(nic.port_id), bridge_of(nic.network_id), nic.mac) for nic in nics]

    def volume(
        self, disk_format: DiskFormat = DiskFormat.RAW, size_gb: int = 1, data: bytes = b"", **more: Any
    ) -> VolumeDisk:
        volume_id = SystemNames().uuid()
        source = SimulatedSource("b", volume_id)
        return VolumeDisk(volume_id, SystemNames().uuid(), source, "vdb", size_gb, disk_format, **more)

    def volumes_of(self, which: str, instance_id: str) -> list[tuple[str, str]]:
        there = self.fleet.hosts[which].domains[instance_id].volumes
        return [(disk.device, disk.volume_id) for disk in there.values()]

    def size_seen(self, which: str, instance_id: str, disk: VolumeDisk) -> int:
        domain = self.fleet.hosts[which].domains[instance_id]
        return domain.volume_sizes.get(disk.volume_id, domain.volumes[disk.volume_id].size_gb)

    def deaf(self) -> GuestSpec:
        spec = super().deaf()
        self.fleet.keeps_nics.add(spec.instance_id)
        return spec

    def drive_of(self, instance_id: str) -> bytes:
        return msgspec.json.encode(self.fleet.stores["shared"].drives.get(instance_id, ()))

    def bind_device(self, spec: GuestSpec) -> None:
        self.fleet.hosts["a"].domains[spec.instance_id].bound_devices = ("shared memory pond",)

    def slow_copies(self, spec: GuestSpec) -> None:
        self.fleet.durations = Durations(arrive=(0.05, 0.05), copy=(0.3, 0.3), switch=(0.01, 0.01), tail=(0.05, 0.05))

    async def lose_hypervisor(self, which: str) -> None:
        self.fleet.stop_hypervisor(which)

    async def return_hypervisor(self, which: str) -> None:
        self.fleet.return_hypervisor(which)

    async def copy_with_lost_end(self, spec: GuestSpec) -> None:
        self.fleet.faults = Faults(half_switched=1.0)
        await self.move(spec)

    def check(self) -> None:
        assert self.fleet.violations == []


class LabWorld(World):
    """Hosts `h1` and `h2` of a lab. The drivers run outside and reach each libvirtd by its socket; the shared store has
    the same path everywhere."""

    def __init__(self, tmp_path: Path, lab: Any, image: ImageRef, *, apart: bool = False) -> None:
        super().__init__(tmp_path)
        self.lab, self._image = lab, image
        self.stores = {"a": lab.shared, "b": lab.shared / "apart" if apart else lab.shared}
        self.hosts = {"a": lab.host("h1"), "b": lab.host("h2")}

    def driver(self, which: str) -> Hypervisor:
        from droveway.drivers.hypervisor.libvirt.driver import LibvirtHypervisor, LibvirtSettings

        host = self.hosts[which]
        settings = LibvirtSettings(
            host=host.name,
            instances_path=str(self.stores[which]),
            admissions_path=str(self.tmp_path / f"admissions-{host.name}"),
            peer_uri=host.peer_uri,
            data_uri=host.data_uri,
            uri=host.outside_uri(),
            directories={"files": str(self._volumes)},
            host_root=str(host.outside("")),
        )
        return LibvirtHypervisor(settings, SystemClock(), SharedPathImages(settings.host))

    @property
    def _volumes(self) -> Path:
        """Beside the instance store: every host sees it."""
        path: Path = self.lab.shared / "volumes"
        path.mkdir(exist_ok=True)
        return path

    def volume(
        self, disk_format: DiskFormat = DiskFormat.RAW, size_gb: int = 1, data: bytes = b"", **more: Any
    ) -> VolumeDisk:
        volume_id = SystemNames().uuid()
        path = self._volumes / volume_id
        if disk_format is DiskFormat.RAW:
            path.write_bytes(data)
            os.truncate(path, size_gb * GIB)
        else:
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), f"{size_gb}G"], check=True)
        source = FileSource("files", volume_id)
        return VolumeDisk(volume_id, SystemNames().uuid(), source, "vdb", size_gb, disk_format, **more)

    def grow(self, disk: VolumeDisk, size_gb: int) -> None:
        os.truncate(self._volumes / disk.volume_id, size_gb * GIB)

    def volumes_of(self, which: str, instance_id: str) -> list[tuple[str, str]]:
        """And what libvirt keeps of them says the same."""
        with libvirt_of(self.hosts[which].outside_uri()) as connection:
            domain = connection.lookupByUUIDString(instance_id)
            texts = [domain.XMLDesc()] + ([domain.XMLDesc(2)] if domain.isPersistent() else [])
        found = [
            [
                (one.find("target").get("dev"), one.findtext("serial"))  # type: ignore[union-attr]
                for one in ET.fromstring(text).iterfind("devices/disk")
                if one.find("serial") is not None
            ]
            for text in texts
        ]
        assert all(sorted(one) == sorted(found[0]) for one in found)
        return found[0]  # type: ignore[return-value]

    def size_seen(self, which: str, instance_id: str, disk: VolumeDisk) -> int:
        device = {volume_id: device for device, volume_id in self.volumes_of(which, instance_id)}[disk.volume_id]
        with libvirt_of(self.hosts[which].outside_uri()) as connection:
            return int(connection.lookupByUUIDString(instance_id).blockInfo(device)[0] // GIB)

    def image(self) -> ImageRef:
        return self._image

    def has_files(self, instance_id: str) -> bool:
        return (self.lab.shared / instance_id).exists()

    async def make_bridge(self, network_id: str) -> None:
        for host in self.hosts.values():
            bridge = bridge_of(network_id)
            await asyncio.to_thread(host.run, "ip", "link", "add", bridge, "type", "bridge")
            await asyncio.to_thread(host.run, "ip", "link", "set", bridge, "mtu", "1450", "up")

    def nics_of(self, which: str, instance_id: str) -> list[tuple[str, str, str]]:
        """And the kernel has those devices on those bridges."""
        host = self.hosts[which]
        with libvirt_of(host.outside_uri()) as connection:
            domain = ET.fromstring(connection.lookupByUUIDString(instance_id).XMLDesc())
        found = []
        for nic in domain.iterfind("devices/interface"):
            device, bridge, mac = (
                nic.find(path).get(name, "")  # type: ignore[union-attr]
                for path, name in (("target", "dev"), ("source", "bridge"), ("mac", "address"))
            )
            assert f"master {bridge}" in host.run("ip", "link", "show", device).stdout
            found.append((device, bridge, mac))
        return found

    def drive_of(self, instance_id: str) -> bytes:
        path = self.lab.shared / instance_id / "disk.config"
        return path.read_bytes() if path.exists() else b""

    def bind_device(self, spec: GuestSpec) -> None:
        xml = "<shmem name='pond'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"
        with libvirt_of(self.hosts["a"].outside_uri()) as connection:
            connection.lookupByUUIDString(spec.instance_id).attachDevice(xml)

    def slow_copies(self, spec: GuestSpec) -> None:
        self._limit_speed(spec, 1)

    def hurry(self, spec: GuestSpec) -> None:
        self._limit_speed(spec, 1024)

    def _limit_speed(self, spec: GuestSpec, mib_per_s: int) -> None:
        with libvirt_of(self.hosts["a"].outside_uri()) as connection:
            connection.lookupByUUIDString(spec.instance_id).migrateSetMaxSpeed(mib_per_s)

    def cpus_of(self, spec: GuestSpec) -> list[set[int]]:
        """The CPUs of host a on which each vcpu may run, as the kernel has it."""
        with libvirt_of(self.hosts["a"].outside_uri()) as connection:
            maps = connection.lookupByUUIDString(spec.instance_id).vcpus()[1]
        return [{cpu for cpu, may in enumerate(one) if may} for one in maps]

    async def lose_hypervisor(self, which: str) -> None:
        await asyncio.to_thread(self.lab.stop_libvirtd, self.hosts[which].name)

    async def return_hypervisor(self, which: str) -> None:
        await asyncio.to_thread(self.lab.start_libvirtd, self.hosts[which].name)

    async def copy_with_lost_end(self, spec: GuestSpec) -> None:
        await self.b.hypervisor.admit(spec)
        libvirtd = self.hosts["a"].libvirtd
        await self.a.hypervisor.begin_migration(spec, self.b.hypervisor.endpoint())
        await until(lambda: self._runs_on_b(spec.instance_id), every_s=0.001)
        libvirtd.send(signal.SIGKILL)  # it is about to end its QEMU; that takes it 200 ms
        await self.a.until(lambda: not self.a.is_up)
        await self.a.until(lambda: self.a.is_up)

    async def _runs_on_b(self, instance_id: str) -> bool:
        return (await self.b.hypervisor.guest(instance_id)).state is GuestState.RUNNING

    def clean(self) -> None:
        for host in self.hosts.values():
            end_everything(host.outside_uri())


@contextmanager
def libvirt_of(uri: str) -> Iterator[Any]:
    import libvirt

    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


def end_everything(uri: str) -> None:
    """Whatever a failed test has left: the next one starts on empty hosts."""
    import libvirt

    with libvirt_of(uri) as connection:
        for domain in connection.listAllDomains():
            for end in (domain.destroy, domain.undefine):
                with suppress(libvirt.libvirtError):
                    end()
