"""How control and agents talk. Messages are hints: truth is in the store (law 1).

Guarantees every driver gives:
- a message may be lost, doubled or late, never altered; it is bounded (MAX_MESSAGE_BYTES);
- `command` ends: an Answer, or `Unreachable` at the latest after `timeout_s`, which says nothing about what was done;
- a queue towards a slow peer is bounded; when it is full the message is dropped and counted.

More than 400 lines because every message between them stands here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol, get_args

import msgspec

from droveway.domain import wire
from droveway.domain.consoles import ConsoleKind
from droveway.domain.guest_data import Documents, GuestData
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.metrics import TaskMetrics
from droveway.domain.migration_ladder import CopyTarget
from droveway.domain.model import (
    CopyChange,
    Guest,
    GuestSpec,
    LocalFiles,
    MigrationEndpoint,
    Nic,
    Resources,
    RootPool,
    SpareDisk,
    Subject,
)
from droveway.domain.network_change import PlanChange
from droveway.domain.network_plan import HostNetworks
from droveway.domain.resources import HostUsage
from droveway.domain.service_kinds import COMPUTE
from droveway.domain.volume.disks import VolumeDisk
from droveway.domain.volume.model import StoragePool
from droveway.domain.wire import (
    FEW,
    LIST,
    Count,
    GuestPasswords,
    HostName,
    Number,
    PrintableText,
    Reason,
    ServiceName,
    ShortText,
    Text,
)
from droveway.ports.kept_disk_verbs import ForgetKept, GrowRoot, KeepDisk, ListRootDisks, RestoreDisk
from droveway.ports.move_verbs import (
    BEFORE_MOVES,
    BaselineCpu,
    CompareCpu,
    LookForProbes,
    RemoveProbes,
    TryArrivals,
    TryDepartures,
)
from droveway.ports.replies import (
    FAILURES,
    Answer,
    Connections,
    ConnectionsRestored,
    ConsoleOpened,
    ConsoleText,
    Diagnostics,
    DiskCopied,
    GuestAdmitted,
    GuestFrozen,
    GuestStatus,
    HostInventory,
    LocalFilesRead,
    NetworksApplied,
    PingResult,
    ReachResult,
    SourceChecked,
    Tasks,
)
from droveway.ports.verb import VerbWithReply
from droveway.ports.volume_verbs import (
    AdmitVolume,
    BackupVolume,
    CreateVolume,
    DeleteBackup,
    DeleteSnapshot,
    DeleteVolume,
    ExtendVolume,
    FillVolume,
    ForgetBackup,
    ListVolumes,
    ReadPool,
    RestoreBackup,
    RevertVolume,
    SendVolume,
    SnapshotVolume,
    WithdrawVolume,
)

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
PROTOCOL_VERSION = 3
# The oldest that is still understood: one of 2 knows neither subjects nor the types of replies, and does not say which
# service of its host it is.
LEAST_PROTOCOL = 3
UPGRADE_RETRY_S = 60.0  # an agent of another version asks again so rarely: an operator has to upgrade first


def wrong_protocol(spoken: int) -> str:
    """Why an agent that speaks that version is refused; empty when it is not."""
    if LEAST_PROTOCOL <= spoken <= PROTOCOL_VERSION:
        return ""
    ours = f"{LEAST_PROTOCOL} to {PROTOCOL_VERSION}" if LEAST_PROTOCOL < PROTOCOL_VERSION else f"{PROTOCOL_VERSION}"
    older = "droveway on that host" if spoken < LEAST_PROTOCOL else "control"
    return f"its agent speaks protocol {spoken}, control {ours}: upgrade {older}"


# -- verbs: what control asks of a host ---------------------------------------------------------------------------
class Inspect(VerbWithReply[GuestStatus], frozen=True, tag="inspect"):
    """Read-only: the guest as the hypervisor sees it now."""


class Prepare(VerbWithReply[GuestStatus], frozen=True, tag="prepare"):
    """Make its files. `ticket`: for the data of its image, once the host has answered that it needs one. `documents`:
    of its config drive, where its spec has one; they are in no other command, and in no saga's notes."""

    spec: GuestSpec
    ticket: ImageTicket | None = None
    documents: Documents = ()


class Start(VerbWithReply[GuestStatus], frozen=True, tag="start"):
    spec: GuestSpec


class Stop(VerbWithReply[GuestStatus], frozen=True, tag="stop"):
    grace_s: float


class PowerCycle(VerbWithReply[GuestStatus], frozen=True, tag="power_cycle"):
    """Off and on again; the guest is asked to power off when `grace_s` is above 0."""

    spec: GuestSpec
    grace_s: float = 0.0


