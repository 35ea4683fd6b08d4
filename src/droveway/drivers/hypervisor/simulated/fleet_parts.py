"""What simulated hosts are made of: how long things take, how often they go wrong, guests and stores as they stand."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from droveway.domain.guest_data import Document
from droveway.domain.model import GuestState, Nic, PostCopy
from droveway.domain.volume.disks import VolumeDisk
from droveway.drivers.images.simulated import ImageFaults

Span = tuple[float, float]  # seconds: the shortest and the longest; the real one is drawn
NOTHING: Span = (0.0, 0.0)


class Durations(msgspec.Struct, frozen=True):
    """How long things take. Nothing by default: simulated hosts under real time must be fast."""

    prepare: Span = NOTHING
    start: Span = NOTHING
    power_off: Span = NOTHING  # from the power button until the guest has obeyed
    remove: Span = NOTHING
    hold: Span = NOTHING  # to pause it, to let it go on, to save its memory
    plug: Span = NOTHING  # until a guest has taken an interface, or has let go of one
    arrive: Span = NOTHING  # until the destination's half is there
    copy: Span = NOTHING
    switch: Span = NOTHING  # paused on both sides
    tail: Span = NOTHING  # from the switch until the source has let go
    probe_kept_s: float = 600.0  # until a test file that was left is swept


class Faults(msgspec.Struct, frozen=True):
    """How often things go wrong, as probabilities. Peace by default."""

    copy_fails: float = 0.0
    half_switched: float = 0.0  # the source never learns of the switch: a husk stays
    post_copy_cut: float = 0.0  # the connection between the two halves of a guest breaks
    paused_arrival: float = 0.0  # the guest has switched, and is left paused at its destination
    refused: float = 0.0  # a plain no: nothing was done
    refused_after_acting: float = 0.0  # the command's error, although it did what it was told
    down_after_acting: float = 0.0  # it did what it was told, and its answer was lost with the connection
    hint_lost: float = 0.0
    keeps_nic: float = 0.0  # a guest does not let go of an interface, this time
    keeps_volume: float = 0.0  # likewise of a volume
    base_swept: float = 0.0  # an image that a disk was made on is fetched anew for the next one
    images: ImageFaults = ImageFaults()


@dataclass(slots=True)
class Domain:
    """A guest as one host's hypervisor knows it."""

    state: GuestState
    ram_mb: int
    is_defined: bool  # survives its process, and a power failure
    is_husk: bool = False
    crashed: bool = False
    suspended: bool = False  # paused by a user or an operator
    saved: bool = False  # its memory, on this host; a power failure does not take it
    rescue: bool = False  # it has begun from its disk for that
    interrupts: int = 0  # not maskable
    since_s: float = 0.0  # when it began to run
    nics: tuple[Nic, ...] = ()
    volumes: dict[str, VolumeDisk] = field(default_factory=dict)  # those it has open, in its order
    volume_sizes: dict[str, int] = field(default_factory=dict)  # in GiB, of those that have grown meanwhile
    frozen_until_s: float = 0.0  # its file systems
    stalled: str = ""  # the disk that takes no writes, and why: it is paused for that
    bound_devices: tuple[str, ...] = ()  # of its host, which cannot go along
    dirty_bytes_per_s: int = 0  # how fast it changes its memory
    measured: tuple[int, float] | None = None  # that, as it was measured last, and when
    post_copy: PostCopy = PostCopy.NONE  # its memory lies on two hosts

    @property
    def begins_from_volume(self) -> bool:
        return any(disk.boot_index == 0 for disk in self.volumes.values())


class Openings:
    """What the backends of volumes say to hosts that open them. These let everybody."""

    def why_not(self, host: str, disk: VolumeDisk) -> str:
        """Why that host cannot open it; empty when it can."""
        return ""

    def opened(self, host: str, disk: VolumeDisk) -> None:
        """A guest there has it open from now on."""

    def closed(self, host: str, disk: VolumeDisk) -> None:
        """And no longer."""


@dataclass(slots=True)
class Store:
    """An instance store; one that several hosts share is one object."""

    disks: dict[str, int] = field(default_factory=dict)  # instance id: GiB
    drives: dict[str, tuple[Document, ...]] = field(default_factory=dict)  # instance id: what its config drive holds
    copies: dict[tuple[str, str], bytes] = field(default_factory=dict)  # of a disk: instance id, name
    spares: dict[tuple[str, str], str] = field(default_factory=dict)  # disks beside: instance id, kind -> image id
    images: dict[str, str] = field(default_factory=dict)  # instance id: the image that its root disk was made of
    consoles: dict[str, list[str]] = field(default_factory=dict)
    probes: dict[str, float] = field(default_factory=dict)  # when each was written
    behind: dict[str, str] = field(default_factory=dict)  # instance id: the file of the image behind its root disk
    marks: dict[str, str] = field(default_factory=dict)  # instance id: the saga whose guest is to arrive in its files
    kept: dict[tuple[str, str], int] = field(default_factory=dict)  # copies of disks as they were: instance id, mark
    past: set[str] = field(default_factory=set)  # instances whose guest has left, and took along what its disk held
    used_gb: int = 0
