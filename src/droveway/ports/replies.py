"""What a host answers to a command: one type a verb, which the verb names, or one of the failures.

Every type has its own tag on the wire. A field that is bounded says so in its type (domain/wire.py).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from droveway.domain.diagnostics import GuestDiagnostics
from droveway.domain.metrics import TaskStatus
from droveway.domain.model import Guest, LocalFiles, MigrationEndpoint
from droveway.domain.move_prediction import GuestLoad
from droveway.domain.network_plan import Address, Id, Name, NotInForce
from droveway.domain.volume.disks import DiskSource
from droveway.domain.volume.model import StoragePool, StoredVolume
from droveway.domain.wire import FEW, LIST, Count, Number, Reason, ShortText, Text
from droveway.ports.move_verbs import (
    ArrivalsTried,
    CpuBaselined,
    CpuCompared,
    DeparturesTried,
    ProbesRemoved,
    ProbesSeen,
)

FILES_MAX = 65_536  # what one message holds


class GuestStatus(msgspec.Struct, frozen=True, tag="guest"):
    """Done, and how the guest stands now. `boot_id`: of the host."""

    guest: Guest
    boot_id: ShortText = ""


class GuestAdmitted(msgspec.Struct, frozen=True, tag="guest_admitted"):
    """It is expected from now on, at that endpoint."""

    guest: Guest
    endpoint: MigrationEndpoint
    boot_id: ShortText = ""


class GuestFrozen(msgspec.Struct, frozen=True, tag="guest_frozen"):
    """Whether its file systems are held now; a guest without an agent holds none."""

    guest: Guest
    held: bool
    boot_id: ShortText = ""


class SourceChecked(msgspec.Struct, frozen=True, tag="source_checked"):
    """How the guest stands, whether the test file of the other host is visible, and its test object in the pool of root
    disks; and how much there is to send, which an agent of before does not say."""

    guest: Guest
    shared_store: bool
    boot_id: ShortText = ""
    shared_pool: bool = False
    load: GuestLoad | None = None


class LocalFilesRead(msgspec.Struct, frozen=True, tag="local_files"):
    files: LocalFiles


class ConsoleText(msgspec.Struct, frozen=True, tag="console_text"):
    text: Text


class DiskCopied(msgspec.Struct, frozen=True, tag="disk_copied"):
    """A copy of a guest's root disk lies on its host: so many bytes, of that format."""

    size_bytes: Count
    disk_format: ShortText


class Diagnostics(msgspec.Struct, frozen=True, tag="diagnostics"):
    """What a guest has used, as its hypervisor counts."""

    diagnostics: GuestDiagnostics


class ConsoleOpened(msgspec.Struct, frozen=True, tag="console_opened"):
    """The console is connected, and the API has taken it."""


class PingResult(msgspec.Struct, frozen=True, tag="agent_answers"):
    """The agent's process is running."""

    boot_id: ShortText = ""


class ReachResult(msgspec.Struct, frozen=True, tag="peer_tried"):
    """Whether another hypervisor took a connection; `is_cut_off`: neither did one that is known to be alive, so this
    host knows nothing."""

    reached: bool
    reason: Reason = ""  # why not
    is_cut_off: bool = False


class Tasks(msgspec.Struct, frozen=True, tag="tasks"):
    tasks: Annotated[tuple[TaskStatus, ...], LIST] = ()


class HostInventory(msgspec.Struct, frozen=True, tag="belongings"):
    """Everything of ours on a host at one moment. `files`: the instances that have a directory on its instance store,
    the first FILES_MAX of them; hosts that share the store see the same."""

    guests: Annotated[tuple[Guest, ...], LIST] = ()
    admitted: Annotated[tuple[ShortText, ...], LIST] = ()
    files: Annotated[tuple[ShortText, ...], LIST] = ()
    boot_id: ShortText = ""


class RootDisks(msgspec.Struct, frozen=True, tag="root_disks"):
    """The instances of which a disk lies in that pool (FSID/NAME), the first FILES_MAX of them; every host of the pool
    sees the same."""

    pool: ShortText = ""
    instance_ids: Annotated[tuple[ShortText, ...], LIST] = ()