class Pause(VerbWithReply[GuestStatus], frozen=True, tag="pause"):
    pass


class Unpause(VerbWithReply[GuestStatus], frozen=True, tag="unpause"):
    pass


class Suspend(VerbWithReply[GuestStatus], frozen=True, tag="suspend"):
    """Save its memory on the host and end it. `Start` goes on from there; `Stop` and `PowerCycle` forget it."""


class InjectNmi(VerbWithReply[GuestStatus], frozen=True, tag="inject_nmi"):
    """Make its operating system dump its memory."""


class CopyDisk(VerbWithReply[DiskCopied], frozen=True, tag="copy_disk"):
    """Make a file of its root disk as it is at one moment, while it runs on. `copy` names it."""

    copy: ShortText


class SendCopy(VerbWithReply[GuestStatus], frozen=True, tag="send_copy"):
    """Give that file to an API as the data of the image of that name. `ticket`: once the host has asked for one."""

    copy: ShortText
    ticket: ImageTicket | None = None


class DropCopy(VerbWithReply[GuestStatus], frozen=True, tag="drop_copy"):
    """Delete that file, made or half made."""

    copy: ShortText


class PrepareDisk(VerbWithReply[GuestStatus], frozen=True, tag="prepare_disk"):
    """Make a disk of the image in `spec` beside its own."""

    spec: GuestSpec
    disk: SpareDisk
    ticket: ImageTicket | None = None


class DropDisk(VerbWithReply[GuestStatus], frozen=True, tag="drop_disk"):
    disk: SpareDisk


class ReplaceDisk(VerbWithReply[GuestStatus], frozen=True, tag="replace_disk"):
    """End it; the disk that was made for its rebuild takes the place of its own, and its config drive is made anew of
    `documents`; its other disks are, unless they are kept."""

    spec: GuestSpec
    documents: Documents = ()
    keeps_ephemeral: bool = False


class ReadDiagnostics(VerbWithReply[Diagnostics], frozen=True, tag="read_diagnostics"):
    """Read-only: what it has used."""


class Plug(VerbWithReply[GuestStatus], frozen=True, tag="plug"):
    """One interface more, now; `model` is that of its device. A guest that does not run has it when it starts."""

    nic: Nic
    model: ShortText


class Unplug(VerbWithReply[GuestStatus], frozen=True, tag="unplug"):
    """One interface less. Refused when the guest has not let it go within `within_s`."""

    nic: Nic
    within_s: float


class AttachDisk(VerbWithReply[GuestStatus], frozen=True, tag="attach_disk"):
    """One volume more, now. A guest that does not run has it when it starts."""

    disk: VolumeDisk


class DetachDisk(VerbWithReply[GuestStatus], frozen=True, tag="detach_disk"):
    """One volume less. Refused when the guest has not let it go within `within_s`."""

    volume_id: ShortText
    within_s: float


class GrowDisk(VerbWithReply[GuestStatus], frozen=True, tag="grow_disk"):
    """A volume of it has that size now, and the guest is to see it."""

    volume_id: ShortText
    size_gb: Count


class Freeze(VerbWithReply[GuestFrozen], frozen=True, tag="freeze"):
    """Let it write out and hold its file systems, for a moment (ports/hypervisor.py: FROZEN_MAX_S)."""


class Thaw(VerbWithReply[GuestStatus], frozen=True, tag="thaw"):
    """Let them go on."""


class Remove(VerbWithReply[GuestStatus], frozen=True, tag="remove"):
    """What of it is on that host; and its root disk, where that lies in a pool which other hosts see as well."""

    root_pool: RootPool = ""


class CheckDestination(VerbWithReply[GuestStatus], frozen=True, tag="check_destination"):
    """Compare the CPU, refuse a guest of that id, write the test file. `asks_pool`: and the test object in the pool of
    its root disk, where it has one there."""

    spec: GuestSpec
    source_cpu_xml: str
    probe: str
    asks_pool: bool = True


class CheckSource(VerbWithReply[SourceChecked], frozen=True, tag="check_source"):
    """Does the guest run here and is the test file visible? `asks_pool`: and the test object."""

    probe: str
    asks_pool: bool = True


class RemoveProbe(VerbWithReply[GuestStatus], frozen=True, tag="remove_probe"):
    probe: str
    in_pool: bool = True


class ReadLocalFiles(VerbWithReply[LocalFilesRead], frozen=True, tag="read_local_files"):
    """Read-only: what of the guest lies on its host alone."""


