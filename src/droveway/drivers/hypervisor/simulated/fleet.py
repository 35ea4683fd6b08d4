"""The physical world of all simulated hosts: guests, disks, copies in flight, and the laws that no program can break.

More than 400 lines because what happens and the laws that it must keep stand together.

The laws are assertions. A breach is recorded in `Fleet.violations` before it is raised, so that no handler can hide it:
- a guest lives (runs, or is paused with memory that exists nowhere else) on one host at a time;
- it runs only with its disk, and the disk is not deleted under it; that is made on a whole image;
- a volume is open in one guest at a time;
- it is not lost but by stop, remove, its own crash, or its host's;
- a husk, the memory left behind on a source after the switch, never runs again: the disk has gone on without it;
- a guest in post-copy, whose memory lies on two hosts, is lost with either half: no program ends one while both are
  there.

Nothing here asks the operating system for time or chance, and nothing iterates over a set: the same draws make the
same history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum

from droveway.domain.migration_ladder import CopyTarget, Policy
from droveway.domain.model import GuestJob, GuestState, ImageRef, LocalFiles, Nic, PostCopy, Resources
from droveway.domain.placement import NumaCell
from droveway.domain.volume.disks import VolumeDisk
from droveway.drivers.hypervisor.simulated.fleet_parts import NOTHING, Domain, Durations, Faults, Openings, Span, Store
from droveway.drivers.hypervisor.simulated.mounts import Mounts
from droveway.drivers.hypervisor.simulated.passes import LINK_BYTES_S, STILL, Passes, Writing
from droveway.drivers.hypervisor.simulated.roots import Roots
from droveway.ports.clock import Chance, Clock

__all__ = [
    "NOTHING",
    "Domain",
    "Durations",
    "Faults",
    "Fleet",
    "GuestCopy",
    "GuestEnd",
    "InvariantViolated",
    "Openings",
    "SimulatedHost",
    "Span",
    "Store",
]

CONSOLE_LINES = 256


class InvariantViolated(AssertionError):
    """The program made happen what cannot be allowed to happen."""


class GuestEnd(StrEnum):
    """Why a guest's process ended."""

    STOP = "stop"
    REMOVE = "remove"
    GUEST_CRASH = "the guest's crash"
    HOST_CRASH = "its host's crash"
    SUSPEND = "suspend"  # its memory is saved
    RELEASE = "release"  # legal for a husk only


LEGAL_ENDS = (GuestEnd.STOP, GuestEnd.SUSPEND, GuestEnd.REMOVE, GuestEnd.GUEST_CRASH, GuestEnd.HOST_CRASH)


@dataclass(slots=True)
class GuestCopy:
    """A guest on its way. The world owns it: it goes on when the agent that began it dies."""

    instance_id: str
    source: SimulatedHost
    destination: SimulatedHost
    failed: Callable[[str], None]  # told to the driver that began it, while that is running
    ended: asyncio.Future[None]
    files: LocalFiles = field(default_factory=LocalFiles)  # that are copied into those of the destination
    target: CopyTarget = field(default_factory=CopyTarget)
    volumes: tuple[VolumeDisk, ...] = ()  # as its destination opens them
    has_arrived: bool = False  # the destination's half is there
    has_switched: bool = False
    wants_post_copy: bool = False
    is_split: bool = False  # in post-copy: its memory is on both hosts
    passes: Passes | None = None  # once its memory is being copied
    connected: asyncio.Event = field(default_factory=asyncio.Event)  # the two halves, while it is split


@dataclass(slots=True)
class SimulatedHost:
    name: str
    store: Store
    resources: Resources
    cpu_level: int
    domains: dict[str, Domain] = field(default_factory=dict)
    admitted: dict[str, None] = field(default_factory=dict)
    calls: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # the one in flight, a guest
    bases: dict[str, str] = field(default_factory=dict)  # of each image's sha512 that it has, that of the bytes it has
    used_mb: int = 0
    boots: int = 1
    is_on: bool = True
    hypervisor_is_up: bool = True
    why: str = ""
    changed: Callable[[str], None] | None = None  # its agent's, if one is connected
    connection: Callable[[bool, str], None] | None = None


