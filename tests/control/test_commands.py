"""The checks of a host's answer."""

from __future__ import annotations

import asyncio
from typing import TypeVar, get_args

import pytest

from droveway.control.engine.commands import send
from droveway.domain.consoles import ConsoleKind
from droveway.domain.diagnostics import GuestDiagnostics
from droveway.domain.faults import Stale, StepFailed, Unreachable
from droveway.domain.model import (
    CopyChange,
    CopyProgress,
    Guest,
    GuestSpec,
    GuestState,
    ImageRef,
    LocalFiles,
    MigrationEndpoint,
    Nic,
    SpareDisk,
    of_instance,
)
from droveway.domain.move_checks import CheckAnswer
from droveway.domain.move_prediction import GuestLoad
from droveway.domain.network_change import PlanChange
from droveway.domain.network_plan import HostNetworks
from droveway.domain.volume.disks import SimulatedSource, VolumeDisk
from droveway.domain.volume.model import FromSnapshot, StoragePool, StoredVolume, VolumeSpec
from droveway.drivers.storage.simulated import GUARANTEES
from droveway.ports.bus import (
    REPLIES,
    AbortCopy,
    AdjustCopy,
    Admit,
    ApplyNetworks,
    AttachDisk,
    BeginCopy,
    ChangeNetworks,
    CheckDestination,
    CheckSource,
    Command,
    CopyDisk,
    DetachDisk,
    Dismiss,
    DropCopy,
    DropDisk,
    DropFiles,
    Freeze,
    GrowDisk,
    InjectNmi,
    Inspect,
    KeepArrival,
    ListGuests,
    ListTasks,
    OpenConsole,
    Pause,
    Ping,
    Plug,
    PowerCycle,
    Prepare,
    PrepareArrival,
    PrepareDisk,
    Reach,
    ReadConsole,
    ReadDiagnostics,
    ReadLocalFiles,
    ReadNetworks,
    Release,
    Remove,
    RemoveProbe,
    ReplaceDisk,
    RestoreConnections,
    ResumePostCopy,
    SaveConnections,
    SendCopy,
    SendGuestData,
    Start,
    Stop,
    Suspend,
    Thaw,
    Unpause,
    Unplug,
    Verb,
)
from droveway.ports.kept_disk_verbs import ForgetKept, GrowRoot, KeepDisk, ListRootDisks, RestoreDisk
from droveway.ports.move_verbs import (
    ArrivalAsked,
    ArrivalsTried,
    ArrivalTried,
    BaselineCpu,
    CompareCpu,
    CpuBaselined,
    CpuCompared,
    DeparturesTried,
    DepartureTried,
    LookForProbes,
    ProbesRemoved,
    ProbesSeen,
    RemoveProbes,
    TryArrivals,
    TryDepartures,
)
from droveway.ports.replies import (
    FAILURES,
    Answer,
    BackupDone,
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
    PoolStatus,
    ReachResult,
    Refused,
    RootDisks,
    SourceChecked,
    StaleFence,
    Tasks,
    VolumeAdmitted,
    VolumeBackedUp,
    VolumeDone,
    VolumeList,
    VolumeSent,
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

R = TypeVar("R")


class Says:
    """A control's bus on whose other end one answer is given."""

    trouble = ""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def serve(self, on_notice: object) -> None: ...

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        return self._answer

    async def close(self) -> None: ...


def ask(answer: Answer, verb: VerbWithReply[R]) -> R:
    return asyncio.run(send(Says(answer), "h1", of_instance("g1"), 1, verb, 1.0))  # type: ignore[arg-type]


def test_words_are_cut_and_cleaned() -> None:
    guest = Guest("g1", GuestState.RUNNING, copy_error="no\0room" + "c" * 10_000)
    stands = ask(GuestStatus(guest, "b1"), Inspect()).guest
    assert stands.copy_error.startswith("no roomc") and len(stands.copy_error) == 4096
    with pytest.raises(StepFailed, match="h1: no room"):
        ask(Refused("no\0room"), Inspect())


@pytest.mark.parametrize("boot_id", ["b" * 65, "b\0", "b\n"])
def test_what_is_no_boot_is_no_answer(boot_id: str) -> None:
    guest = Guest("g1", GuestState.RUNNING)
    answers = (GuestStatus(guest, boot_id), Inspect()), (PingResult(boot_id), Ping())
    for answer, verb in (*answers, (HostInventory(boot_id=boot_id), ListGuests())):
        with pytest.raises(Unreachable, match="the id of its boot"):
            ask(answer, verb)


@pytest.mark.parametrize("number", [-1, 1 << 63, 1 << 80])
def test_progress_that_cannot_be_is_no_answer(number: int) -> None:
    guest = Guest("g1", GuestState.RUNNING, progress=CopyProgress(memory_total_bytes=number))
    with pytest.raises(Unreachable, match="progress"):
        ask(GuestStatus(guest), Inspect())


def test_another_guest_and_another_generation_are_no_answer() -> None:
    with pytest.raises(Unreachable, match="it is about another guest"):
        ask(GuestStatus(Guest("g2", GuestState.RUNNING)), Inspect())
    for seen in (-1, 1 << 40):
        with pytest.raises(Unreachable, match="it names the generation"):
            ask(StaleFence("newer", seen), Stop(0.0))
    with pytest.raises(Stale, match="a newer command for instance:g1"):
        ask(StaleFence("newer", 7), Stop(0.0))


GUEST = Guest("g1", GuestState.RUNNING)
ONE_OF_EACH: tuple[Answer, ...] = (
    GuestStatus(GUEST),
    GuestAdmitted(GUEST, MigrationEndpoint("h1", "u", "d")),
    GuestFrozen(GUEST, True),
    SourceChecked(GUEST, True, load=GuestLoad(2, 1)),
    ConsoleText("boots"),
    LocalFilesRead(LocalFiles()),
    RootDisks("pool"),
    DiskCopied(1, "raw"),
    Diagnostics(GuestDiagnostics("running", "simulated", "simulated")),
    ConsoleOpened(),
    PingResult(),
    ReachResult(True),
    Tasks(),
    HostInventory(),
    NetworksApplied(7, begun=8),
    Connections("tcp"),
    ConnectionsRestored(),
    VolumeAdmitted(SimulatedSource("fast", "v1")),
    VolumeDone(),
    VolumeSent(512),
    VolumeBackedUp(1, 2, 3),
    BackupDone(),
    PoolStatus(StoragePool(1.0, 1.0, GUARANTEES)),
    VolumeList((StoredVolume("v1", 1 << 30, ("s1",), ("h1",)),)),
    ArrivalsTried((ArrivalTried("g1", (CheckAnswer("cpu_model", False, "older"),)),), -1, -1),
    DeparturesTried((DepartureTried("g1", (), GuestLoad(2, 1, 0, 0.5)),)),
    ProbesSeen(("p1",)),
    ProbesRemoved(),
    CpuBaselined("<cpu/>"),
    CpuCompared(CheckAnswer("cpu_model", True)),
)


SPEC, THERE = GuestSpec("g1", "g", 1, 128, 1), MigrationEndpoint("h1", "u", "d")
VERBS: tuple[Verb, ...] = (
    Inspect(),
    Prepare(SPEC),
    Start(SPEC),
    Stop(0.0),
    PowerCycle(SPEC),
    Pause(),
    Unpause(),
    Suspend(),
    InjectNmi(),
    CopyDisk("i1"),
    SendCopy("i1"),
    DropCopy("i1"),
    PrepareDisk(SPEC, SpareDisk.RESCUE),
    DropDisk(SpareDisk.RESCUE),
    ReplaceDisk(SPEC),
    ReadDiagnostics(),
    Plug(Nic("p", "n", "m", 1450), "virtio"),
    Unplug(Nic("p", "n", "m", 1450), 1.0),
    AttachDisk(VolumeDisk("v1", "a1", SimulatedSource("b", "v1"), "vdb", 1)),
    DetachDisk("v1", 1.0),
    GrowDisk("v1", 2),
    Freeze(),
    Thaw(),
    Remove(),
    CheckDestination(SPEC, "", "p"),
    CheckSource("p"),
    RemoveProbe("p"),
    ReadLocalFiles(),
    PrepareArrival(SPEC, LocalFiles(), "s1", 0),
    KeepArrival(),
    DropFiles(),
    Admit(SPEC),
    Dismiss(),
    BeginCopy(SPEC, THERE),
    KeepDisk("s1"),
    GrowRoot(2),
    RestoreDisk("s1"),
    ForgetKept("s1"),
    AbortCopy(),
    AdjustCopy(CopyChange(post_copy=True)),
    ResumePostCopy(SPEC, THERE),
    Release(),
    ReadConsole(),
    OpenConsole(ConsoleKind.VNC, "https://a", "s"),
    Ping(),
    Reach("u"),
    ListTasks(),
    ListGuests(),
    ApplyNetworks(HostNetworks(7, "")),
    ChangeNetworks(PlanChange(6, HostNetworks(7, ""))),
    ReadNetworks(),
    SendGuestData(()),
    ReadPool(),
    ListVolumes(),
    ListRootDisks(),
    CreateVolume(VolumeSpec("v1", 1), FromSnapshot("s1", "v2")),
    FillVolume(VolumeSpec("v1", 1), ImageRef("i1", "raw", 512, "5" * 128)),
    SendVolume(VolumeSpec("v1", 1), "i1", "raw"),
    DeleteVolume(),
    ExtendVolume(VolumeSpec("v1", 2)),
    SnapshotVolume("s1"),
    DeleteSnapshot("s1"),
    RevertVolume(VolumeSpec("v1", 1), "s1"),
    AdmitVolume(VolumeSpec("v1", 1), "h1"),
    WithdrawVolume("h1"),
    BackupVolume(VolumeSpec("v1", 1), "b2", "b1", None, ("b1",)),
    RestoreBackup(VolumeSpec("v1", 1), "b1"),
    ForgetBackup("b1"),
    DeleteBackup(),
    SaveConnections("p1"),
    RestoreConnections("p1", "tcp"),
    TryArrivals((ArrivalAsked(SPEC, 0),), ("<cpu/>",), "p1"),
    TryDepartures(("g1",), 1),
    LookForProbes(("p1",)),
    RemoveProbes(("p1",)),
    BaselineCpu(("<cpu/>",)),
    CompareCpu("<cpu/>"),
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: type(verb).__name__)
def test_a_reply_to_another_verb_is_invalid(verb: Verb) -> None:
    """The same words in another type are another answer: each verb has one."""
    name = type(verb).__name__
    for answer in ONE_OF_EACH:
        if type(answer) is REPLIES[type(verb)]:
            assert type(ask(answer, verb)) is type(answer)
        else:
            with pytest.raises(Unreachable, match=f"answered {name} with {type(answer).__name__}; upgrade"):
                ask(answer, verb)


def test_every_verb_names_its_reply_and_every_reply_is_one_of_the_wire() -> None:
    assert set(REPLIES) == set(get_args(Verb)) == {type(verb) for verb in VERBS}
    assert set(REPLIES.values()) == {type(answer) for answer in ONE_OF_EACH}
    assert {type(answer) for answer in ONE_OF_EACH} | set(FAILURES) == set(get_args(Answer))