class NetworksApplied(msgspec.Struct, frozen=True, tag="networks_applied"):
    """Which revision of its plan is in force on the host, and what of it is not. -1: none. `tunnel_address` and
    `physical_networks` are the host's own; empty: it has no part in such networks. `wants`: the instances of its plan
    of which it has not been told what they are told of themselves. `begun`: a revision that it has taken and not made
    yet; -1: none. `takes_changes`: its agent knows ChangeNetworks."""

    revision: Number
    failed: Annotated[tuple[NotInForce, ...], LIST] = ()
    tunnel_address: Address = ""
    physical_networks: Annotated[tuple[Name, ...], FEW] = ()
    boot_id: ShortText = ""
    wants: Annotated[tuple[Id, ...], LIST] = ()
    begun: Number = -1
    takes_changes: bool = False


class Connections(msgspec.Struct, frozen=True, tag="connections"):
    """Those of one port, as text for another host."""

    saved: Text = ""


class ConnectionsRestored(msgspec.Struct, frozen=True, tag="connections_restored"):
    pass


class VolumeAdmitted(msgspec.Struct, frozen=True, tag="volume_admitted"):
    """The host that was named may open it, in this way."""

    source: DiskSource


class VolumeDone(msgspec.Struct, frozen=True, tag="volume_done"):
    """It is as it was to be."""


class VolumeSent(msgspec.Struct, frozen=True, tag="volume_sent"):
    """An API has so many bytes of it."""

    size_bytes: Count


class VolumeBackedUp(msgspec.Struct, frozen=True, tag="volume_backed_up"):
    """Its backup is in the store: so many chunks, of which so many bytes were put for it."""

    object_count: Count = 0
    stored_bytes: Count = 0
    read_bytes: Count = 0


class BackupDone(msgspec.Struct, frozen=True, tag="backup_done"):
    """Nothing of it is in the store any more."""


class PoolStatus(msgspec.Struct, frozen=True, tag="pool"):
    """How the backend stands at this moment."""

    pool: StoragePool


class VolumeList(msgspec.Struct, frozen=True, tag="volumes"):
    """Every volume of ours that lies on the backend."""

    volumes: Annotated[tuple[StoredVolume, ...], LIST] = ()


# -- failures: any verb may meet them ---------------------------------------------------------------------------------
class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The hypervisor or a check said no."""

    reason: Reason


class Working(msgspec.Struct, frozen=True, tag="working"):
    """It takes longer; ask the same again."""

    reason: Reason


class ImageTicketNeeded(msgspec.Struct, frozen=True, tag="image_ticket_needed"):
    """It is at work once it is asked again with a ticket for the image, in which this challenge is."""

    reason: Reason
    challenge: ShortText


class StaleFence(msgspec.Struct, frozen=True, tag="stale_fence"):
    """A newer generation was here."""

    reason: Reason
    generation: Number


class Unavailable(msgspec.Struct, frozen=True, tag="unavailable"):
    """The hypervisor, its store or the disk of the fences does not answer: no verdict on what was done."""

    reason: Reason


FAILURES = (Refused, Working, ImageTicketNeeded, StaleFence, Unavailable)
Answer = (
    GuestStatus
    | GuestAdmitted
    | GuestFrozen
    | SourceChecked
    | LocalFilesRead
    | ConsoleText
    | DiskCopied
    | Diagnostics
    | ConsoleOpened
    | PingResult
    | ReachResult
    | Tasks
    | HostInventory
    | RootDisks
    | NetworksApplied
    | Connections
    | ConnectionsRestored
    | VolumeAdmitted
    | VolumeDone
    | VolumeSent
    | VolumeBackedUp
    | BackupDone
    | PoolStatus
    | VolumeList
    | ArrivalsTried
    | DeparturesTried
    | ProbesSeen
    | ProbesRemoved
    | CpuBaselined
    | CpuCompared
    | Refused
    | Working
    | ImageTicketNeeded
    | StaleFence
    | Unavailable
)
