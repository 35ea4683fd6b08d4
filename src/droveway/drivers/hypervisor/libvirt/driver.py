"""The hypervisor as libvirt has it: QEMU guests on this host, KVM where that works and emulated where it does not.

More than 400 lines because a driver answers every verb of the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os.path
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt
import msgspec

from droveway.domain.consoles import ConsoleKind
from droveway.domain.diagnostics import GuestDiagnostics
from droveway.domain.guest_data import Document
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.migration_ladder import CopyTarget
from droveway.domain.model import (
    CopyChange,
    Guest,
    GuestJob,
    GuestSpec,
    GuestState,
    LocalFiles,
    MigrationEndpoint,
    Nic,
    PostCopy,
    Resources,
    SpareDisk,
)
from droveway.domain.move_checks import Check, CheckAnswer
from droveway.domain.placement import NumaCell
from droveway.domain.resources import HostUsage
from droveway.domain.volume.disks import RbdSource, VolumeDisk
from droveway.drivers.hypervisor import console_socket
from droveway.drivers.hypervisor.bases import DAY, CacheBounds
from droveway.drivers.hypervisor.console import last_lines
from droveway.drivers.hypervisor.libvirt import (
    ceph_keys,
    consoles,
    diagnostics,
    hardware_xml,
    held,
    interfaces,
    reach,
    stalled,
    volumes,
)
from droveway.drivers.hypervisor.libvirt import guest as acts
from droveway.drivers.hypervisor.libvirt.admissions import Admissions
from droveway.drivers.hypervisor.libvirt.arrivals import Arrivals
from droveway.drivers.hypervisor.libvirt.before_moves import BeforeMoves
from droveway.drivers.hypervisor.libvirt.connection import LibvirtConnection
from droveway.drivers.hypervisor.libvirt.copies import Order, OutgoingCopies
from droveway.drivers.hypervisor.libvirt.disk_copies import DiskCopies
from droveway.drivers.hypervisor.libvirt.domain_xml import HostFacts, domain_xml
from droveway.drivers.hypervisor.libvirt.facts import (
    check_cpu,
    kvm_works,
    read_host_facts,
    read_measured,
    read_resources,
)
from droveway.drivers.hypervisor.libvirt.instance_files import InstanceFiles
from droveway.drivers.hypervisor.libvirt.kept_disks import KeptDisks
from droveway.drivers.hypervisor.libvirt.own_cpus import OwnCpus
from droveway.drivers.hypervisor.libvirt.root_disks import RootDisks
from droveway.drivers.hypervisor.libvirt.volume_xml import OwnWays
from droveway.drivers.hypervisor.promises import (
    check_each,
    check_later,
    check_machine,
    check_movable,
    check_not_there,
    not_let_go,
    volume_not_let_go,
)
from droveway.drivers.hypervisor.store_watch import StoreCapacity, StoreWatch
from droveway.periodic.mark import periodic
from droveway.ports.clock import Clock
from droveway.ports.consoles import ConsoleStream
from droveway.ports.hypervisor import AS_USUAL, FROZEN_MAX_S, NO_FILES, HypervisorDown, HypervisorRefused
from droveway.ports.images import ImageRefused, Images
from droveway.ports.replies import DiskCopied

if TYPE_CHECKING:
    from droveway.drivers.hypervisor.libvirt.pool_disks import PoolDisks

POWER_BUTTON_EVERY_S = 10.0  # a guest that was still booting has not heard the first one
ASKED_TO_LET_GO_EVERY_S, LET_GO_LOOK_S = 5.0, 0.1  # the same
COPY_VISIBLE_WITHIN_S = 2.0
OWN_CA = "own-ca.pem"
SWEEP_EVERY_S = 3600.0
STALLED_AGAIN_S = 2.0
ABORT_WITHIN_S = 60.0
WATCH_EVERY_S = 0.25
SETTLES_WITHIN_S = 5.0
SETTLE_STEP_S = 0.1


class LibvirtSettings(msgspec.Struct, frozen=True):
    """`host` is the name other hosts know this one by; `peer_uri` and `data_uri` are how their libvirtd reaches ours
    and where it sends a guest's memory."""

    host: str
    instances_path: str
    admissions_path: str
    peer_uri: str
    data_uri: str
    uri: str = "qemu:///system"
    reserved_memory_mb: int = 0  # kept back for the host itself
    reserved_disk_gb: int = 0
    cache: CacheBounds = DAY  # of images that no disk needs
    directories: Mapping[str, str] = {}  # of backends whose volumes are files, by backend
    ceph: tuple[str, str, str] | None = None  # its configuration, user and keyring; None: no volume is opened there
    disk_tls_path: str = ""  # where its certificate for served disks is (nbd_tls_x509_cert_dir); empty: it has none
    tls: bool = True  # an NBD export is opened with this host's certificate; off only in tests
    host_root: str = ""  # where this process sees the host's root directory; empty: it runs there


