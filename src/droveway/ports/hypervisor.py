"""What an agent asks of the hypervisor on its own host.

Guarantees every driver gives (tests/drivers/test_hypervisor_contract.py and _resources.py hold them):
- every verb is idempotent: doing it twice leaves the world as doing it once, and the second call does not fail;
- an answer is read from the hypervisor at the time of the call; nothing is remembered from an earlier one, save
  that a `begin_migration` whose call has not yet returned counts as an outgoing job;
- `HypervisorRefused` is the hypervisor's own no (the sentence says why); `HypervisorDown` means it did not answer
  and may or may not have acted; after it is back the driver works again without help;
- a guest has the network interfaces of its spec and no others, each plugged as its device whatever host it runs on,
  but for what was plugged and unplugged since it started, which a move takes along; a refusal of either leaves the
  guest with what it had; a
  config drive is read-only, and goes wherever its disk goes;
- a guest whose spec names NUMA cells or a machine type is held to them while it runs; where this host has not those
  cells, CPUs or machines, it is refused and nothing is left;
- a volume of a guest is opened in the format that its spec says, whatever its bytes are, by a way that this host's own
  configuration knows; it bears the volume's id as its serial number, and the same device after every start. Where it
  cannot be opened, the guest is refused it and has what it had. A guest whose write fails for want of room is paused,
  and goes on when it is resumed;
- a root disk whose spec names a pool of Ceph lies there and not on the instance store, is made of its image at once
  where the pool has that, and is the same whichever host opens it; a host that does not work with that pool refuses;
- no verb blocks the event loop; long ones run in a bounded pool;
- what is copied to a host that does not see the store lies there in files that bear the mark of their saga until the
  guest has arrived, so that no other files are ever taken for them, and deleted;
- a migration that a dead client began goes on, and is seen by the next client as an outgoing job;
- a guest whose memory lies on two hosts is ended on neither by a verb of live migration: `abort_migration` leaves it,
  `dismiss` and `release` leave its halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from droveway.domain.consoles import ConsoleKind
from droveway.domain.diagnostics import GuestDiagnostics
from droveway.domain.faults import Fault
from droveway.domain.guest_data import Document
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.migration_ladder import CopyTarget
from droveway.domain.model import CopyChange, Guest, GuestSpec, LocalFiles, MigrationEndpoint, Nic, Resources, SpareDisk
from droveway.domain.move_checks import CheckAnswer
from droveway.domain.move_prediction import GuestLoad
from droveway.domain.resources import HostUsage
from droveway.domain.volume.disks import VolumeDisk
from droveway.ports.consoles import ConsoleStream
from droveway.ports.replies import DiskCopied

FROZEN_MAX_S = 2.0
NO_FILES = LocalFiles()
AS_USUAL = CopyTarget()


class HypervisorRefused(Fault):
    """The hypervisor said no."""


class HypervisorDown(Fault):
    """The hypervisor did not answer: it may or may not have acted."""


class Hypervisor(Protocol):
    async def open(self, changed: Callable[[str], None], connection: Callable[[bool, str], None]) -> None:
        """Start. `changed(instance_id)` is called in the loop when a guest may have changed (a hint: may be lost or
        doubled); `connection(is_up, sentence)` when the hypervisor's connection is lost or back. Returns at once even
        when the hypervisor is down; the driver connects by itself."""
        ...

    async def close(self) -> None: ...

    async def resources(self) -> Resources:
        """What it has. Cheap: asked every few seconds."""
        ...

    def store_trouble(self) -> str:
        """Why the instance store is not to be waited for: it does not answer; empty while it does. Never waits. The
        sentence stays the same as long as the trouble does. `resources` carries it, and that a store takes no files."""
        ...

    async def measure(self) -> HostUsage:
        """What is used now, by the host and by each guest of ours that runs: one question about all of them."""
        ...

    async def guests(self) -> dict[str, Guest]:
        """Every guest of ours here, by instance id. Domains that Droveway did not make are left out."""
        ...

    async def guest(self, instance_id: str) -> Guest:
        """That guest; state `absent` when there is no domain of it."""
        ...

    async def prepare(
        self, spec: GuestSpec, ticket: ImageTicket | None = None, documents: Sequence[Document] = ()
    ) -> None:
        """Make its files (instance directory, disk from the image, checked against sha512 and virtual size; where its
        spec has a config drive, that of `documents`). What is there is left as it is: a guest's drive never changes.
        Starts nothing. Refused: bad image, no space, unknown format. TicketWanted where the image is to be fetched:
        asked again with a ticket, it goes on from there."""
        ...

    def progress(self, spec: GuestSpec) -> str:
        """What `prepare` is waiting for, for people; empty where it is not known. Never waits."""
        ...

    async def start(self, spec: GuestSpec) -> None:
        """Run it; nothing to do when it runs. A paused guest is resumed, one whose memory was saved goes on from there.
        Refused when its files are missing."""
        ...

    async def stop(self, instance_id: str, grace_s: float) -> None:
        """Ask the guest to power off, wait at most `grace_s`, then end it. Its files stay; memory that was saved does
        not."""
        ...

    async def pause(self, instance_id: str) -> None:
        """Hold it where it is, in memory; nothing to do when it is paused. Refused when it does not run, and in the
        middle of a move."""
        ...

    async def unpause(self, instance_id: str) -> None:
        """Let it go on; nothing to do when it runs. Refused when it is neither paused nor running, and in the middle of
        a move."""
        ...

    async def suspend(self, instance_id: str) -> None:
        """Save its memory on this host and end it; nothing to do when that is done. Refused when there is no memory to
        save, and in the middle of a move."""
        ...

    async def inject_nmi(self, instance_id: str) -> None:
        """Interrupt it as the button of a machine does that makes its operating system dump its memory. Said twice it
        is done twice. Refused when it does not run."""
        ...

    async def plug(self, instance_id: str, nic: Nic, model: str) -> None:
        """Give a guest that runs one interface more; nothing to do when it has it, or does not run."""
        ...

    async def unplug(self, instance_id: str, nic: Nic, within_s: float) -> None:
        """Take an interface from a guest that runs; nothing to do when it has it not, or does not run. The guest itself
        must let go of it: refused when it has not within `within_s`. It may still do so later."""
        ...

    async def attach_disk(self, instance_id: str, disk: VolumeDisk) -> None:
        """Give a guest that runs one volume more; nothing to do when it has it, or does not run."""
        ...

    async def detach_disk(self, instance_id: str, volume_id: str, within_s: float) -> None:
        """As `unplug`, of a volume."""
        ...

    async def grow_disk(self, instance_id: str, volume_id: str, size_gb: int) -> None:
        """Let a guest that runs see that a volume of it has that size now; nothing to do when it sees it, or does not
        run. Refused when it has not got it."""
        ...

    async def freeze(self, instance_id: str) -> bool:
        """Let the guest's agent write out and hold its file systems; False when there is none that answers. They are
        held for FROZEN_MAX_S at most, whatever becomes of the client."""
        ...

    async def thaw(self, instance_id: str) -> None:
        """Let them go on; nothing to do when they are not held."""
        ...

    async def remove(self, instance_id: str, root_pool: str = "") -> None:
        """End it, forget it, delete its files. For good. `root_pool`: its root disk there goes too, which other hosts
        see as well; refused while one of them has it open."""
        ...

    async def copy_disk(self, instance_id: str, copy: str) -> DiskCopied:
        """Make a file of its root disk as it is at one moment, whole in itself, while the guest runs on; what is made
        already is left. An earlier copy of another name goes. Where the client dies the hypervisor goes on, and the
        next call waits for that."""
        ...

    async def send_copy(self, instance_id: str, copy: str, ticket: ImageTicket | None) -> None:
        """Give it to an API as the data of the image of that name. Raises TicketWanted."""
        ...

    async def drop_copy(self, instance_id: str, copy: str) -> None:
        """Delete it, made or half made."""
        ...

    async def prepare_disk(self, spec: GuestSpec, disk: SpareDisk, ticket: ImageTicket | None = None) -> None:
        """As `prepare`, of one disk that lies beside the guest's own."""
        ...

    async def drop_disk(self, instance_id: str, disk: SpareDisk) -> None:
        """Delete it. Of a guest that begins from it: refused while that runs."""
        ...

    async def replace_disk(self, spec: GuestSpec, documents: Sequence[Document], keeps_ephemeral: bool) -> None:
        """End the guest, and let the disk that was made for its rebuild be its root disk, if there is one; its config
        drive is made anew, and its other disks, unless they are kept."""
        ...

    async def keep_disk(self, instance_id: str, mark: str) -> None:
        """Copy its root disk, as it is, beside it under that mark; what is copied whole already is left. Refused while
        it runs or is paused, and where there is no room."""
        ...

    async def grow_root(self, instance_id: str, size_gb: int) -> None:
        """Let its root disk be at least so large. Refused while it runs or is paused."""
        ...

    async def restore_disk(self, instance_id: str, mark: str) -> None:
        """Let the copy of that mark be its root disk, in one step; nothing to do where there is none. Refused while it
        runs or is paused."""
        ...

    async def forget_kept(self, instance_id: str, mark: str) -> None:
        """Delete the copy of that mark, whole or half."""
        ...

    async def diagnostics(self, instance_id: str) -> GuestDiagnostics:
        """What it has used. Refused when it does not run."""
        ...

    async def console(self, instance_id: str, length_lines: int | None) -> str:
        """The last lines of its serial console; all that is kept (bounded at 256 KiB) when None."""
        ...

    async def open_console(self, instance_id: str, kind: ConsoleKind) -> ConsoleStream:
        """A client of that console of a guest that runs here. It ends when the guest ends or leaves. Nobody but this
        host reaches the console. A serial line takes one client at a time: a second one hears nothing until the first
        has closed. Refused when the guest does not run here, or was begun without such a console."""
        ...

    async def files(self) -> tuple[str, ...]:
        """The instances that have a directory on this host's instance store, running here or not, in order."""
        ...

    async def reaches(self, peer_uri: str, within_s: float) -> str:
        """Why the other hypervisor at that URI takes no connection from here; empty when it does. Only a connection is
        made, nothing is asked of it. Ends within `within_s`."""
        ...

    # -- live migration -------------------------------------------------------------------------------------------
    def endpoint(self) -> MigrationEndpoint:
        """How other hypervisors reach this one."""
        ...

    async def check_incoming(self, spec: GuestSpec, source_cpu_xml: str) -> tuple[CheckAnswer, ...]:
        """Whether this host could run that guest, check by check: no guest of that id running here, none that is held
        to NUMA cells (those of another host), a machine type it knows, the CPU, a way to open each of its volumes."""
        ...

    async def check_outgoing(self, instance_id: str) -> tuple[CheckAnswer, ...]:
        """Whether that guest could leave this host, check by check: it runs, waits for no disk that fails, and has no
        device of this host."""
        ...

    async def cpu_baseline(self, cpus: Sequence[str]) -> str:
        """The CPU that hosts of each of those can run, as this hypervisor describes it; empty where guests are
        emulated, and touch no host's. Refused where they have none in common."""
        ...

    async def compare_cpu(self, cpu_xml: str) -> CheckAnswer:
        """Whether a guest with that CPU could run here."""
        ...

    async def loads(self, instance_ids: Sequence[str], measure_s: int = 0) -> dict[str, GuestLoad]:
        """How much memory these guests have, and how fast they dirty it, of those that run here. With `measure_s` that
        is measured now, which takes as long; without, it is as it was measured last. The guests run on."""
        ...

    async def store_room_bytes(self, *, over_commits: bool) -> int:
        """How much the disks of guests that arrive may take on this host's instance store: what is free, or with
        `over_commits` False what would be free when every disk here had grown to its full size; less what is kept back
        for the host. May be below 0."""
        ...

    async def write_probe(self, name: str, *, in_pool: bool = False) -> None:
        """Write a test file on the instance store; with `in_pool`, a test object in the pool of root disks too."""
        ...

    async def sees_probe(self, name: str) -> bool:
        """Whether a test file written by another host is visible on this host's instance store."""
        ...

    async def sees_probe_in_pool(self, name: str) -> bool:
        """The same of the test object; False where it has no such pool."""
        ...

    async def remove_probe(self, name: str, *, in_pool: bool = False) -> None: ...

    async def root_disks(self) -> tuple[str, tuple[str, ...]]:
        """The pool of root disks that this host works with, and the instances of which there is one, whichever host
        they run on. Empty where it has no such pool."""
        ...

    async def local_files(self, instance_id: str) -> LocalFiles:
        """What of the guest lies on this host's instance store: its disks with their sizes, and its config drive."""
        ...

    async def prepare_arrival(
        self,
        spec: GuestSpec,
        files: LocalFiles,
        mark: str,
        room_bytes: int,
        ticket: ImageTicket | None,
        over_commits: bool = True,
    ) -> None:
        """Make files of that kind and size, into which another host's hypervisor copies what its own hold. Until
        `keep_arrival` they bear that mark. Refused where the guest has files here that bear none, or there is no room
        (store_room_bytes); and what bears another mark goes first. TicketWanted where the image behind a disk is to be
        fetched."""
        ...

    async def keep_arrival(self, instance_id: str) -> None:
        """The guest has arrived: its files are its own."""
        ...

    async def drop_files(self, instance_id: str, mark: str) -> None:
        """Delete its files: with a mark those alone that bear it. Refused while the guest is here, running or not
        ended."""
        ...

    async def admit(self, spec: GuestSpec) -> None:
        """Expect that guest to arrive. Until admitted, or after `dismiss`, an arriving guest is ended unrun."""
        ...

    async def dismiss(self, instance_id: str) -> None:
        """Expect it no longer: end a half-arrived (never a running) guest and forget its definition. Files on a shared
        store stay: they are the source's."""
        ...

    async def admitted(self) -> tuple[str, ...]:
        """The guests that are expected and have not arrived."""
        ...

    async def begin_migration(
        self, spec: GuestSpec, to: MigrationEndpoint, files: LocalFiles = NO_FILES, target: CopyTarget = AS_USUAL
    ) -> None:
        """Begin to move the guest, and return once it is under way (job `outgoing` is visible). Nothing to do when it
        is under way already, or when the guest is no longer here. `files`: its disks that the other host does not see,
        and whose contents are copied into those that were prepared there. `target`: what its guest is to bear."""
        ...

    async def adjust_migration(self, instance_id: str, change: CopyChange) -> None:
        """Change an outgoing copy; nothing to do when there is none, or it is so already. A guest that is paused for
        its copy goes on by itself where that ends, here or there. Post-copy is refused where the copy was begun without
        that policy, and before its memory is being copied."""
        ...

    async def resume_post_copy(self, spec: GuestSpec, to: MigrationEndpoint, files: LocalFiles = NO_FILES) -> None:
        """Connect the two halves of a guest again whose post-copy has failed, and return once that is under way.
        Nothing to do when it has not failed, or is being resumed."""
        ...

    async def abort_migration(self, instance_id: str) -> None:
        """End an outgoing job if there is one and wait until it has ended, one way or the other."""
        ...

    async def release(self, instance_id: str) -> None:
        """After the guest has left: forget what is left of it here (a definition, a paused husk), never a running
        guest, never files on a shared store."""
        ...


class MadeHypervisor(NamedTuple):
    """What a driver makes for one host. `guests_boot_id`: what its guests end with, if that is not the host's boot."""

    hypervisor: Hypervisor
    guests_boot_id: str = ""