class PrepareArrival(VerbWithReply[GuestStatus], frozen=True, tag="prepare_arrival"):
    """Make the files into which the guest's disks are copied, and its config drive. `mark`: the saga that wants them;
    files that bear another mark are what an earlier one has left. Refused where the guest has files that bear none.
    `room_bytes`: how much must be free; without `over_commits` beside what every disk there may grow to."""

    spec: GuestSpec
    files: LocalFiles
    mark: ShortText
    room_bytes: Count
    ticket: ImageTicket | None = None
    over_commits: bool = True


class KeepArrival(VerbWithReply[GuestStatus], frozen=True, tag="keep_arrival"):
    """The guest has arrived: its files are its own, and no mark is on them."""


class DropFiles(VerbWithReply[GuestStatus], frozen=True, tag="drop_files"):
    """Delete its files here: with `mark`, those alone that bear it. Refused while the guest is here."""

    mark: ShortText = ""


class Admit(VerbWithReply[GuestAdmitted], frozen=True, tag="admit"):
    spec: GuestSpec


class Dismiss(VerbWithReply[GuestStatus], frozen=True, tag="dismiss"):
    pass


class BeginCopy(VerbWithReply[GuestStatus], frozen=True, tag="begin_copy"):
    """`spec`: of the guest as it is at the other host."""

    spec: GuestSpec
    to: MigrationEndpoint
    files: LocalFiles = LocalFiles()  # that the hypervisor copies; none on a shared store
    target: CopyTarget = CopyTarget()


class AdjustCopy(VerbWithReply[GuestStatus], frozen=True, tag="adjust_copy"):
    """Change a copy that goes on; nothing to do when there is none."""

    change: CopyChange


class ResumePostCopy(VerbWithReply[GuestStatus], frozen=True, tag="resume_post_copy"):
    """Connect the two halves of a guest again whose post-copy has failed."""

    spec: GuestSpec
    to: MigrationEndpoint
    files: LocalFiles = LocalFiles()


class AbortCopy(VerbWithReply[GuestStatus], frozen=True, tag="abort_copy"):
    pass


class Release(VerbWithReply[GuestStatus], frozen=True, tag="release"):
    pass


class ReadConsole(VerbWithReply[ConsoleText], frozen=True, tag="read_console"):
    """Read-only."""

    length_lines: int | None = None


class OpenConsole(VerbWithReply[ConsoleOpened], frozen=True, tag="open_console"):
    """Read-only: connect a console of the guest, here and now, to the API at `url`, for the session of that secret name
    (ports/consoles.py). It ends by itself, with the guest's stay, or with the session."""

    kind: ConsoleKind
    url: ShortText
    session: ShortText

    def __repr__(self) -> str:
        return f"OpenConsole(kind={self.kind!r}, url={self.url!r}, session=…)"


class Ping(VerbWithReply[PingResult], frozen=True, tag="ping"):
    """Read-only: does the agent answer? Answered by the process itself, whatever its hypervisor does. About no
    guest."""


class Reach(VerbWithReply[ReachResult], frozen=True, tag="reach"):
    """Read-only: does that other hypervisor take your connections? Within `within_s`, which is shorter
    than control waits for the answer. The one at `reference_uri` is known to be alive: a host that reaches neither is
    cut off itself. About no guest."""

    peer_uri: str
    within_s: float = 0.5
    reference_uri: str = ""


class ListTasks(VerbWithReply[Tasks], frozen=True, tag="list_tasks"):
    """Read-only: the service's periodic tasks. About no guest."""


class ListGuests(VerbWithReply[HostInventory], frozen=True, tag="list_guests"):
    """Read-only: all the host has of ours. About no guest."""


class ApplyNetworks(VerbWithReply[NetworksApplied], frozen=True, tag="apply_networks"):
    """Make it true. Its revision is the fence: a host refuses an older one than it has seen. About no guest."""

    plan: HostNetworks


class ChangeNetworks(VerbWithReply[NetworksApplied], frozen=True, tag="change_networks"):
    """The same of a plan that differs little from the one that the host has. One that has another takes nothing of it,
    as its reply says, and is told the whole plan. Only to agents that say that they know it. About no guest."""

    change: PlanChange


class ReadNetworks(VerbWithReply[NetworksApplied], frozen=True, tag="read_networks"):
    """Ask only: what is in force there, and what the host has for networks. About no guest."""


class SendGuestData(VerbWithReply[NetworksApplied], frozen=True, tag="send_guest_data"):
    """Keep what these guests are told of themselves, for the metadata service; those that the plan in force does not
    have, or has with another digest, are passed over. About no guest by itself."""

    guests: Annotated[tuple[GuestData, ...], FEW]


