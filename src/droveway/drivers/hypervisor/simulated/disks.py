"""What is done with the disks of a simulated guest beside making and deleting them."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from droveway.domain.guest_data import Document
from droveway.domain.hardware import GIB
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import GuestJob, GuestSpec, GuestState, ImageRef, LocalDisk, LocalFiles, SpareDisk
from droveway.drivers.hypervisor.promises import check_not_moving, check_off, check_room
from droveway.drivers.hypervisor.simulated.fleet import Fleet, GuestEnd, SimulatedHost, Span
from droveway.drivers.images.simulated import SimulatedImages
from droveway.ports.hypervisor import HypervisorRefused
from droveway.ports.images import ImageRefused, Images
from droveway.ports.replies import DiskCopied

FORMAT, ROOT = "raw", "disk"


class SimulatedDisks:
    """Of one host. `act` is the driver's: a call takes its time, and may fail."""

    _fleet: Fleet
    _host: SimulatedHost
    _images: SimulatedImages | None
    _uploads: Images | None

    async def _act(self, instance_id: str, span: Span, act: Callable[[], None], *, on_store: bool = False) -> None:
        raise NotImplementedError

    def _check_on(self) -> SimulatedHost:
        raise NotImplementedError

    async def store_room_bytes(self, *, over_commits: bool) -> int:
        raise NotImplementedError

    async def _touch(self) -> None:
        raise NotImplementedError

    async def _make_base(self, image: ImageRef | None, ticket: ImageTicket | None) -> None:
        raise NotImplementedError

    async def copy_disk(self, instance_id: str, copy: str) -> DiskCopied:
        store = self._host.store

        def act() -> None:
            check_not_moving(instance_id, self._fleet.job(self._host, instance_id))
            if instance_id not in store.disks:
                raise HypervisorRefused(f"Guest {instance_id} has no disk here.")
            for key in [key for key in store.copies if key[0] == instance_id and key[1] != copy]:
                del store.copies[key]
            store.copies.setdefault((instance_id, copy), f"the disk of {instance_id}".encode().ljust(512, b"."))

        await self._act(instance_id, self._fleet.durations.prepare, act, on_store=True)
        return DiskCopied(len(store.copies[instance_id, copy]), FORMAT)

    async def send_copy(self, instance_id: str, copy: str, ticket: ImageTicket | None) -> None:
        data = self._host.store.copies.get((instance_id, copy))
        if data is None:
            raise HypervisorRefused(f"Image {copy} cannot be sent from host {self._host.name}.")
        try:
            if self._images is not None:
                await self._send_in_memory(self._images, copy, data, ticket)
            elif self._uploads is not None:  # to a real API
                with tempfile.NamedTemporaryFile() as file:
                    file.write(data)
                    file.flush()
                    await self._uploads.send(copy, Path(file.name), ticket)
            else:
                raise HypervisorRefused(f"Image {copy} cannot be sent from host {self._host.name}.")
        except ImageRefused as fault:
            raise HypervisorRefused(fault.reason) from None

    async def _send_in_memory(
        self, images: SimulatedImages, copy: str, data: bytes, ticket: ImageTicket | None
    ) -> None:
        source = Path(f"/copies/{copy}")
        images.files[source] = bytearray(data)
        try:
            await images.send(copy, source, ticket)
        finally:
            images.files.pop(source, None)

    async def drop_copy(self, instance_id: str, copy: str) -> None:
        def act() -> None:
            self._host.store.copies.pop((instance_id, copy), None)

        await self._act(instance_id, self._fleet.durations.remove, act, on_store=True)

    async def prepare_disk(self, spec: GuestSpec, disk: SpareDisk, ticket: ImageTicket | None = None) -> None:
        key, image_id = (spec.instance_id, disk.value), spec.image.id if spec.image is not None else ""
        if self._host.store.spares.get(key) != image_id:
            await self._make_base(spec.image, ticket)

        def act() -> None:
            if self._host.store.spares.get(key, image_id) != image_id:  # to be dropped when this host did not answer
                self._drop(*key)
            self._host.store.spares[key] = image_id

        await self._act(spec.instance_id, self._fleet.durations.prepare, act, on_store=True)

    async def drop_disk(self, instance_id: str, disk: SpareDisk) -> None:
        act = partial(self._drop, instance_id, disk.value)
        await self._act(instance_id, self._fleet.durations.remove, act, on_store=True)

    def _drop(self, instance_id: str, disk: str) -> None:
        domain = self._host.domains.get(instance_id)
        lives = domain is not None and domain.state is not GuestState.SHUTOFF and domain.rescue
        if lives and disk == SpareDisk.RESCUE.value:
            raise HypervisorRefused(f"Guest {instance_id} runs from that disk: stop it first.")
        self._host.store.spares.pop((instance_id, disk), None)

    async def replace_disk(self, spec: GuestSpec, documents: Sequence[Document], keeps_ephemeral: bool) -> None:
        store, instance_id = self._host.store, spec.instance_id

        def act() -> None:
            self._fleet.end(self._host, instance_id, GuestEnd.STOP)
            self._fleet.forget_memory(self._host, instance_id)
            image_id = store.spares.pop((instance_id, SpareDisk.REBUILD.value), None)
            if image_id is not None:
                store.images[instance_id] = image_id
            if image_id is not None or not spec.has_root_file:
                store.drives.pop(instance_id, None)
            if spec.config_drive and instance_id not in store.drives:
                store.drives[instance_id] = tuple(documents)
            self._fleet.disks_changed()

        await self._act(instance_id, self._fleet.durations.prepare, act, on_store=True)

    # -- of a guest that is resized, or moves while it is off ---------------------------------------------------------
    def _off(self, instance_id: str) -> None:
        domain = self._host.domains.get(instance_id)
        check_off(instance_id, GuestState.ABSENT if domain is None else domain.state)
        if instance_id not in self._host.store.disks:
            raise HypervisorRefused(f"Guest {instance_id} has no disk here.")

    async def keep_disk(self, instance_id: str, mark: str) -> None:
        def act() -> None:
            self._off(instance_id)
            self._fleet.keep_disk(self._host.store, instance_id, mark)

        await self._act(instance_id, self._fleet.durations.prepare, act, on_store=True)

    async def grow_root(self, instance_id: str, size_gb: int) -> None:
        def act() -> None:
            self._off(instance_id)
            self._fleet.grow_root(self._host.store, instance_id, size_gb)

        await self._act(instance_id, self._fleet.durations.prepare, act, on_store=True)

    async def restore_disk(self, instance_id: str, mark: str) -> None:
        def act() -> None:
            self._off(instance_id)
            self._fleet.restore_disk(self._host, instance_id, mark)

        await self._act(instance_id, self._fleet.durations.prepare, act, on_store=True)

    async def forget_kept(self, instance_id: str, mark: str) -> None:
        def act() -> None:
            self._fleet.forget_kept(self._host.store, instance_id, mark)

        await self._act(instance_id, self._fleet.durations.remove, act, on_store=True)

    # -- what goes along with a guest to a host that does not see this store ------------------------------------------
    async def local_files(self, instance_id: str) -> LocalFiles:
        await self._touch()
        store = self._check_on().store
        if instance_id not in store.disks:
            return LocalFiles()
        size_bytes = store.disks[instance_id] * GIB
        drive = store.drives.get(instance_id)
        disk = LocalDisk(ROOT, "qcow2", size_bytes, size_bytes // 10, store.behind.get(instance_id, ""))
        return LocalFiles(
            () if self._fleet.roots.pool_of(instance_id) else (disk,),
            b"" if drive is None else zlib.compress(msgspec.json.encode(drive)),
        )

    async def prepare_arrival(
        self,
        spec: GuestSpec,
        files: LocalFiles,
        mark: str,
        room_bytes: int,
        ticket: ImageTicket | None,
        over_commits: bool = True,
    ) -> None:
        store, instance_id = self._check_on().store, spec.instance_id
        if instance_id in store.disks and instance_id not in store.marks:
            raise HypervisorRefused(f"This host has files of guest {instance_id} already.")
        if store.marks.get(instance_id, mark) != mark:
            self._fleet.delete_files(store, instance_id)
        if instance_id not in store.disks:
            check_room(instance_id, await self.store_room_bytes(over_commits=over_commits), room_bytes)
        if files.is_on_base:
            await self._make_base(spec.image, ticket)

        def act() -> None:
            if instance_id in store.disks:
                return
            store.marks[instance_id] = mark
            store.disks[instance_id] = size_gb = sum(disk.size_bytes for disk in files.disks) // GIB
            store.used_gb += size_gb
            if files.drive:
                store.drives[instance_id] = msgspec.json.decode(zlib.decompress(files.drive), type=tuple[Document, ...])

        await self._act(instance_id, self._fleet.durations.prepare, act, on_store=True)

    async def keep_arrival(self, instance_id: str) -> None:
        await self._touch()
        self._check_on().store.marks.pop(instance_id, None)

    async def drop_files(self, instance_id: str, mark: str) -> None:
        def act() -> None:
            host, store = self._host, self._host.store
            domain = host.domains.get(instance_id)
            lives = domain is not None and domain.state is not GuestState.SHUTOFF
            if lives or self._fleet.job(host, instance_id) is not GuestJob.NONE:
                raise HypervisorRefused(f"Guest {instance_id} is on this host: its files stay.")
            if instance_id in store.disks and store.marks.get(instance_id, "") == mark:
                self._fleet.delete_files(store, instance_id)

        await self._act(instance_id, self._fleet.durations.remove, act, on_store=True)