class Fleet:
    """All hosts, stores and guests. `durations` and `faults` may be replaced at any time: peace is `Faults()`."""

    def __init__(
        self, clock: Clock, chance: Chance, durations: Durations | None = None, faults: Faults | None = None
    ) -> None:
        self.clock, self.chance = clock, chance
        self.durations = durations or Durations()
        self.faults = faults or Faults()
        self.disks_changed: Callable[[], None] = lambda: None  # for the owner of the disks between two runs
        self.hosts: dict[str, SimulatedHost] = {}
        self.roots = Roots()
        self.stores, self.mounts = dict[str, Store](), Mounts(clock)
        self.copies: dict[str, GuestCopy] = {}
        self.lives_on: dict[str, str] = {}  # instance id: the host that holds the guest's one living memory
        self.lost_with_host: dict[str, str] = {}  # instance id: the host whose crash ended it last
        self.link_bytes_s = LINK_BYTES_S
        self.writing: dict[str, Writing] = {}  # guests that write to their memory all the time
        self.lost_in_post_copy: dict[str, str] = {}  # instance id: the host whose half went first
        self.keeps_nics = set[str]()  # guests that let go of no interface, and of no volume
        self.openings = Openings()
        self.violations, self.cut_off = list[str](), set[str]()  # broken laws; hosts without a way to any other
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._task_number = 0

    # -- hosts ----------------------------------------------------------------------------------------------------
    def add_host(
        self,
        name: str,
        vcpus: int = 16,
        memory_mb: int = 65536,
        disk_gb: int = 1000,
        store: str = "shared",
        cpu_level: int = 1,
        cells: int = 1,
        root_pool: str = "",
    ) -> SimulatedHost:
        """Hosts that name the same store see the same files; with a pool, root disks lie there. A guest may move to a
        host of the same or a higher `cpu_level`. Its CPUs and memory lie evenly in NUMA cells."""
        resources = Resources(
            hypervisor_type="simulated",
            hypervisor_version=1_000_000,
            hypervisor_hostname=name,
            vcpus=vcpus,
            memory_mb=memory_mb,
            memory_free_mb=memory_mb,
            disk_gb=disk_gb,
            disk_free_gb=disk_gb,
            cpu_model=f"simulated-{cpu_level}",
            cpu_vendor="droveway",
            cpu_topology={"cores": vcpus, "sockets": 1, "threads": 1},
            cpu_xml=f'<cpu level="{cpu_level}"/>',
            host_ip="127.0.0.1",
            machine_types=("pc", "q35"),
            root_pool=root_pool,
            firmwares=("bios", "uefi"),
            cells=tuple(
                NumaCell(n, tuple(range(n * vcpus // cells, (n + 1) * vcpus // cells)), memory_mb // cells)
                for n in range(cells)
            ),
        )
        self.hosts[name] = SimulatedHost(name, self.stores.setdefault(store, Store()), resources, cpu_level)
        return self.hosts[name]

    def crash_host(self, name: str) -> None:
        """The power is gone: what ran there ran; definitions and the files on the store are still there after it."""
        host = self.hosts[name]
        if not host.is_on:
            return
        host.is_on, host.hypervisor_is_up, host.why = False, False, f"Host {name} is off."
        host.changed = host.connection = None  # its agent died with it
        self.mounts.answer(name)
        for copy in tuple(self.copies.values()):
            if name in (copy.source.name, copy.destination.name):
                self.fail_copy(copy, f"The connection to host {name} broke during the copy.")
        for instance_id, domain in tuple(host.domains.items()):
            self.end(host, instance_id, GuestEnd.HOST_CRASH)
            if not domain.is_defined:
                self._forget(host, instance_id)

    def boot_host(self, name: str) -> None:
        host = self.hosts[name]
        if not host.is_on:
            host.is_on, host.hypervisor_is_up, host.why, host.boots = True, True, "", host.boots + 1

    def stop_hypervisor(self, name: str) -> None:
        """Its libvirtd is gone for a while: guests run on; copies from and to it end as they end with libvirt."""
        host = self.hosts[name]
        if not host.hypervisor_is_up:
            return
        host.hypervisor_is_up, host.why = False, f"The hypervisor of host {name} does not answer."
        for copy in tuple(self.copies.values()):
            if name in (copy.source.name, copy.destination.name):
                self.fail_copy(copy, f"The connection to the hypervisor of host {name} broke during the copy.")
        if host.connection is not None:
            host.connection(False, host.why)

    def return_hypervisor(self, name: str) -> None:
        host = self.hosts[name]
        if host.is_on and not host.hypervisor_is_up:
            host.hypervisor_is_up, host.why = True, ""
            if host.connection is not None:
                host.connection(True, f"Connected to the hypervisor of host {name}.")

    def crash_guest(self, name: str, instance_id: str) -> None:
        """The guest's own process dies."""
        host = self.hosts[name]
        copy = self.copies.get(instance_id)
        if copy is not None and host in (copy.source, copy.destination):
            self.fail_copy(copy, "The guest's process ended during the copy.")
        if instance_id in host.domains:
            self.end(host, instance_id, GuestEnd.GUEST_CRASH)
            host.domains[instance_id].crashed = True
            self.hint(host, instance_id)

    # -- what happens to a guest: each is one physical act, and holds the laws ----------------------------------------
    def violate(self, reason: str) -> InvariantViolated:
        self.violations.append(reason)
        return InvariantViolated(reason)

    def run(
        self,
        host: SimulatedHost,
        instance_id: str,
        ram_mb: int,
        nics: tuple[Nic, ...] = (),
        volumes: tuple[VolumeDisk, ...] = (),
    ) -> None:
        """The guest runs on the host from now on: booted, or resumed."""
        self._check_may_run(host, instance_id)
        if instance_id in host.store.past:
            raise self.violate(f"guest {instance_id} runs on {host.name} from a disk of the past")
        domain = host.domains.get(instance_id)
        if domain is not None and domain.state is GuestState.PAUSED:
            domain.state, domain.suspended = GuestState.RUNNING, False
        else:
            host.domains[instance_id] = Domain(
                GuestState.RUNNING, ram_mb, True, since_s=self.clock.monotonic_s(), nics=nics
            )
            host.used_mb += ram_mb
            console = host.store.consoles.setdefault(instance_id, [])
            console.append(f"{'RESUMED' if domain is not None and domain.saved else 'BOOTED'} on {host.name}\n")
            del console[:-CONSOLE_LINES]
            for disk in volumes:
                self.open_volume(host, instance_id, disk)
        self.lives_on[instance_id] = host.name

    def open_volume(self, host: SimulatedHost, instance_id: str, disk: VolumeDisk) -> None:
        for other, name in self.lives_on.items():
            domain = self.hosts[name].domains.get(other)
            if other != instance_id and domain is not None and disk.volume_id in domain.volumes:
                raise self.violate(f"volume {disk.volume_id} is opened by guest {instance_id} and guest {other}")
        host.domains[instance_id].volumes[disk.volume_id] = disk
        self.openings.opened(host.name, disk)

    def close_volume(self, host: SimulatedHost, domain: Domain, volume_id: str) -> None:
        self.openings.closed(host.name, domain.volumes.pop(volume_id))

    def pause(self, domain: Domain) -> None:
        if domain.state is GuestState.RUNNING:
            domain.state, domain.suspended = GuestState.PAUSED, True

    def forget_memory(self, host: SimulatedHost, instance_id: str) -> None:
        domain = host.domains.get(instance_id)
        if domain is not None:
            domain.saved = False

    def _check_may_run(self, host: SimulatedHost, instance_id: str) -> None:
        holder = self.lives_on.get(instance_id, host.name)
        domain = host.domains.get(instance_id)
        if holder != host.name:
            raise self.violate(f"guest {instance_id} is run on {host.name} while it lives on {holder}")
        if instance_id not in host.store.disks:
            raise self.violate(f"guest {instance_id} is run on {host.name} without its disk")
        if self.roots.pool_of(instance_id) not in ("", host.resources.root_pool):
            raise self.violate(f"guest {instance_id} is run on {host.name}, which does not see its root disk")
        if domain is not None and domain.is_husk and domain.state is GuestState.PAUSED:
            raise self.violate(f"the husk of guest {instance_id} on {host.name} is resumed: its disk has gone on")

    def end(self, host: SimulatedHost, instance_id: str, why: GuestEnd) -> None:
        """Its process on that host ends; a definition stays."""
        domain = host.domains.get(instance_id)
        if domain is None or domain.state is GuestState.SHUTOFF:
            return
        self._end_half(host, instance_id, why)
        domain.state, domain.post_copy = GuestState.SHUTOFF, PostCopy.NONE
        for volume_id in tuple(domain.volumes):
            self.close_volume(host, domain, volume_id)
        host.used_mb -= domain.ram_mb
        if self.lives_on.get(instance_id) == host.name:
            if why not in LEGAL_ENDS:
                raise self.violate(f"guest {instance_id} is lost on {host.name} by {why}: it lived nowhere else")
            del self.lives_on[instance_id]
            if why is GuestEnd.HOST_CRASH:
                self.lost_with_host[instance_id] = host.name

    def _end_half(self, host: SimulatedHost, instance_id: str, why: GuestEnd) -> None:
        """Of a guest in post-copy: the other one is lost with it, and stands still."""
        copy = self.copies.get(instance_id)
        if copy is None or not copy.is_split:
            return
        if why is GuestEnd.RELEASE or (why is GuestEnd.STOP and copy.connected.is_set()):
            raise self.violate(f"guest {instance_id} is lost by {why} of its half on {host.name}: the other is there")
        self.lost_in_post_copy[instance_id] = host.name
        self.fail_copy(copy, f"The half of the guest on host {host.name} is gone.")
        self._end_copy(copy)

    def forget(self, host: SimulatedHost, instance_id: str) -> None:
        """Drop a definition that does not run."""
        domain = host.domains.get(instance_id)
        if domain is not None and domain.state is GuestState.SHUTOFF:
            self._forget(host, instance_id)

    def _forget(self, host: SimulatedHost, instance_id: str) -> None:
        domain = host.domains.pop(instance_id, None)
        if domain is not None and domain.state is not GuestState.SHUTOFF:
            host.used_mb -= domain.ram_mb
            for volume_id in tuple(domain.volumes):
                self.close_volume(host, domain, volume_id)

    def use_base(self, host: SimulatedHost, image: ImageRef) -> None:
        """A disk is about to be made on it. The host may forget it then: the next disk wants it anew."""
        if host.bases.get(image.sha512) != image.sha512:
            raise self.violate(f"a disk is made on {host.name} on what is not image {image.id}")
        if self.happens(self.faults.base_swept):
            del host.bases[image.sha512]

    def make_disk(self, store: Store, instance_id: str, disk_gb: int) -> None:
        if instance_id not in store.disks:
            store.disks[instance_id] = disk_gb
            store.used_gb += disk_gb
            self.disks_changed()

    def keep_disk(self, store: Store, instance_id: str, mark: str) -> None:
        if (instance_id, mark) not in store.kept:
            store.kept[instance_id, mark] = store.disks[instance_id]
            store.used_gb += store.disks[instance_id]

    def grow_root(self, store: Store, instance_id: str, size_gb: int) -> None:
        grows_gb = max(0, size_gb - store.disks[instance_id])
        store.disks[instance_id] += grows_gb
        store.used_gb += grows_gb

    def restore_disk(self, host: SimulatedHost, instance_id: str, mark: str) -> None:
        """The disk that a guest has open is not exchanged under it, on whichever host of the store it lives."""
        store, holder = host.store, self.lives_on.get(instance_id)
        if (instance_id, mark) not in store.kept:
            return
        if holder is not None and self.hosts[holder].store is store:
            raise self.violate(f"the disk of guest {instance_id} is exchanged while it lives on {holder}")
        store.used_gb -= store.disks[instance_id]
        store.disks[instance_id] = store.kept.pop((instance_id, mark))

    def forget_kept(self, store: Store, instance_id: str, mark: str) -> None:
        store.used_gb -= store.kept.pop((instance_id, mark), 0)

    def delete_files(self, store: Store, instance_id: str) -> None:
        holder = self.lives_on.get(instance_id)
        if holder is not None and self.hosts[holder].store is store and instance_id in store.disks:
            raise self.violate(f"the disk of guest {instance_id} is deleted while it lives on {holder}")
        store.used_gb -= store.disks.pop(instance_id, 0)
        store.consoles.pop(instance_id, None)
        store.drives.pop(instance_id, None)
        store.images.pop(instance_id, None)
        store.marks.pop(instance_id, None)
        store.behind.pop(instance_id, None)
        store.past.discard(instance_id)
        for mark in [mark for of, mark in store.kept if of == instance_id]:
            self.forget_kept(store, instance_id, mark)
        for kept in (store.copies, store.spares):
            for key in [key for key in kept if key[0] == instance_id]:
                kept.pop(key)
        self.disks_changed()

    def delete_root(self, pool: str, instance_id: str) -> None:
        """Its root disk in that pool, which every host of it sees."""
        if pool and self.roots.pool_of(instance_id) == pool:
            if instance_id in self.lives_on:
                raise self.violate(f"the root disk of guest {instance_id} is deleted while it lives")
            self.roots.delete(instance_id)

    def resume_all(self, but: set[str]) -> None:
        """An operator resumes every guest that a move has left paused, on every host."""
        for instance_id, name in sorted(self.lives_on.items()):
            domain = self.hosts[name].domains[instance_id]
            is_left = domain.state is GuestState.PAUSED and not domain.suspended
            if is_left and instance_id not in self.copies and instance_id not in but:
                self.run(self.hosts[name], instance_id, domain.ram_mb)
                self.hint(self.hosts[name], instance_id)

    # -- copies ---------------------------------------------------------------------------------------------------
    def begin_copy(self, copy: GuestCopy) -> None:
        self.copies[copy.instance_id] = copy
        self.own(self._carry(copy))

    async def _carry(self, copy: GuestCopy) -> None:
        spans = self.durations
        await self.take(spans.arrive)
        if copy.ended.done() or not self._arrive(copy):
            return
        will_fail = self.happens(self.faults.copy_fails)
        await self._copy_memory(copy, self.chance.uniform(0.0, 1.0) if will_fail else 1.0)
        if will_fail:
            self.fail_copy(copy, "The copy failed: the data stream broke.")
        if copy.ended.done():
            return
        copy.source.domains[copy.instance_id].state = GuestState.PAUSED
        await self.take(spans.switch)
        if copy.ended.done():
            return
        self._switch(copy)
        if copy.wants_post_copy:
            await self._copy_the_rest(copy)
        elif self.happens(self.faults.half_switched):
            self.fail_copy(copy, "The hypervisor's connection broke during the copy.")
            return
        await self.take(spans.tail)
        if not copy.ended.done():
            self._forget(copy.source, copy.instance_id)
            self._end_copy(copy)

    async def _copy_memory(self, copy: GuestCopy, share: float) -> None:
        """Until the guest can be switched, or goes on at the destination without all of it."""
        domain = copy.source.domains[copy.instance_id]
        passes = copy.passes = Passes.of(domain.ram_mb, copy.target, self.link_bytes_s)
        writing = self.writing.get(copy.instance_id)
        if writing is None:
            shortest, longest = self.durations.copy
            left_s = share * self.chance.uniform(shortest, longest) if longest > 0.0 else 0.0
            passes.link_bytes_s = max(1, int(passes.total_bytes / max(left_s, 0.001)))
            while left_s > 0.0 and not copy.ended.done() and not copy.wants_post_copy:
                step_s = min(passes.next_s(), left_s) if copy.target.policy is Policy.POST_COPY else left_s
                await self.clock.sleep(step_s)
                passes.advance(step_s, STILL)
                left_s -= step_s
            return
        while not copy.ended.done() and not copy.wants_post_copy:
            step_s = passes.next_s()
            await self.clock.sleep(step_s)
            if passes.advance(step_s, writing if domain.state is GuestState.RUNNING else STILL):
                return

    async def _copy_the_rest(self, copy: GuestCopy) -> None:
        """In post-copy: the guest runs at the destination, and is lost with either half until its memory is there."""
        assert copy.passes is not None
        copy.is_split = True
        copy.connected.set()
        halves = [host.domains[copy.instance_id] for host in (copy.source, copy.destination)]
        for half in halves:
            half.post_copy = PostCopy.ACTIVE
        copy.passes.remaining_bytes, copy.passes.written_bytes = (
            copy.passes.remaining_bytes + copy.passes.written_bytes,
            0,
        )
        while copy.passes.remaining_bytes > 0 and not copy.ended.done():
            await copy.connected.wait()
            step_s = copy.passes.next_s()
            await self.clock.sleep(step_s)
            if copy.connected.is_set() and not copy.ended.done():
                if self.happens(self.faults.post_copy_cut):
                    self.fail_copy(copy, "The connection between the two hosts broke.")
                else:
                    copy.passes.advance(step_s, STILL)
        if not copy.ended.done():
            copy.is_split = False
            for half in halves:
                half.post_copy = PostCopy.NONE

    def reconnect(self, copy: GuestCopy) -> None:
        """The two halves of a guest in post-copy."""
        for host in (copy.source, copy.destination):
            host.domains[copy.instance_id].post_copy = PostCopy.ACTIVE
        copy.connected.set()

    def _arrive(self, copy: GuestCopy) -> bool:
        """The destination's half appears, paused; an unexpected one is ended unrun."""
        host = copy.destination
        known = host.domains.get(copy.instance_id)
        if known is not None and known.state is not GuestState.SHUTOFF:
            self.fail_copy(copy, f"Guest {copy.instance_id} is on host {host.name} already.")
            return False
        if copy.instance_id not in host.admitted:
            self.fail_copy(copy, f"Host {host.name} does not expect guest {copy.instance_id}.")
            return False
        there = copy.source.domains[copy.instance_id]
        if copy.instance_id not in host.store.disks:
            self.fail_copy(copy, f"Host {host.name} does not see the disk of guest {copy.instance_id}.")
            return False
        if self.roots.pool_of(copy.instance_id) not in ("", host.resources.root_pool):
            self.fail_copy(copy, f"Host {host.name} does not see the root disk of guest {copy.instance_id}.")
            return False
        opens = {**there.volumes, **{disk.volume_id: disk for disk in copy.volumes if disk.volume_id in there.volumes}}
        for disk in opens.values():
            if why := self.openings.why_not(host.name, disk):
                self.fail_copy(copy, f"Volume {disk.volume_id} cannot be opened on host {host.name}: {why}.")
                return False
        copy.has_arrived = True
        ram_mb = there.ram_mb
        now_s = self.clock.monotonic_s()
        host.domains[copy.instance_id] = Domain(
            GuestState.PAUSED,
            ram_mb,
            known is not None,
            since_s=now_s,
            nics=there.nics,
        )
        for disk in opens.values():
            self.open_volume(host, copy.instance_id, disk)
        host.used_mb += ram_mb
        self.hint(host, copy.instance_id)
        return True

    def _switch(self, copy: GuestCopy) -> None:
        """One instant: the guest lives there and no longer here."""
        instance_id, destination = copy.instance_id, copy.destination
        if self.lives_on.get(instance_id) != copy.source.name or instance_id not in destination.store.disks:
            raise self.violate(f"guest {instance_id} or its disk left {copy.source.name} while it was copied")
        copy.has_switched = True
        copy.source.domains[instance_id].is_husk = True
        arrived = destination.domains[instance_id]
        is_paused = self.happens(self.faults.paused_arrival)
        arrived.state, arrived.is_defined = GuestState.PAUSED if is_paused else GuestState.RUNNING, True
        self.lives_on[instance_id] = destination.name
        goes_along = copy.files.disks or self.roots.pool_of(instance_id)
        if goes_along and (image_id := copy.source.store.images.get(instance_id)):
            destination.store.images[instance_id] = image_id
        if copy.files.disks:
            if destination.store is copy.source.store or instance_id not in destination.store.marks:
                raise self.violate(f"the disk of {instance_id} was copied into files that are not of its move")
            copy.source.store.past.add(instance_id)
        if copy.files.is_on_base:
            destination.store.behind[instance_id] = copy.files.disks[0].base
        destination.admitted.pop(instance_id, None)
        self.hint(copy.source, instance_id)
        self.hint(destination, instance_id)

    def fail_copy(self, copy: GuestCopy, reason: str) -> None:
        """It ends here and now. Before the switch the guest runs on at its source; after it a husk stays there."""
        if copy.ended.done():
            return
        if copy.is_split:
            copy.connected.clear()
            for host in (copy.source, copy.destination):
                half = host.domains.get(copy.instance_id)
                if half is not None and half.post_copy is not PostCopy.NONE:
                    half.post_copy = PostCopy.FAILED
            copy.failed(reason)
            return
        if not copy.has_switched:
            if copy.has_arrived:
                half = copy.destination.domains[copy.instance_id]
                if half.is_defined:
                    self.end(copy.destination, copy.instance_id, GuestEnd.RELEASE)
                else:
                    self._forget(copy.destination, copy.instance_id)
            left = copy.source.domains.get(copy.instance_id)
            if left is not None and left.state is GuestState.PAUSED:
                left.state = GuestState.RUNNING
        copy.failed(reason)
        self._end_copy(copy)

    def _end_copy(self, copy: GuestCopy) -> None:
        self.copies.pop(copy.instance_id, None)
        copy.ended.set_result(None)
        copy.connected.set()
        self.hint(copy.source, copy.instance_id)
        self.hint(copy.destination, copy.instance_id)

    def job(self, host: SimulatedHost, instance_id: str) -> GuestJob:
        copy = self.copies.get(instance_id)
        if copy is None:
            return GuestJob.NONE
        if copy.source is host:
            return GuestJob.OUTGOING
        is_coming = copy.destination is host and copy.has_arrived and (copy.is_split or not copy.has_switched)
        return GuestJob.INCOMING if is_coming else GuestJob.NONE

    # -- time, chance and hints -----------------------------------------------------------------------------------
    def happens(self, probability: float) -> bool:
        return probability > 0.0 and self.chance.uniform(0.0, 1.0) < probability

    async def take(self, span: Span, share: float = 1.0) -> None:
        if span[1] > 0.0:
            await self.clock.sleep(share * self.chance.uniform(*span))

    def hint(self, host: SimulatedHost, instance_id: str) -> None:
        if host.changed is not None and not self.happens(self.faults.hint_lost):
            host.changed(instance_id)

    def own(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """A task of the world, which no agent's death cancels. What it violated is in `violations`."""
        number = self._task_number = self._task_number + 1
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks[number] = task

        def ended(done: asyncio.Task[None]) -> None:
            del self._tasks[number]
            if not done.cancelled():
                done.exception()  # retrieved: the waiting caller has it too, and a violation is on record

        task.add_done_callback(ended)
        return task