class SaveConnections(VerbWithReply[Connections], frozen=True, tag="save_connections"):
    """Ask only: the tracked connections of a port, before its guest moves. About no guest."""

    port_id: ShortText


class RestoreConnections(VerbWithReply[ConnectionsRestored], frozen=True, tag="restore_connections"):
    """Know those connections of a port. Twice is as good as once, and lets in nothing that no rule lets in."""

    port_id: ShortText
    saved: Text


Verb = (
    Inspect
    | Prepare
    | Start
    | Stop
    | PowerCycle
    | Pause
    | Unpause
    | Suspend
    | InjectNmi
    | CopyDisk
    | SendCopy
    | DropCopy
    | PrepareDisk
    | DropDisk
    | ReplaceDisk
    | ReadDiagnostics
    | Plug
    | Unplug
    | AttachDisk
    | DetachDisk
    | GrowDisk
    | Freeze
    | Thaw
    | Remove
    | CheckDestination
    | CheckSource
    | RemoveProbe
    | ReadLocalFiles
    | PrepareArrival
    | KeepArrival
    | DropFiles
    | Admit
    | Dismiss
    | BeginCopy
    | AbortCopy
    | KeepDisk
    | GrowRoot
    | RestoreDisk
    | ForgetKept
    | AdjustCopy
    | ResumePostCopy
    | Release
    | ReadConsole
    | OpenConsole
    | Ping
    | Reach
    | ListTasks
    | ListGuests
    | ApplyNetworks
    | ChangeNetworks
    | ReadNetworks
    | SendGuestData
    | ReadPool
    | ListVolumes
    | ListRootDisks
    | CreateVolume
    | FillVolume
    | SendVolume
    | DeleteVolume
    | ExtendVolume
    | SnapshotVolume
    | DeleteSnapshot
    | RevertVolume
    | AdmitVolume
    | WithdrawVolume
    | BackupVolume
    | RestoreBackup
    | ForgetBackup
    | DeleteBackup
    | SaveConnections
    | RestoreConnections
    | TryArrivals
    | TryDepartures
    | LookForProbes
    | RemoveProbes
    | BaselineCpu
    | CompareCpu
)
ABOUT_HOST = (Ping, Reach, ListTasks, ListGuests, ReadPool, ListVolumes, ListRootDisks, *BEFORE_MOVES)
# Never fenced, never remembered.
READ_ONLY = (Inspect, ReadLocalFiles, ReadConsole, ReadDiagnostics, OpenConsole, *ABOUT_HOST)


class Command(msgspec.Struct, frozen=True):
    """One verb about one subject. `generation` is the fence: a host refuses a lower one than it has seen of it."""

    subject: Subject
    generation: int
    verb: Verb


REPLIES: dict[type, type] = {verb: get_args(verb.__orig_bases__[0])[0] for verb in get_args(Verb)}


def why_no_reply(verb: Verb, answer: Answer) -> str:
    """Why that answer is not accepted: it is none to that verb. Empty when it is one."""
    if isinstance(answer, (REPLIES[type(verb)], *FAILURES)):
        return ""
    return f"its agent answered {type(verb).__name__} with {type(answer).__name__}; upgrade droveway on that host"


# -- what a host tells control ---------------------------------------------------------------------------------------
class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """One a host for all its services, from its heart. `counter` rises while a boot lasts, over restarts of the heart;
    `generation` is which start of the heart this is. Per service, in the same order: its progress (moves, modulo 2**32,
    while its loop turns), by how many milliseconds that loop was late at worst since the last beat (or LEFT, or DIED),
    and what the heart sees of a process that does not move (a sentence, mostly empty; () when all are).
    `wall_us` is the host's own wall clock, for people only."""

    host: HostName
    boot_id: ShortText
    counter: Count
    generation: Count = 0
    services: Annotated[tuple[ShortText, ...], FEW] = ()
    progress: Annotated[tuple[Number, ...], FEW] = ()
    lateness_ms: Annotated[tuple[Number, ...], FEW] = ()
    wall_us: Number = 0
    notes: Annotated[tuple[ShortText, ...], FEW] = ()


class Report(msgspec.Struct, frozen=True, tag="report"):
    """What the hypervisor says; `guests` is everything of ours it has. Sent on joining, when changed, and slowly.
    `generation` rises with every change, over restarts of the agent: an older one is late. `measured` travels with
    the slow one only."""

    host: HostName
    boot_id: ShortText
    sequence: Number
    hypervisor_up: bool
    reason: Reason
    resources: Resources | None
    guests: Annotated[tuple[Guest, ...], LIST]
    is_complete: bool  # False when the hypervisor did not answer: then `guests` says nothing
    admitted: Annotated[tuple[ShortText, ...], LIST] = ()  # guests that are expected to arrive
    tasks: Annotated[tuple[TaskMetrics, ...], FEW] = ()  # the agent's periodic tasks, for the metrics
    generation: Number = 0
    measured: HostUsage | None = None


