"""A hypervisor that exists only as a part of a `Fleet`: what libvirt would do, without a guest behind it.

One instance is one agent's client: it dies with its agent (`close`, or `abandon` where nothing can be awaited) or with
its host, and the next agent makes its own. A call that took time goes on in the hypervisor when the client dies, and
the next verb about the same guest waits for it, as libvirt's would.

More than 400 lines because a driver answers every verb of the port.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from droveway.domain.consoles import ConsoleKind
from droveway.domain.diagnostics import CpuUse, DiskUse, GuestDiagnostics, NicUse
from droveway.domain.guest_data import Document
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.migration_ladder import CopyTarget, Policy
from droveway.domain.model import (
    CopyChange,
    CopyProgress,
    Guest,
    GuestJob,
    GuestSpec,
    GuestState,
    ImageRef,
    LocalFiles,
    MigrationEndpoint,
    Nic,
    PostCopy,
    Resources,
    SpareDisk,
)
from droveway.domain.move_checks import MIB, Check, CheckAnswer, of_guest
from droveway.domain.move_prediction import GuestLoad
from droveway.domain.network_plan import device_of
from droveway.domain.resources import GuestUse, HostUsage
from droveway.drivers.hypervisor.console import last_lines
from droveway.drivers.hypervisor.promises import (
    check_alive,
    check_cells,
    check_each,
    check_machine,
    check_movable,
    check_not_moving,
    check_not_there,
    not_let_go,
)
from droveway.drivers.hypervisor.simulated.consoles import EchoConsole
from droveway.drivers.hypervisor.simulated.disks import SimulatedDisks
from droveway.drivers.hypervisor.simulated.fleet import (
    Domain,
    Durations,
    Faults,
    Fleet,
    GuestCopy,
    GuestEnd,
    InvariantViolated,
    SimulatedHost,
    Span,
)
from droveway.drivers.hypervisor.simulated.volumes import SimulatedVolumes
from droveway.drivers.images.simulated import SimulatedImages
from droveway.ports.consoles import ConsoleStream
from droveway.ports.hypervisor import AS_USUAL, NO_FILES, HypervisorDown, HypervisorRefused
from droveway.ports.images import ImageRefused, Images

__all__ = ["Durations", "Faults", "Fleet", "InvariantViolated", "SimulatedHypervisor"]

URI = "sim://"
GIB = 1024**3
KEPT_ERRORS = 1024
_CPU = re.compile(r'<cpu level="(\d+)"')


class SimulatedHypervisor(SimulatedDisks, SimulatedVolumes):
    """Answers droveway.ports.hypervisor.Hypervisor for one host of the fleet."""

    def __init__(
        self, fleet: Fleet, host: str, images: SimulatedImages | None = None, uploads: Images | None = None
    ) -> None:
        """`images`: where it fetches them from, and sends them to; without, it sees them all, and those that are made
        of its disks go to `uploads`."""
        self._fleet, self._images, self._uploads = fleet, images, uploads
        self._base_turns: dict[str, asyncio.Lock] = {}
        self._host: SimulatedHost = fleet.hosts[host]
        self._boot = 0  # the boot of the host in which this client lives; 0 is none
        self._copy_errors: dict[str, str] = {}

    async def open(self, changed: Callable[[str], None], connection: Callable[[bool, str], None]) -> None:
        host = self._host
        if not host.is_on:
            raise HypervisorDown(host.why)  # nothing runs on a host that is off, not even an agent
        self._boot = host.boots
        host.changed, host.connection = changed, connection
        self._hooks = (changed, connection)
        connection(host.hypervisor_is_up, host.why or f"Connected to the hypervisor of host {host.name}.")

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        """The client is gone, without a word to anybody."""
        if self._boot and (self._host.changed, self._host.connection) == self._hooks:
            self._host.changed = self._host.connection = None
        self._boot = 0

    def _check_on(self) -> SimulatedHost:
        host = self._host
        if self._boot != host.boots or not host.is_on:
            raise HypervisorDown(host.why or "This client is closed, or its host has crashed since.")
        return host

    def _check(self) -> SimulatedHost:
        host = self._check_on()
        if not host.hypervisor_is_up:
            raise HypervisorDown(host.why)
        return host

    def _acted(self) -> None:
        if self._fleet.happens(self._fleet.faults.refused_after_acting):
            raise HypervisorRefused("Simulated: the command failed after it had acted.")
        if self._fleet.happens(self._fleet.faults.down_after_acting):
            raise HypervisorDown("Simulated: the connection broke after the command had acted.")

    async def _touch(self) -> None:
        """What lies on the store: as the libvirt driver, nothing is begun that would only wait."""
        if trouble := self.store_trouble():
            raise HypervisorDown(trouble)
        await self._fleet.mounts.touch(self._host.name)
        self._check_on()

    async def _act(self, instance_id: str, span: Span, act: Callable[[], None], *, on_store: bool = False) -> None:
        """`act`, somewhere within a time drawn from `span`. Without a span nothing is awaited. `on_store`: it touches
        the instance store, and waits while that hangs."""
        if on_store and (trouble := self.store_trouble()):
            raise HypervisorDown(trouble)
        calls = self._host.calls
        while (earlier := calls.get(instance_id)) is not None:
            await asyncio.wait((earlier,))
        self._check()
        if self._fleet.happens(self._fleet.faults.refused):
            raise HypervisorRefused("Simulated: the command was refused.")
        if span[1] <= 0.0 and not (on_store and self._fleet.mounts.hangs(self._host.name)):
            act()
        else:
            await asyncio.shield(self._call(instance_id, span, act, on_store))
        self._acted()

    def _call(self, instance_id: str, span: Span, act: Callable[[], None], on_store: bool) -> asyncio.Task[None]:
        fleet, host = self._fleet, self._host
        boot = host.boots

        def check() -> None:  # the client may be dead by now; only the host matters
            if not host.hypervisor_is_up or host.boots != boot:
                raise HypervisorDown(host.why or f"Host {host.name} has crashed during the call.")

        async def work() -> None:
            try:
                seconds = fleet.chance.uniform(*span)
                before = fleet.chance.uniform(0.0, seconds)
                await fleet.clock.sleep(before)
                if on_store:
                    await fleet.mounts.touch(host.name)
                check()
                act()
                await fleet.clock.sleep(seconds - before)
                check()
            finally:
                del host.calls[instance_id]

        task = host.calls[instance_id] = fleet.own(work())
        return task

    # -- what there is ------------------------------------------------------------------------------------------------
    async def resources(self) -> Resources:
        host = self._check()
        free_mb = host.resources.memory_mb - host.used_mb
        pool = host.resources.root_pool
        free_gb = host.resources.disk_gb - (self._fleet.roots.used_gb(pool) if pool else host.store.used_gb)
        return msgspec.structs.replace(
            host.resources,
            memory_free_mb=max(free_mb, 0),
            disk_free_gb=max(free_gb, 0),
            peer_uri=URI + host.name,
            store_trouble=self.store_trouble(),
        )

    def store_trouble(self) -> str:
        return self._fleet.mounts.trouble(self._host.name)

    async def measure(self) -> HostUsage:
        """Each running guest keeps a tenth of a CPU busy, and has written a tenth of its disk."""
        resources, host = await self.resources(), self._host
        now_s, disks = self._fleet.clock.monotonic_s(), host.store.disks
        running = [
            (instance_id, domain)
            for instance_id, domain in host.domains.items()
            if domain.state is not GuestState.SHUTOFF
        ]
        guests = tuple(
            GuestUse(
                instance_id,
                int(max(0.0, now_s - domain.since_s) * 100),
                domain.ram_mb,
                disks.get(instance_id, 0) * 1024 // 10,
            )
            for instance_id, domain in running
        )
        load = len(running) / 10
        return HostUsage(
            int(now_s),
            (load, load, load),
            0,
            resources.memory_free_mb,
            resources.disk_free_gb,
            resources.disk_free_gb - sum(disks.values()) * 9 // 10,
            guests,
        )

    async def files(self) -> tuple[str, ...]:
        await self._touch()
        return tuple(sorted(self._check().store.disks))

    async def reaches(self, peer_uri: str, within_s: float) -> str:
        host = self._check_on()
        other = self._fleet.hosts.get(peer_uri.removeprefix(URI))
        is_reached = other is not None and other.is_on and not self._fleet.cut_off & {host.name, other.name}
        return "" if is_reached else f"Nothing answers at {peer_uri}."

    async def guests(self) -> dict[str, Guest]:
        host = self._check()
        self._sweep_probes(host)
        return {instance_id: self._look(host, instance_id) for instance_id in host.domains}

    def _sweep_probes(self, host: SimulatedHost) -> None:
        """As the libvirt driver does: of a migration whose destination was away when it was undone."""
        newest_s = self._fleet.clock.monotonic_s() - self._fleet.durations.probe_kept_s
        for kept in (host.store.probes, self._fleet.roots.probes):
            for name in [name for name, written_s in kept.items() if written_s < newest_s]:
                del kept[name]  # type: ignore[arg-type]

    async def guest(self, instance_id: str) -> Guest:
        return self._look(self._check(), instance_id)

    def _look(self, host: SimulatedHost, instance_id: str) -> Guest:
        domain = host.domains.get(instance_id)
        state = GuestState.ABSENT if domain is None else domain.state
        job, copy = self._fleet.job(host, instance_id), self._fleet.copies.get(instance_id)
        is_out = job is GuestJob.OUTGOING
        return Guest(
            instance_id,
            state,
            job,
            (copy.passes.progress() if copy.passes is not None else CopyProgress()) if is_out and copy else None,
            "" if is_out else self._copy_errors.get(instance_id, ""),
            domain is not None and domain.crashed,
            domain is not None and domain.is_defined and state is GuestState.PAUSED,
            domain is not None and domain.suspended and state is GuestState.PAUSED,
            domain is not None and domain.saved and state is GuestState.SHUTOFF,
            PostCopy.NONE if domain is None else domain.post_copy,
        )

    # -- one guest's life ---------------------------------------------------------------------------------------------
    async def prepare(
        self, spec: GuestSpec, ticket: ImageTicket | None = None, documents: Sequence[Document] = ()
    ) -> None:
        host = self._check_on()
        image, store = spec.image, host.store
        self._fleet.roots.check_works_with(spec, host.resources.root_pool)
        disk_gb = 0 if spec.begins_from_volume else spec.disk_gb
        if image is not None and image.disk_format not in ("qcow2", "raw"):
            raise HypervisorRefused(
                f"Image {image.id} is refused: the disk format {image.disk_format} is not accepted."
            )
        if image is not None and image.disk_format == "raw":
            if disk_gb and image.size_bytes > disk_gb * GIB:
                raise HypervisorRefused(f"Image {image.id} describes a disk larger than the flavor's {disk_gb} GiB.")
            disk_gb = max(disk_gb, -(-image.size_bytes // GIB))
        if image is None and disk_gb == 0 and not spec.begins_from_volume:
            raise HypervisorRefused("The guest has neither an image nor a disk size: there is nothing to boot from.")
        if spec.instance_id not in store.disks:
            await self._make_base(image, ticket)
        beside_gb = spec.ephemeral_gb + -(-spec.swap_mb // 1024)
        await self._act(
            spec.instance_id,
            self._fleet.durations.prepare,
            lambda: self._make_files(spec, disk_gb + beside_gb, tuple(documents)),
            on_store=True,
        )

    def _make_files(self, spec: GuestSpec, disk_gb: int, documents: tuple[Document, ...]) -> None:
        store = self._host.store
        if spec.instance_id not in store.disks:
            store.images[spec.instance_id] = spec.image.id if spec.image is not None else ""
            store.behind[spec.instance_id] = spec.image.file_name if spec.image is not None else ""
        if spec.root_pool:
            self._fleet.roots.make(spec.root_pool, spec.instance_id, disk_gb)
        self._fleet.make_disk(store, spec.instance_id, 0 if spec.root_pool else disk_gb)
        if spec.config_drive and spec.instance_id not in store.drives:
            store.drives[spec.instance_id] = documents
            self._fleet.disks_changed()

    async def _make_base(self, image: ImageRef | None, ticket: ImageTicket | None) -> None:
        """Once a host, until it is swept."""
        images, host = self._images, self._host
        if images is None or image is None or image.path:
            return
        async with self._base_turns.setdefault(image.sha512, asyncio.Lock()):
            if image.sha512 not in host.bases:
                target = Path(f"/bases/{image.sha512[:32]}")
                try:
                    await images.fetch(image, target, ticket)
                except ImageRefused as fault:
                    raise HypervisorRefused(fault.reason) from None
                self._check_on()
                host.bases[image.sha512] = hashlib.sha512(images.files.pop(target)).hexdigest()
            self._fleet.use_base(host, image)

    def progress(self, spec: GuestSpec) -> str:
        return self._images.progress(spec.image) if self._images is not None and spec.image is not None else ""

    async def start(self, spec: GuestSpec) -> None:
        await self._act(spec.instance_id, self._fleet.durations.start, lambda: self._start(spec), on_store=True)

    def _start(self, spec: GuestSpec) -> None:
        host, instance_id = self._host, spec.instance_id
        if instance_id not in host.store.disks:
            raise HypervisorRefused(f"Guest {instance_id} has no disk here: prepare it first.")
        self._fleet.roots.check_works_with(spec, host.resources.root_pool)
        self._fleet.roots.check_there(spec)
        if spec.rescue and (instance_id, SpareDisk.RESCUE) not in host.store.spares:
            raise HypervisorRefused(f"Guest {instance_id} has no disk to be rescued from here: prepare it first.")
        if spec.config_drive and instance_id not in host.store.drives:
            raise HypervisorRefused(f"Guest {instance_id} has no config drive here: prepare it first.")
        domain = host.domains.get(instance_id)
        check_cells(spec, host.resources.cells)
        check_machine(spec, host.resources.machine_types)
        if domain is not None:
            if domain.state is GuestState.RUNNING:
                return
            job = self._fleet.job(host, instance_id)
            if domain.state is GuestState.PAUSED:
                check_not_moving(instance_id, job)
        self._check_volumes(spec)
        self._fleet.run(host, instance_id, spec.ram_mb, spec.nics, spec.volumes)
        host.domains[instance_id].rescue = spec.rescue
        self._fleet.hint(host, instance_id)

    async def stop(self, instance_id: str, grace_s: float) -> None:
        shortest, longest = self._fleet.durations.power_off
        span = (min(shortest, grace_s), min(longest, grace_s))
        await self._act(instance_id, span, lambda: self._stop(instance_id))

    def _stop(self, instance_id: str) -> None:
        self._end(instance_id, GuestEnd.STOP)
        self._fleet.forget_memory(self._host, instance_id)

    async def pause(self, instance_id: str) -> None:
        await self._act(instance_id, self._fleet.durations.hold, lambda: self._fleet.pause(self._alive(instance_id)))

    async def unpause(self, instance_id: str) -> None:
        def act() -> None:
            domain = self._alive(instance_id)
            if domain.state is GuestState.PAUSED:
                self._fleet.run(self._host, instance_id, domain.ram_mb)

        await self._act(instance_id, self._fleet.durations.hold, act)

    async def suspend(self, instance_id: str) -> None:
        def act() -> None:
            domain = self._host.domains.get(instance_id)
            if domain is None or not (domain.saved and domain.state is GuestState.SHUTOFF):
                domain = self._alive(instance_id)
                self._end(instance_id, GuestEnd.SUSPEND)
                domain.saved = True

        await self._act(instance_id, self._fleet.durations.hold, act)

    async def inject_nmi(self, instance_id: str) -> None:
        def act() -> None:
            self._alive(instance_id).interrupts += 1

        await self._act(instance_id, self._fleet.durations.hold, act)

    async def diagnostics(self, instance_id: str) -> GuestDiagnostics:
        self._check()
        domain = self._alive(instance_id)
        busy_ns = int(max(0.0, self._fleet.clock.monotonic_s() - domain.since_s) * 100_000_000)
        nics = tuple(NicUse(nic.mac, device_of(nic.port_id)) for nic in domain.nics)
        return GuestDiagnostics(
            "paused" if domain.state is GuestState.PAUSED else "running",
            "simulated",
            "simulated",
            cpus=(CpuUse(0, busy_ns),),
            nics=nics,
            disks=(DiskUse("vda"),),
            memory_maximum_mb=domain.ram_mb,
            memory_used_mb=domain.ram_mb,
        )

    def _alive(self, instance_id: str) -> Domain:
        """One that runs or is paused, and stays here. Raises HypervisorRefused."""
        domain = self._host.domains.get(instance_id)
        check_alive(instance_id, GuestState.ABSENT if domain is None else domain.state)
        check_not_moving(instance_id, self._fleet.job(self._host, instance_id))
        assert domain is not None
        return domain

    async def plug(self, instance_id: str, nic: Nic, model: str) -> None:
        await self._act(instance_id, self._fleet.durations.plug, lambda: self._plug(instance_id, nic))

    def _plug(self, instance_id: str, nic: Nic) -> None:
        domain = self._with_devices(instance_id)
        if domain is not None and nic.port_id not in {one.port_id for one in domain.nics}:
            domain.nics = (*domain.nics, nic)

    async def unplug(self, instance_id: str, nic: Nic, within_s: float) -> None:
        shortest, longest = self._fleet.durations.plug
        span = (min(shortest, within_s), min(longest, within_s))
        await self._act(instance_id, span, lambda: self._unplug(instance_id, nic, within_s))

    def _unplug(self, instance_id: str, nic: Nic, within_s: float) -> None:
        domain = self._with_devices(instance_id)
        if domain is None or nic.port_id not in {one.port_id for one in domain.nics}:
            return
        if instance_id in self._fleet.keeps_nics or self._fleet.happens(self._fleet.faults.keeps_nic):
            raise HypervisorRefused(not_let_go(instance_id, nic, within_s))
        domain.nics = tuple(one for one in domain.nics if one.port_id != nic.port_id)

    def _with_devices(self, instance_id: str) -> Domain | None:
        """The guest, if it runs or is paused. Raises HypervisorRefused in the middle of a move."""
        domain, job = self._host.domains.get(instance_id), self._fleet.job(self._host, instance_id)
        if domain is None or domain.state is GuestState.SHUTOFF:
            return None
        check_not_moving(instance_id, job)
        return domain

    def _end(self, instance_id: str, why: GuestEnd) -> None:
        copy = self._fleet.copies.get(instance_id)
        if copy is not None and self._host in (copy.source, copy.destination):
            self._fleet.fail_copy(copy, "The guest's process ended during the copy.")
        self._fleet.end(self._host, instance_id, why)
        self._fleet.hint(self._host, instance_id)

    async def remove(self, instance_id: str, root_pool: str = "") -> None:
        span = self._fleet.durations.remove
        await self._act(instance_id, span, lambda: self._remove(instance_id, root_pool), on_store=True)

    def _remove(self, instance_id: str, root_pool: str) -> None:
        host = self._host
        self._end(instance_id, GuestEnd.REMOVE)
        self._fleet.forget(host, instance_id)
        self._fleet.delete_root(root_pool, instance_id)
        self._fleet.delete_files(host.store, instance_id)
        host.admitted.pop(instance_id, None)
        self._copy_errors.pop(instance_id, None)

    async def console(self, instance_id: str, length_lines: int | None) -> str:
        await self._touch()
        return last_lines("".join(self._check_on().store.consoles.get(instance_id, ())), length_lines)

    async def open_console(self, instance_id: str, kind: ConsoleKind) -> ConsoleStream:
        boots, host = self._boot, self._check()

        def runs() -> bool:
            domain = host.domains.get(instance_id)
            alive = domain is not None and not domain.is_husk and domain.state is not GuestState.SHUTOFF
            return alive and host.is_on and host.boots == boots

        if not runs():
            raise HypervisorRefused(f"Guest {instance_id} does not run on this host, so it has no console here.")
        return EchoConsole(kind, runs)

    # -- live migration -----------------------------------------------------------------------------------------------
    def endpoint(self) -> MigrationEndpoint:
        return MigrationEndpoint(self._host.name, URI + self._host.name, URI + self._host.name)

    async def check_incoming(self, spec: GuestSpec, source_cpu_xml: str) -> tuple[CheckAnswer, ...]:
        host = self._check()
        domain = host.domains.get(spec.instance_id)
        state = GuestState.ABSENT if domain is None else domain.state
        return check_each(
            (Check.NOT_THERE, lambda: check_not_there(spec.instance_id, state)),
            (Check.NUMA, lambda: check_movable(spec)),
            (Check.MACHINE, lambda: check_machine(spec, host.resources.machine_types)),
            (Check.CPU, lambda: self._check_cpu(source_cpu_xml)),
            (Check.POOL, lambda: self._fleet.roots.check_works_with(spec, host.resources.root_pool)),
        )

    async def cpu_baseline(self, cpus: Sequence[str]) -> str:
        self._check()
        levels = [int(found[1]) for cpu in cpus if (found := _CPU.match(cpu)) is not None]
        if len(levels) < len(cpus) or not levels:
            raise HypervisorRefused("These CPUs have no model in common.")
        return f'<cpu level="{min(levels)}"><model>simulated-{min(levels)}</model></cpu>'

    async def compare_cpu(self, cpu_xml: str) -> CheckAnswer:
        self._check()
        return check_each((Check.CPU, lambda: self._check_cpu(cpu_xml)))[0]

    def _check_cpu(self, source_cpu_xml: str) -> None:
        level = _CPU.match(source_cpu_xml)
        if level is not None and int(level[1]) > self._host.cpu_level:
            raise HypervisorRefused("This host's CPU cannot run the guest: it lacks features of the source's CPU.")

    async def check_outgoing(self, instance_id: str) -> tuple[CheckAnswer, ...]:
        domain = self._check().domains.get(instance_id)
        if domain is None:
            return of_guest(GuestState.ABSENT, "", ())
        return of_guest(domain.state, domain.stalled, domain.bound_devices)

    async def loads(self, instance_ids: Sequence[str], measure_s: int = 0) -> dict[str, GuestLoad]:
        """What it dirties is as its domain says; measured it is known from then on."""
        self._check()
        await self._fleet.clock.sleep(measure_s)
        now_s, found = self._fleet.clock.monotonic_s(), dict[str, GuestLoad]()
        for instance_id in instance_ids:
            domain = self._check().domains.get(instance_id)
            if domain is None or domain.state is GuestState.SHUTOFF:
                continue
            if measure_s > 0 and domain.state is GuestState.RUNNING:
                domain.measured = domain.dirty_bytes_per_s, now_s
            memory_bytes = domain.ram_mb * MIB
            load = GuestLoad(memory_bytes, memory_bytes // 4)
            if domain.measured is not None:
                rate, measured_at_s = domain.measured
                load = GuestLoad(memory_bytes, memory_bytes // 4, rate, max(0.0, now_s - measured_at_s))
            found[instance_id] = load
        return found

    async def store_room_bytes(self, *, over_commits: bool) -> int:
        """Each disk is as large as it will ever be."""
        host = self._check()
        return (host.resources.disk_gb - host.resources.reserved_disk_gb - host.store.used_gb) * GIB

    async def write_probe(self, name: str, *, in_pool: bool = False) -> None:
        await self._touch()
        host, now_s = self._check_on(), self._fleet.clock.monotonic_s()
        host.store.probes[name] = now_s
        if in_pool and host.resources.root_pool:
            self._fleet.roots.note_probe(host.resources.root_pool, name, now_s)

    async def sees_probe(self, name: str) -> bool:
        await self._touch()
        return name in self._check_on().store.probes

    async def sees_probe_in_pool(self, name: str) -> bool:
        return (self._check_on().resources.root_pool, name) in self._fleet.roots.probes

    async def remove_probe(self, name: str, *, in_pool: bool = False) -> None:
        await self._touch()
        host = self._check_on()
        host.store.probes.pop(name, None)
        if in_pool:
            self._fleet.roots.probes.pop((host.resources.root_pool, name), None)

    async def root_disks(self) -> tuple[str, tuple[str, ...]]:
        pool = self._check().resources.root_pool
        return pool, self._fleet.roots.listing(pool)

    async def admit(self, spec: GuestSpec) -> None:
        host = self._check()
        self._fleet.forget(host, spec.instance_id)
        if not spec.needs_store:
            self._fleet.make_disk(host.store, spec.instance_id, 0)
        host.admitted[spec.instance_id] = None
        self._acted()

    async def dismiss(self, instance_id: str) -> None:
        host = self._check()
        host.admitted.pop(instance_id, None)
        copy = self._fleet.copies.get(instance_id)
        if copy is not None and copy.destination is host and not copy.has_switched:
            self._fleet.fail_copy(copy, f"Host {host.name} does not expect guest {instance_id} any longer.")
        self._fleet.forget(host, instance_id)
        self._acted()

    async def admitted(self) -> tuple[str, ...]:
        return tuple(self._check().admitted)

    async def begin_migration(
        self, spec: GuestSpec, to: MigrationEndpoint, files: LocalFiles = NO_FILES, target: CopyTarget = AS_USUAL
    ) -> None:
        host, fleet, instance_id = self._check(), self._fleet, spec.instance_id
        domain = host.domains.get(instance_id)
        if domain is None or fleet.job(host, instance_id) is GuestJob.OUTGOING:
            return
        if domain.state is not GuestState.RUNNING:
            raise HypervisorRefused(f"Guest {instance_id} cannot be moved: it is {domain.state}, not running.")
        self._copy_errors.pop(instance_id, None)
        destination = fleet.hosts.get(to.peer_uri.removeprefix(URI))
        if destination is None or destination is host or not destination.hypervisor_is_up:
            reason = f"The hypervisor at {to.peer_uri} cannot be reached."
            self._note_failure(instance_id, reason)
            raise HypervisorRefused(reason)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fleet.begin_copy(
            GuestCopy(
                instance_id,
                host,
                destination,
                lambda s: self._note_failure(instance_id, s),
                ended,
                files,
                target,
                spec.volumes,
            )
        )
        host.admitted.pop(instance_id, None)
        self._acted()

    def _note_failure(self, instance_id: str, reason: str) -> None:
        self._copy_errors.pop(instance_id, None)
        self._copy_errors[instance_id] = reason
        while len(self._copy_errors) > KEPT_ERRORS:
            self._copy_errors.pop(next(iter(self._copy_errors)))

    async def abort_migration(self, instance_id: str) -> None:
        host = self._check()
        copy = self._fleet.copies.get(instance_id)
        if copy is not None and copy.source is host:
            if not copy.has_switched:
                self._fleet.fail_copy(copy, "The copy was aborted by its client.")
            elif not copy.is_split:
                await asyncio.shield(copy.ended)
                self._check()
        self._acted()

    async def adjust_migration(self, instance_id: str, change: CopyChange) -> None:
        host = self._check()
        copy = self._fleet.copies.get(instance_id)
        if copy is not None and copy.source is host and not copy.has_switched:
            if change.downtime_max_ms and copy.passes is not None:
                copy.passes.downtime_ms = change.downtime_max_ms
            if change.post_copy:
                if copy.target.policy is not Policy.POST_COPY:
                    raise HypervisorRefused(f"The copy of guest {instance_id} was not begun for post-copy.")
                if copy.passes is None:
                    raise HypervisorRefused(f"The memory of guest {instance_id} is not being copied yet.")
                copy.wants_post_copy = True
            domain = host.domains[instance_id]
            if change.pause and domain.state is GuestState.RUNNING:
                domain.state = GuestState.PAUSED
        self._acted()

    async def resume_post_copy(self, spec: GuestSpec, to: MigrationEndpoint, files: LocalFiles = NO_FILES) -> None:
        host = self._check()
        copy = self._fleet.copies.get(spec.instance_id)
        if copy is not None and copy.source is host and copy.is_split and not copy.connected.is_set():
            if not copy.destination.hypervisor_is_up:
                raise HypervisorRefused(f"The hypervisor at {to.peer_uri} cannot be reached.")
            self._fleet.reconnect(copy)
        self._acted()

    async def release(self, instance_id: str) -> None:
        host = self._check()
        copy = self._fleet.copies.get(instance_id)
        if copy is not None and copy.is_split:
            raise HypervisorDown(f"The copy of {instance_id} has not ended here yet: ask again.")
        if copy is not None and copy.source is host and copy.has_switched:
            await asyncio.shield(copy.ended)
            self._check()
        domain = host.domains.get(instance_id)
        is_moving = self._fleet.job(host, instance_id) is not GuestJob.NONE
        if domain is not None and domain.state is not GuestState.RUNNING and not is_moving:
            self._fleet.end(host, instance_id, GuestEnd.RELEASE)
            self._fleet.forget(host, instance_id)
            host.admitted.pop(instance_id, None)
            self._copy_errors.pop(instance_id, None)
        self._acted()
