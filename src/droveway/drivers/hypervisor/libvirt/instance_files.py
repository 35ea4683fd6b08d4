"""The files of guests on a host's instance store: directory, base image, disk, console, test files.

Layout: `<instances_path>/<instance id>/{disk,disk.config,console.log}` and `<instances_path>/_base/<sha512
prefix>.<format>`. Paths are the same on every host that shares the store, and several hosts may work in it at once:
what appears under its final name is complete, and appears by one atomic step.

Only the agent's own user may read a guest's disk or an image, so directories are 0700, disks 0600 and bases 0400.
QEMU must then run as that user. One that runs as another needs to search the directories (0711) and, with libvirt's
dynamic_ownership off, to own the disks and read the bases; on a shared store ownership that moves with each start is no
way out, because a host that lost a migration would take the disk from the one that won.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from droveway.domain.guest_data import Document
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import GuestSpec
from droveway.drivers.hypervisor.bases import DAY, Bases, CacheBounds
from droveway.drivers.hypervisor.console import KEPT_BYTES, decode
from droveway.drivers.hypervisor.libvirt import config_drive
from droveway.drivers.hypervisor.libvirt.base_sweep import backing_of
from droveway.drivers.hypervisor.libvirt.domain_xml import is_instance_id
from droveway.drivers.hypervisor.libvirt.hardware_xml import EPHEMERAL, NVRAM, SWAP, local_disks
from droveway.drivers.hypervisor.store_files import free_bytes, now_s, publish, refusing
from droveway.drivers.hypervisor.store_watch import StoreWatch
from droveway.ports.hypervisor import HypervisorDown, HypervisorRefused
from droveway.ports.images import Images

T = TypeVar("T")

MIB, GIB = 1024**2, 1024**3
WORKERS = 2
CONSOLE_MAX_BYTES = 1024 * 1024
PROBE_KEPT_S = 600.0
QEMU_IMG_TIMEOUT_S = 60.0
_PROBE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class InstanceFiles:
    """`host` names this host's own unfinished files, so that it may sweep them and no others. `images`: where those
    come from. `watch` tells when the store does not answer: then no more work is begun that would only wait there."""

    def __init__(
        self, instances_path: str, host: str, images: Images, watch: StoreWatch | None = None, cache: CacheBounds = DAY
    ) -> None:
        self._watch = watch
        self._root = Path(os.path.abspath(instances_path))
        self._host = re.sub("[^A-Za-z0-9.-]", "_", host)
        self._unfinished = f".new-{self._host}@"  # which no host's name holds: none is the beginning of another's
        self._pool = ThreadPoolExecutor(WORKERS, "instance-files")
        self._beside = ThreadPoolExecutor(1, "host-files")
        self.bases = Bases(self._root, self._host, images, self.run, cache)

    def close(self) -> None:
        self.bases.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._beside.shutdown(wait=False, cancel_futures=True)

    async def free_bytes(self) -> int:
        """What may be written on the store, beside its reserve."""

        def read() -> int:
            self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
            return free_bytes(self._root)

        return await self.run(read)

    async def run_beside(self, work: Callable[[], T]) -> T:
        """The same of files that do not lie on the store, and must not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._beside, refusing, work)

    async def run(self, work: Callable[[], T]) -> T:
        """A blocking piece of work in the files' own pool; an error of the store is the store's refusal."""
        if self._watch is not None and (trouble := self._watch.silence()):
            raise HypervisorDown(trouble)
        return await asyncio.get_running_loop().run_in_executor(self._pool, refusing, work)

    def directory(self, instance_id: str) -> str:
        if not is_instance_id(instance_id):
            raise HypervisorRefused(f"{instance_id!r} is not the id of an instance.")
        return str(self._root / instance_id)

    async def sweep(self) -> None:
        """Delete what an earlier run of this host's agent left half made."""
        await self.run(self.bases.sweep_halves)

    async def sweep_probes(self) -> None:
        """Delete test files of migrations whose hosts were away when they were undone, or that a late message wrote."""

        def work() -> None:
            self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
            newest_s = now_s(self._root) - PROBE_KEPT_S
            for path in self._root.glob(".probe-*"):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < newest_s:
                        path.unlink()

        await self.run(work)

    async def sweep_bases(self) -> None:
        await self.bases.sweep()

    def progress(self, spec: GuestSpec) -> str:
        """Of what `prepare` waits for."""
        return self.bases.progress(spec.image) if spec.image is not None else ""

    # -- the disk -------------------------------------------------------------------------------------------------
    async def prepare(
        self, spec: GuestSpec, ticket: ImageTicket | None = None, documents: Sequence[Document] = ()
    ) -> None:
        """The guest's directory and disks. One that is there is left alone: it may hold a user's data. Raises
        TicketWanted, too."""
        if not spec.has_root_file:
            await self.make_directory(spec.instance_id)
        elif not await self.run(lambda: self.has_disk(spec.instance_id)):
            await self._make_disk(spec, ticket)
        await self.make_local_disks(spec)
        if spec.config_drive:
            await self._make_drive(spec.instance_id, documents)

    async def has_disk_of_another(self, spec: GuestSpec, name: str) -> bool:
        """Whether a disk of that name was made of another image than that in `spec`."""
        path, wanted = Path(self.directory(spec.instance_id)) / name, spec.image and spec.image.file_name

        def work() -> bool:
            try:
                return path.exists() and os.path.basename(backing_of(str(path))) != wanted
            except ValueError:  # it is damaged
                return True

        return await self.run(work)

    async def prepare_disk(self, spec: GuestSpec, name: str, ticket: ImageTicket | None) -> None:
        """A disk of the image in `spec`, beside its own. Raises TicketWanted, too."""
        if not await self.run((Path(self.directory(spec.instance_id)) / name).exists):
            await self._make_disk(spec, ticket, name)

    async def replace_disk(self, spec: GuestSpec, new: str, documents: Sequence[Document], keeps_local: bool) -> None:
        """What is new becomes its root disk, by one atomic step, which is the last of those that are not done again. A
        root disk that lies elsewhere is replaced there."""
        directory = Path(self.directory(spec.instance_id))
        gone = (config_drive.NAME, NVRAM, *(() if keeps_local else (EPHEMERAL, SWAP)))

        def work() -> None:
            is_elsewhere = not spec.has_root_file
            if is_elsewhere or (directory / new).exists():
                for name in gone:
                    (directory / name).unlink(missing_ok=True)
            if not is_elsewhere and (directory / new).exists():
                (directory / new).replace(directory / "disk")

        await self.run(work)
        await self.make_local_disks(spec)
        if spec.config_drive:
            await self._make_drive(spec.instance_id, documents)

    def unfinished(self, final: Path) -> Path:
        return final.with_name(f"{self._unfinished}{final.name}")

    def checked_name(self, name: str) -> str:
        if not _PROBE_NAME.fullmatch(name):
            raise HypervisorRefused(f"{name!r} is not a name for a file.")
        return name

    async def _make_disk(self, spec: GuestSpec, ticket: ImageTicket | None, name: str = "disk") -> None:
        directory = Path(self.directory(spec.instance_id))
        size_bytes = spec.disk_gb * GIB
        backing: list[str] = []
        if spec.image is not None:
            base, virtual_bytes = await self.bases.make(spec.image, size_bytes, ticket)
            size_bytes = max(size_bytes, virtual_bytes)
            backing = ["-b", str(base), "-F", spec.image.disk_format]
        elif size_bytes == 0:
            raise HypervisorRefused("The guest has neither an image nor a disk size: there is nothing to boot from.")
        await self.run(lambda: directory.mkdir(mode=0o700, parents=True, exist_ok=True))
        unfinished = directory / f"{self._unfinished}{name}"
        await qemu_img("create", "-q", "-f", "qcow2", *backing, str(unfinished), str(size_bytes))
        await self.run(lambda: publish(unfinished, directory / name, 0o600))

    async def _make_drive(self, instance_id: str, documents: Sequence[Document]) -> None:
        """Its config drive, which never changes: what the guest has once read stays so."""
        directory = Path(self.directory(instance_id))
        if await self.run(lambda: self.has_drive(instance_id)):
            return
        tree, unfinished = directory / f"{self._unfinished}documents", directory / f"{self._unfinished}drive"
        try:
            await self.run(lambda: config_drive.write_tree(tree, documents))
            await tool(config_drive.PACKAGE, config_drive.PROGRAM, *config_drive.arguments(tree, unfinished))
            await self.run(lambda: publish(unfinished, directory / config_drive.NAME, 0o400))
        finally:
            await self.run(lambda: shutil.rmtree(tree, ignore_errors=True))

    async def make_local_disks(self, spec: GuestSpec) -> None:
        """Those beside the root disk that are not there yet: a guest of an earlier release gets them when it starts."""
        directory = Path(self.directory(spec.instance_id))
        for name in local_disks(spec):
            is_made = directory / "disk" if spec.has_root_file else directory
            if not await self.run(is_made.exists) or await self.run((directory / name).exists):
                continue
            size_bytes = spec.swap_mb * MIB if name == SWAP else spec.ephemeral_gb * GIB
            unfinished = directory / f"{self._unfinished}{name}"
            await self.run(lambda path=unfinished, size=size_bytes: blank(path, size))  # type: ignore[misc]
            await tool("util-linux", "mkswap", "-q", "-L", "swap", str(unfinished)) if name == SWAP else await tool(
                "e2fsprogs", "mkfs.ext4", "-q", "-F", "-L", "ephemeral0", str(unfinished)
            )
            await self.run(lambda path=unfinished, final=directory / name: publish(path, final, 0o600))  # type: ignore[misc]

    async def complete(self, spec: GuestSpec) -> None:
        """Before it starts: what was prepared is there, and what an earlier release did not make is made."""
        has_files = self.has_disk if spec.has_root_file else self.has_directory
        if not await self.run(lambda: has_files(spec.instance_id)):
            raise HypervisorRefused(f"Guest {spec.instance_id} has no disk here: prepare it first.")
        if spec.config_drive and not await self.run(lambda: self.has_drive(spec.instance_id)):
            raise HypervisorRefused(f"Guest {spec.instance_id} has no config drive here: prepare it first.")
        await self.make_local_disks(spec)

    def has_disk(self, instance_id: str) -> bool:
        return os.path.exists(f"{self.directory(instance_id)}/disk")

    async def make_directory(self, instance_id: str) -> None:
        directory = Path(self.directory(instance_id))
        await self.run(lambda: directory.mkdir(mode=0o700, parents=True, exist_ok=True))

    def has_directory(self, instance_id: str) -> bool:
        return os.path.isdir(self.directory(instance_id))

    def has_drive(self, instance_id: str) -> bool:
        return os.path.exists(f"{self.directory(instance_id)}/{config_drive.NAME}")

    def known(self) -> tuple[str, ...]:
        """Every instance that has a directory here, in order."""
        if not self._root.exists():
            return ()
        with os.scandir(self._root) as entries:
            return tuple(sorted(entry.name for entry in entries if is_instance_id(entry.name)))

    def delete(self, instance_id: str) -> None:
        """All of the guest's files; nothing to do when they are gone."""
        directory = self.directory(instance_id)
        with contextlib.suppress(FileNotFoundError):  # another host may be deleting it too
            shutil.rmtree(directory)

    # -- the console ------------------------------------------------------------------------------------------------
    async def trim_consoles(self, instance_ids: list[str]) -> None:
        """Cut consoles that have grown beyond CONSOLE_MAX_BYTES down to what is kept.

        QEMU appends, so it goes on at the new end; what a guest prints in the instant between reading and cutting is
        lost, once in a megabyte.
        """

        def work() -> None:
            for instance_id in instance_ids:
                with (
                    contextlib.suppress(FileNotFoundError),
                    (self._root / instance_id / "console.log").open("r+b") as log,
                ):
                    size = log.seek(0, os.SEEK_END)
                    if size > CONSOLE_MAX_BYTES:
                        log.seek(size - KEPT_BYTES)
                        tail = log.read()
                        log.seek(0)
                        log.write(tail)
                        log.truncate()

        await self.run(work)

    async def console(self, instance_id: str) -> str:
        path = f"{self.directory(instance_id)}/console.log"

        def work() -> bytes:
            try:
                with open(path, "rb") as log:
                    end = log.seek(0, os.SEEK_END)
                    log.seek(max(0, end - KEPT_BYTES))
                    return log.read(KEPT_BYTES)
            except FileNotFoundError:
                return b""

        return decode(await self.run(work))

    # -- test files: is the store shared? ---------------------------------------------------------------------------
    def _probe(self, name: str) -> Path:
        if not _PROBE_NAME.fullmatch(name):
            raise HypervisorRefused(f"{name!r} is not a name for a test file.")
        return self._root / f".probe-{name}"

    async def write_probe(self, name: str) -> None:
        path = self._probe(name)

        def work() -> None:
            self._root.mkdir(parents=True, exist_ok=True)
            path.touch()

        await self.run(work)

    async def sees_probe(self, name: str) -> bool:
        path = self._probe(name)

        def work() -> bool:
            # Opened, not only looked up: a network file system then asks the server instead of its cache.
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                return False
            return True

        return await self.run(work)

    async def remove_probe(self, name: str) -> None:
        path = self._probe(name)
        await self.run(lambda: path.unlink(missing_ok=True))


def blank(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


async def qemu_img(*arguments: str, within_s: float = QEMU_IMG_TIMEOUT_S) -> None:
    await tool("qemu-utils", "qemu-img", *arguments, within_s=within_s)


async def tool(package: str, program: str, *arguments: str, within_s: float = QEMU_IMG_TIMEOUT_S) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise HypervisorRefused(f"{program} is not installed on this host: install {package}.") from None
    try:
        async with asyncio.timeout(within_s):
            _, complaint = await process.communicate()
    except TimeoutError:
        raise HypervisorRefused(f"{program} did not end within {within_s:.0f} s.") from None
    finally:
        if process.returncode is None:  # out of time, or we were cancelled: nothing of it stays
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise HypervisorRefused(f"{program} refused: {complaint.decode(errors='replace').strip()}.")