class ServiceReport(msgspec.Struct, frozen=True, tag="service_report"):
    """What a service that has no hypervisor says of itself: on joining, when it changed, and slowly. `reason`: how it
    is, for people. `pool`: of a volume service's backend; the newest `generation` of it stands. `passwords`: by
    instance, what guests have set and nobody has told them back yet."""

    host: HostName
    service: ServiceName
    boot_id: ShortText
    is_well: bool
    reason: Reason
    tasks: Annotated[tuple[TaskMetrics, ...], FEW] = ()
    pool: StoragePool | None = None
    generation: Number = 0
    passwords: GuestPasswords = {}

    def __repr__(self) -> str:
        return f"ServiceReport({self.host}, {self.service}, {self.reason!r})"  # no log has passwords


class GuestChanged(msgspec.Struct, frozen=True, tag="guest_changed"):
    host: HostName
    boot_id: ShortText
    guest: Guest


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """From one service of a host, by its name there (domain/service_kinds.py). One process bears it at a time."""

    host: HostName
    boot_id: PrintableText
    address: PrintableText
    protocol: wire.Protocol = PROTOCOL_VERSION
    service: ServiceName = COMPUTE


class AgentDisconnected(msgspec.Struct, frozen=True, tag="gone"):
    """Made by the bus itself: the connection of that service of the host ended, and of no other. Never told after the
    Hello of a newer one. `in_order`: it had said that it would."""

    host: HostName
    reason: Reason
    in_order: bool = False
    service: ServiceName = COMPUTE


class HeartDisconnected(msgspec.Struct, frozen=True, tag="heart_gone"):
    """Made by the bus itself, where it can: the connection of that host's heart ended. No verdict, only a reason to
    look at once."""

    host: str
    reason: str


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """Control's answer to Hello: the server hands out the interval. Agents of every protocol read this one, so the
    names of its fields on the wire stay as they are."""

    report_interval_s: float
    accepted: bool = True
    reason: str = msgspec.field(default="", name="sentence")
    retry_after_s: float = 0.0  # refused: how long to wait before the next hello; 0: as the bus sees fit
    spread_s: float = 0.0  # within which to say hello again on a new connection to the broker, unless asked before


class MalformedMessage(msgspec.Struct, frozen=True, tag="garbled"):
    """Made by the bus itself: that service of the host sent something that is no message. It stays connected: the one
    that judges marks the host."""

    host: str
    reason: str
    service: str = COMPUTE


Notice = Beat | Report | ServiceReport | GuestChanged | Hello | AgentDisconnected | HeartDisconnected | MalformedMessage
NO_MESSAGE = "its agent sent something that is no message"


class ControlBus(Protocol):
    """Control's end. `trouble` says why no message can arrive now (the broker is away), or is empty."""

    @property
    def trouble(self) -> str: ...

    @property
    def is_direct(self) -> bool:
        """Agents connect to this very process: of one that is not connected nothing can have been missed."""
        ...

    async def echo(self, timeout_s: float) -> None:
        """Send oneself a message by the way that heartbeats take; returns when it has come back. Unreachable when it
        has not within `timeout_s`: then no message can arrive, whatever `trouble` says."""
        ...

    def renew(self) -> None:
        """Leave the connection and make it anew, where there is one to be made: what its other end has forgotten is
        said to it again."""
        ...

    async def serve(self, on_notice: Callable[[Notice], Welcome | None]) -> None:
        """Start listening. `on_notice` is a plain function, called in the loop; its answer to a Hello is sent back."""
        ...

    async def command(self, host: str, command: Command, timeout_s: float, service: str = COMPUTE) -> Answer:
        """To that service of the host, and to no other. Guests are compute's."""
        ...

    async def close(self) -> None: ...


class AgentBus(Protocol):
    """An agent's end. Connects and reconnects by itself, with bounded back-off, until closed."""

    async def run(
        self,
        hello: Callable[[], Hello],
        on_welcome: Callable[[Welcome], None],
        on_command: Callable[[Command], Awaitable[Answer]],
    ) -> None: ...
    def notify(self, notice: Notice) -> None:
        """A hint to control; dropped when not connected or the queue is full."""
        ...

    async def close(self) -> None: ...