class LibvirtHypervisor(BeforeMoves):
    """Answers droveway.ports.hypervisor.Hypervisor. Remembers nothing but calls in flight and how the last ended."""

    def __init__(self, settings: LibvirtSettings, clock: Clock, images: Images, pool: PoolDisks | None = None) -> None:
        """`pool`: where root disks lie; without, on the instance store."""
        self._settings, self._clock = settings, clock
        self._use_kvm = kvm_works()
        self._store = StoreWatch(Path(settings.instances_path), clock)
        self._files = InstanceFiles(settings.instances_path, settings.host, images, self._store, settings.cache)
        self._admissions = Admissions(settings.admissions_path)
        self._connection = LibvirtConnection(settings.uri, clock)
        self._copies = OutgoingCopies(settings.uri, os.path.abspath(settings.instances_path), self._note_change)
        self._disk_copies, self._images = DiskCopies(self._connection, self._files, clock, pool), images
        self._pool = RootDisks(pool)
        self._arrivals = Arrivals(self._files, self._files.bases)
        self._kept, self._own_cpus = KeptDisks(self._files), OwnCpus()
        self._frozen = Admissions(settings.admissions_path + "-frozen")  # guests that an earlier client may have held
        self._ways = OwnWays(dict(settings.directories), tls=settings.tls)
        self._identity = ""
        self._facts: HostFacts | None = None
        self._stops: dict[str, asyncio.Event] = {}  # guests whose power-off is awaited
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed: Callable[[str], None] = lambda _instance_id: None
        self._notify: Callable[[bool, str], None] = lambda _is_up, _reason: None

    async def open(self, changed: Callable[[str], None], connection: Callable[[bool, str], None]) -> None:
        self._changed, self._notify = changed, connection
        self._connection.open(self._on_connection, self._on_domain_event)
        self._spawn("clean the store", self._clean_store)

    async def _clean_store(self) -> None:
        """What an earlier run left half made goes now."""
        with contextlib.suppress(HypervisorRefused):
            await self._files.sweep()

    @periodic(every_s=SWEEP_EVERY_S, run_on_start=True)
    async def sweep_bases(self) -> None:
        """Now and then deletes bases that no disk needs, and partial downloads that were abandoned."""
        await self._files.sweep_bases()
        await self._pool.sweep()

    @periodic(every_s=STALLED_AGAIN_S)
    async def resume_stalled(self) -> None:
        """Lets guests that wait for a disk to take a write try it again."""
        for instance_id in await self._connection.call(stalled.resume_all):
            self._changed(instance_id)

    async def close(self) -> None:
        self._changed, self._notify = lambda _instance_id: None, lambda _is_up, _reason: None
        self._copies.close()
        for task in tuple(self._tasks.values()):
            task.cancel()
        await self._connection.close()
        self._files.close()
        self._pool.close()

    # -- what there is ------------------------------------------------------------------------------------------------
    async def resources(self) -> Resources:
        seen = await self._pool.capacity(self._store)
        return await self._connection.call(lambda c: self._resources(c, *seen))

    def store_trouble(self) -> str:
        return self._store.trouble()

    def _resources(self, connection: Any, room_gb: StoreCapacity, store_trouble: str) -> Resources:
        s, facts = self._settings, self._known(connection)
        has = read_resources(connection, facts, self._use_kvm, room_gb, s.data_uri, s.peer_uri)
        return msgspec.structs.replace(
            has,
            reserved_memory_mb=s.reserved_memory_mb,
            store_trouble=store_trouble,
            reserved_disk_gb=s.reserved_disk_gb,
            root_pool=self._pool.name,
            disk_identity=self._disk_identity(),
        )

    def _disk_identity(self) -> str:
        """Its own CA for opening served disks, once that is there."""
        if self._identity or not self._settings.disk_tls_path:
            return self._identity
        with contextlib.suppress(OSError):
            self._identity = (Path(self._settings.disk_tls_path) / OWN_CA).read_text()
        return self._identity

    def _known(self, connection: Any) -> HostFacts:
        if (facts := self._facts) is None:
            facts = self._facts = read_host_facts(connection, self._use_kvm)
        return facts

    async def measure(self) -> HostUsage:
        seen = await self._pool.capacity(self._store)
        return await self._connection.call(lambda c: read_measured(c, self._resources(c, *seen)))

    async def guests(self) -> dict[str, Guest]:
        found = await self._connection.call(acts.look_all)
        running = [instance_id for instance_id, guest in found.items() if guest.state is GuestState.RUNNING]
        self._spawn("consoles", partial(self._files.trim_consoles, running))
        self._spawn("probes", self._files.sweep_probes)
        return {instance_id: self._with_copy(guest) for instance_id, guest in found.items()}

    async def guest(self, instance_id: str) -> Guest:
        self._files.directory(instance_id)  # refuses what is no id
        return self._with_copy(await self._connection.call(lambda c: acts.look(c, instance_id)))

    def _with_copy(self, guest: Guest) -> Guest:
        """A call in flight is an outgoing job even before libvirt shows it, until the call has said how it ended. Not
        where QEMU has died in the middle of it: in post-copy the call then waits for the destination, and that for it.
        """
        if self._copies.in_flight(guest.instance_id) is not None and not guest.crashed:
            return msgspec.structs.replace(guest, job=GuestJob.OUTGOING)
        if guest.job is GuestJob.OUTGOING:
            return guest
        error = self._copies.error(guest.instance_id)
        return msgspec.structs.replace(guest, copy_error=error) if error else guest

    # -- one guest's life ---------------------------------------------------------------------------------------------
    async def prepare(
        self, spec: GuestSpec, ticket: ImageTicket | None = None, documents: Sequence[Document] = ()
    ) -> None:
        if spec.root_pool:
            await self._pool.make(spec, ticket)
        await self._files.prepare(spec, ticket, documents)

    def progress(self, spec: GuestSpec) -> str:
        return self._files.progress(spec)

    async def start(self, spec: GuestSpec) -> None:
        directory = self._files.directory(spec.instance_id)
        await self._files.complete(spec)
        await self._pool.check_there(spec)

        def work(connection: Any) -> None:
            cells: tuple[NumaCell, ...] = ()
            if spec.cells or spec.machine_type:
                check_machine(spec, self._known(connection).machine_types)
                cells = self._known(connection).cells
            consoles.make_directory(self._settings.host_root)
            xml = domain_xml(spec, directory, self._use_kvm, cells, self._ways_for(connection, spec.volumes, spec))
            with self._own_cpus.around_start(connection, spec):
                acts.start(connection, spec.instance_id, xml)

        await self._connection.call(work)

    async def stop(self, instance_id: str, grace_s: float) -> None:
        self._files.directory(instance_id)
        if grace_s > 0:
            await self._power_off(instance_id, self._clock.monotonic_s() + grace_s)
        await self._connection.call(lambda c: acts.destroy(c, instance_id))

    async def _power_off(self, instance_id: str, deadline_s: float) -> None:
        """Press the button, wait for the event that it has stopped; press again when that takes long."""
        stopped = self._stops.setdefault(instance_id, asyncio.Event())
        press_at_s = now_s = self._clock.monotonic_s()
        try:
            while now_s < deadline_s:
                if now_s >= press_at_s:
                    press_at_s = now_s + POWER_BUTTON_EVERY_S
                    if not await self._connection.call(lambda c: acts.press_power_button(c, instance_id)):
                        return
                try:
                    async with asyncio.timeout(min(deadline_s, press_at_s) - now_s):
                        await stopped.wait()
                    stopped.clear()
                    if not await self._connection.call(lambda c: acts.is_active(c, instance_id)):
                        return
                except TimeoutError:
                    pass
                now_s = self._clock.monotonic_s()
        finally:
            self._stops.pop(instance_id, None)

    async def pause(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: held.pause(c, instance_id))

    async def unpause(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: held.unpause(c, instance_id))

    async def suspend(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: held.suspend(c, instance_id))

    async def inject_nmi(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: held.inject_nmi(c, instance_id))

    async def copy_disk(self, instance_id: str, copy: str) -> DiskCopied:
        return await self._disk_copies.make(instance_id, copy)

    async def send_copy(self, instance_id: str, copy: str, ticket: ImageTicket | None) -> None:
        try:
            await self._images.send(copy, self._disk_copies.path(instance_id, copy), ticket)
        except ImageRefused as fault:
            raise HypervisorRefused(fault.reason) from None

    async def drop_copy(self, instance_id: str, copy: str) -> None:
        await self._disk_copies.drop(instance_id, copy)

    async def prepare_disk(self, spec: GuestSpec, disk: SpareDisk, ticket: ImageTicket | None = None) -> None:
        if spec.root_pool:
            await self._pool.make(spec, ticket, disk.value)
            return
        name = hardware_xml.spare_name(disk)
        if await self._files.has_disk_of_another(spec, name):  # it was to be dropped when this host did not answer
            await self.drop_disk(spec.instance_id, disk)
        await self._files.prepare_disk(spec, name, ticket)

    async def drop_disk(self, instance_id: str, disk: SpareDisk) -> None:
        path = Path(self._files.directory(instance_id)) / hardware_xml.spare_name(disk)
        await self._connection.call(lambda c: held.check_not_begun_from(c, instance_id, str(path)))
        await self._files.run(lambda: path.unlink(missing_ok=True))
        await self._pool.drop(instance_id, disk.value)

    async def replace_disk(self, spec: GuestSpec, documents: Sequence[Document], keeps_ephemeral: bool) -> None:
        await self.stop(spec.instance_id, 0.0)
        if spec.root_pool:
            await self._pool.replace(spec.instance_id, SpareDisk.REBUILD.value)
        new = hardware_xml.spare_name(SpareDisk.REBUILD)
        await self._files.replace_disk(spec, new, documents, keeps_ephemeral)

    async def diagnostics(self, instance_id: str) -> GuestDiagnostics:
        self._files.directory(instance_id)
        return await self._connection.call(lambda c: diagnostics.read(c, instance_id, self._use_kvm))

    async def plug(self, instance_id: str, nic: Nic, model: str) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: interfaces.plug(c, instance_id, nic, model))

    async def unplug(self, instance_id: str, nic: Nic, within_s: float) -> None:
        self._files.directory(instance_id)
        await self._until_let_go(
            within_s,
            lambda c: interfaces.has_let_go(c, instance_id, nic),
            lambda c: interfaces.ask_to_let_go(c, instance_id, nic),
            HypervisorRefused(not_let_go(instance_id, nic, within_s)),
        )

    async def _until_let_go(
        self, within_s: float, has_let_go: Callable[[Any], bool], ask: Callable[[Any], None], refused: HypervisorRefused
    ) -> None:
        ask_at_s = now_s = self._clock.monotonic_s()
        deadline_s, step_s = now_s + within_s, LET_GO_LOOK_S / 8
        while not await self._connection.call(has_let_go):
            now_s = self._clock.monotonic_s()
            if now_s >= deadline_s:
                raise refused
            if now_s >= ask_at_s:
                ask_at_s = now_s + ASKED_TO_LET_GO_EVERY_S
                await self._connection.call(ask)
            await self._clock.sleep(step_s)
            step_s = min(2 * step_s, LET_GO_LOOK_S)

    # -- volumes --------------------------------------------------------------------------------------------------
    def _ways_for(self, connection: Any, disks: Sequence[VolumeDisk], spec: GuestSpec | None = None) -> OwnWays:
        """With the secret of its Ceph cluster, where one of them lies there, or the root disk of that guest: libvirt
        keeps it in memory alone."""
        is_there = any(isinstance(disk.source, RbdSource) for disk in disks) or bool(spec and spec.root_pool)
        if self._settings.ceph is None or not is_there:
            return self._ways
        fsid, access, key = ceph_keys.read(*self._settings.ceph)
        ceph_keys.define_secret(connection, fsid, access, key)
        return msgspec.structs.replace(self._ways, ceph={fsid: access})

    async def attach_disk(self, instance_id: str, disk: VolumeDisk) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: volumes.attach(c, instance_id, disk, self._ways_for(c, (disk,))))

    async def detach_disk(self, instance_id: str, volume_id: str, within_s: float) -> None:
        self._files.directory(instance_id)
        await self._until_let_go(
            within_s,
            lambda c: volumes.has_let_go(c, instance_id, volume_id),
            lambda c: volumes.ask_to_let_go(c, instance_id, volume_id),
            volume_not_let_go(instance_id, volume_id, within_s),
        )

    async def grow_disk(self, instance_id: str, volume_id: str, size_gb: int) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: volumes.grow(c, instance_id, volume_id, size_gb))

    async def freeze(self, instance_id: str) -> bool:
        self._files.directory(instance_id)
        await self._files.run_beside(lambda: self._frozen.admit(instance_id))
        is_held = await self._connection.call(lambda c: volumes.freeze(c, instance_id))
        if is_held:
            self._spawn(f"thaw {instance_id}", partial(self._thaw_soon, instance_id))
        else:
            await self._files.run_beside(lambda: self._frozen.discard(instance_id))
        return is_held

    async def _thaw_soon(self, instance_id: str) -> None:
        await self._clock.sleep(FROZEN_MAX_S)
        await self.thaw(instance_id)

    async def thaw(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: volumes.thaw(c, instance_id))
        await self._files.run_beside(lambda: self._frozen.discard(instance_id))

    async def remove(self, instance_id: str, root_pool: str = "") -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: acts.remove(c, instance_id))
        if root_pool:
            await self._pool.remove(instance_id, root_pool)
        await self._files.run(lambda: self._files.delete(instance_id))
        await self._files.run_beside(lambda: self._admissions.discard(instance_id))
        self._copies.forget(instance_id)

    async def console(self, instance_id: str, length_lines: int | None) -> str:
        return last_lines(await self._files.console(instance_id), length_lines)

    async def open_console(self, instance_id: str, kind: ConsoleKind) -> ConsoleStream:
        self._files.directory(instance_id)
        path = await self._connection.call(lambda c: consoles.path_of(c, instance_id, kind))
        return await console_socket.connect(self._settings.host_root + path, instance_id)

    async def files(self) -> tuple[str, ...]:
        return await self._files.run(self._files.known)

    # -- live migration -----------------------------------------------------------------------------------------------
    async def reaches(self, peer_uri: str, within_s: float) -> str:
        return await reach.why_not(peer_uri, within_s)

    def endpoint(self) -> MigrationEndpoint:
        s = self._settings
        path = os.path.abspath(s.instances_path)
        return MigrationEndpoint(s.host, s.peer_uri, s.data_uri, path, ceph_keys.of_host(s.ceph))

    async def check_incoming(self, spec: GuestSpec, source_cpu_xml: str) -> tuple[CheckAnswer, ...]:
        self._files.directory(spec.instance_id)

        def work(connection: Any) -> tuple[CheckAnswer, ...]:
            state = acts.look(connection, spec.instance_id).state
            return check_each(
                (Check.NOT_THERE, lambda: check_not_there(spec.instance_id, state)),
                (Check.NUMA, lambda: check_movable(spec)),
                (Check.MACHINE, lambda: check_machine(spec, self._known(connection).machine_types)),
                (Check.CPU, lambda: check_cpu(connection, spec.instance_id, source_cpu_xml, self._use_kvm)),
                (Check.VOLUMES, lambda: self._check_ways(connection, spec)),
            )

        found = await self._connection.call(work)
        if not spec.root_pool:
            return found
        return (*found, await check_later(Check.POOL, self._pool.check(spec)))

    def _check_ways(self, connection: Any, spec: GuestSpec) -> None:
        ways = self._ways_for(connection, spec.volumes)
        for disk in spec.volumes:
            ways.check(disk)

    async def local_files(self, instance_id: str) -> LocalFiles:
        return await self._arrivals.read(instance_id)

    async def prepare_arrival(
        self,
        spec: GuestSpec,
        files: LocalFiles,
        mark: str,
        room_bytes: int,
        ticket: ImageTicket | None,
        over_commits: bool = True,
    ) -> None:
        free_bytes = await self.store_room_bytes(over_commits=over_commits)
        await self._arrivals.prepare(spec, files, mark, room_bytes, free_bytes, ticket)

    async def keep_arrival(self, instance_id: str) -> None:
        await self._arrivals.keep(instance_id)

    async def drop_files(self, instance_id: str, mark: str) -> None:
        self._files.directory(instance_id)
        found = await self._connection.call(lambda c: acts.look(c, instance_id))
        if found.state in (GuestState.RUNNING, GuestState.PAUSED) or found.job is not GuestJob.NONE:
            raise HypervisorRefused(f"Guest {instance_id} is on this host ({found.state}): its files stay.")
        await self._arrivals.drop(instance_id, mark)

    async def admit(self, spec: GuestSpec) -> None:
        self._files.directory(spec.instance_id)
        consoles.make_directory(self._settings.host_root)
        # A definition that is found here later was then left by this arrival: the guest did run here.
        await self._connection.call(lambda c: acts.forget(c, spec.instance_id))
        if not spec.needs_store:
            await self._files.make_directory(spec.instance_id)
        if spec.volumes or spec.root_pool:
            await self._connection.call(lambda c: self._ways_for(c, spec.volumes, spec))
        await self._files.run_beside(lambda: self._admissions.admit(spec.instance_id))

    async def dismiss(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        await self._files.run_beside(lambda: self._admissions.discard(instance_id))
        deadline_s = self._clock.monotonic_s() + SETTLES_WITHIN_S
        while not await self._connection.call(lambda c: acts.dismiss(c, instance_id)):
            if self._clock.monotonic_s() > deadline_s:
                # Paused and without a job for seconds: libvirt has given it up, and the source has its guest.
                await self._connection.call(lambda c: acts.destroy_if_paused(c, instance_id))
                return
            await self._clock.sleep(SETTLE_STEP_S)

    async def admitted(self) -> tuple[str, ...]:
        return await self._files.run_beside(self._admissions.all)

    async def begin_migration(
        self, spec: GuestSpec, to: MigrationEndpoint, files: LocalFiles = NO_FILES, target: CopyTarget = AS_USUAL
    ) -> None:
        instance_id = spec.instance_id
        if self._copies.in_flight(instance_id) is not None:
            return
        self._files.directory(instance_id)
        found = await self._connection.call(lambda c: acts.look(c, instance_id))
        if found.job is GuestJob.OUTGOING:
            self._watch(instance_id)
            return
        if found.state is GuestState.ABSENT or self._copies.in_flight(instance_id) is not None:
            return
        if found.state is not GuestState.RUNNING or found.job is GuestJob.INCOMING:
            raise HypervisorRefused(f"Guest {instance_id} cannot be moved: it is {found.state}, not running.")
        call = self._copies.begin(instance_id, Order(to, files, target, spec.volumes))
        await self._until_visible(instance_id, call)
        if call.done() and (complaint := call.result()):
            raise HypervisorRefused(complaint)
        await self._consume_admission(instance_id)  # it had arrived here long ago

    async def adjust_migration(self, instance_id: str, change: CopyChange) -> None:
        self._files.directory(instance_id)
        await self._connection.call(lambda c: acts.adjust_job(c, instance_id, change))

    async def resume_post_copy(self, spec: GuestSpec, to: MigrationEndpoint, files: LocalFiles = NO_FILES) -> None:
        instance_id = spec.instance_id
        self._files.directory(instance_id)
        found = await self._connection.call(lambda c: acts.look(c, instance_id))
        if found.post_copy is not PostCopy.FAILED or self._copies.in_flight(instance_id) is not None:
            return
        call = self._copies.begin(instance_id, Order(to, files, AS_USUAL, spec.volumes, resumes=True))
        await asyncio.wait({call}, timeout=COPY_VISIBLE_WITHIN_S)
        if call.done() and (complaint := call.result()):
            raise HypervisorRefused(complaint)

    async def _until_visible(self, instance_id: str, call: asyncio.Task[str]) -> None:
        """Until libvirt shows the job (a millisecond or two), so that a new agent would find it, or the call ended."""
        step_s, deadline_s = 0.001, self._clock.monotonic_s() + COPY_VISIBLE_WITHIN_S
        while not call.done() and self._clock.monotonic_s() < deadline_s:
            await asyncio.wait({call}, timeout=step_s)
            found = await self._connection.call(lambda c: acts.look(c, instance_id))
            if found.job is GuestJob.OUTGOING or found.state is GuestState.ABSENT:
                return
            step_s *= 2

    async def abort_migration(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        step_s, deadline_s = 0.02, self._clock.monotonic_s() + ABORT_WITHIN_S
        while True:
            call = self._copies.in_flight(instance_id)
            if call is not None and self._copies.withdraw(instance_id):
                await asyncio.wait({call})
                return
            is_copied = await self._connection.call(lambda c: acts.abort_job(c, instance_id))
            if not is_copied and (call is None or call.done()):
                return
            if (await self._connection.call(lambda c: acts.look(c, instance_id))).post_copy is not PostCopy.NONE:
                return  # its guest runs at the destination
            if self._clock.monotonic_s() > deadline_s:
                raise HypervisorDown(f"The copy of {instance_id} did not end within {ABORT_WITHIN_S:.0f} s.")
            if call is not None:
                await asyncio.wait({call}, timeout=step_s)
            else:
                await self._clock.sleep(step_s)
            step_s = min(2 * step_s, 1.0)

    async def release(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        deadline_s = self._clock.monotonic_s() + SETTLES_WITHIN_S
        while not await self._connection.call(lambda c: acts.release(c, instance_id)):
            if self._clock.monotonic_s() > deadline_s:
                raise HypervisorDown(f"The copy of {instance_id} has not ended here yet: ask again.")
            await self._clock.sleep(SETTLE_STEP_S)
        await self._files.run_beside(lambda: self._admissions.discard(instance_id))
        self._copies.forget(instance_id)

    # -- what libvirt tells by itself ---------------------------------------------------------------------------------
    def _note_change(self, instance_id: str) -> None:
        self._changed(instance_id)

    def _on_connection(self, is_up: bool, reason: str) -> None:
        self._facts = None  # libvirtd may have come back as another version
        if is_up:
            for stopped in self._stops.values():
                stopped.set()  # the event may have been missed: look again
            self._spawn("take stock", self._take_stock)
        self._notify(is_up, reason)

    def _on_domain_event(self, kind: str, name: str, event: int, detail: int) -> None:
        instance_id = acts.of_name(name)
        if instance_id is None:
            return
        if kind == "lifecycle":
            if event in (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
                if instance_id in self._stops:
                    self._stops[instance_id].set()
                self._spawn(f"cpus {instance_id}", self._keep_cpus)  # its own are free again
            elif (event, detail) == (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED):
                self._spawn(f"arrival {instance_id}", partial(self._meet, instance_id))
            elif (event, detail) == (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED):
                self._spawn(f"arrived {instance_id}", partial(self._consume_admission, instance_id))
                self._spawn(f"cpus {instance_id}", self._keep_cpus)
        self._changed(instance_id)

    async def _meet(self, instance_id: str) -> None:
        """An arriving guest: one that was not admitted is ended before it runs."""
        if await self._files.run_beside(lambda: self._admissions.holds(instance_id)):
            return
        await self._connection.call(lambda c: acts.reap(c, instance_id))
        self._changed(instance_id)

    async def _take_stock(self) -> None:
        """After (re)connecting: adopt copies that an earlier client began, meet guests that arrived unseen."""
        self._spawn("cpus", self._keep_cpus)
        for instance_id in await self._files.run_beside(self._frozen.all):
            self._spawn(f"thaw {instance_id}", partial(self.thaw, instance_id))
        for instance_id, guest in (await self._connection.call(acts.look_all)).items():
            if guest.job is GuestJob.OUTGOING:
                self._watch(instance_id)
            elif guest.job is GuestJob.INCOMING:
                self._spawn(f"arrival {instance_id}", partial(self._meet, instance_id))

    async def _keep_cpus(self) -> None:
        await self._connection.call(self._own_cpus.keep)

    def _watch(self, instance_id: str) -> None:
        if self._copies.in_flight(instance_id) is None:
            self._spawn(f"watch {instance_id}", partial(self._watch_copy, instance_id))

    async def _watch_copy(self, instance_id: str) -> None:
        """A copy whose caller has ended: libvirt has an event for its success only."""
        while (await self._connection.call(lambda c: acts.look(c, instance_id))).job is GuestJob.OUTGOING:
            await self._clock.sleep(WATCH_EVERY_S)
        self._changed(instance_id)

    async def _consume_admission(self, instance_id: str) -> None:
        """It runs here now; the next arrival of this guest needs a word of its own."""
        await self._files.run_beside(lambda: self._admissions.discard(instance_id))

    def _spawn(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Beside the verbs, one of a name at a time. A fault in it answers no command: what it would have done is
        done again at the next connection or verb."""
        if name in self._tasks:
            return

        async def run() -> None:
            with contextlib.suppress(HypervisorRefused, HypervisorDown):
                await work()

        task = self._tasks[name] = asyncio.create_task(run(), name=name)
        task.add_done_callback(lambda _ended: self._tasks.pop(name, None))
