"""The nouns of the program, as immutable values.

More than 400 lines because each noun stands here once.
Every struct here crosses a wire or a store as msgspec data; sizes carry their unit in the name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from droveway.domain.hardware import UEFI, Hardware
from droveway.domain.placement import HeldCell, NumaCell
from droveway.domain.volume.disks import VolumeDisk
from droveway.domain.wire import FEW, LIST, Count, Description, FileName, Number, Reason, ShortText, StorePath

# The pool of a Ceph cluster in which hosts keep root disks: the cluster's fsid, a slash, its name.
RootPool = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-Za-z-]{1,64}/[A-Za-z0-9._-]{1,128})?\Z")]


class GuestState(StrEnum):
    """What a hypervisor says of a guest. `absent`: it knows no such guest, or only a definition that does not run."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"  # defined (or its files are there), not running
    ABSENT = "absent"


class GuestJob(StrEnum):
    """What moves the guest right now, read from the hypervisor, never from an agent's memory alone."""

    NONE = "none"
    OUTGOING = "outgoing"
    INCOMING = "incoming"


class PostCopy(StrEnum):
    """Whether the memory of a guest lies on two hosts: it runs at its destination, and fetches from its source what has
    not been copied."""

    NONE = "none"
    ACTIVE = "active"
    FAILED = "failed"  # the connection between the two was cut: the guest stands still until it is resumed


class CopyProgress(msgspec.Struct, frozen=True):
    """How far an outgoing copy is, as its hypervisor counts. All zero while the destination starts."""

    memory_total_bytes: Count = 0
    memory_processed_bytes: Count = 0
    memory_remaining_bytes: Count = 0
    iteration: Count = 0  # passes over the memory that have begun; 0: the disks are copied, or nothing yet
    elapsed_ms: Count = 0
    downtime_ms: Count = 0  # as it is expected
    disk_total_bytes: Count = 0
    disk_processed_bytes: Count = 0
    disk_remaining_bytes: Count = 0
    rate_bytes_s: Count = 0  # what is sent in a second
    dirty_bytes_s: Count = 0  # what the guest writes to in a second, in whole pages; known after the first pass
    throttle_percent: Count = 0  # of its CPU time that auto-converge takes from the guest


class CopyChange(msgspec.Struct, frozen=True):
    """What is changed of a copy that goes on. `downtime_max_ms`: how long its guest may stand still; 0: as before."""

    downtime_max_ms: Count = 0
    post_copy: bool = False  # the guest goes on at its destination, and its memory follows
    pause: bool = False  # the guest stands still until its memory is there


class Guest(msgspec.Struct, frozen=True):
    """One guest as its host sees it at the moment of the answer."""

    instance_id: ShortText
    state: GuestState
    job: GuestJob = GuestJob.NONE
    progress: CopyProgress | None = None  # of an outgoing copy; or the totals of the one by which it came
    copy_error: Reason = ""  # the sentence of the last copy that failed from this host, if any
    crashed: bool = False
    kept: bool = False  # paused, and defined for good: an arrival is so once it has arrived whole
    suspended: bool = False  # paused by a user or an operator, and not by a move: no move resumes it
    saved: bool = False  # its memory lies on its host: it goes on from there when it is started
    post_copy: PostCopy = PostCopy.NONE


class ImageRef(msgspec.Struct, frozen=True):
    """Which bytes an image has. `path`: where every host sees them; empty, and they are fetched from an API."""

    id: str
    disk_format: str  # qcow2 | raw
    size_bytes: int
    sha512: str
    path: str = ""

    @property
    def file_name(self) -> str:
        """Of its bytes on the instance store of a host: the same on each."""
        return f"{self.sha512[:32]}.{self.disk_format}"


class Nic(msgspec.Struct, frozen=True):
    """A port of a guest, as its host plugs it: the device is device_of(port_id), its bridge bridge_of(network_id)."""

    port_id: ShortText
    network_id: ShortText
    mac: ShortText
    mtu_bytes: Count


class GuestSpec(msgspec.Struct, frozen=True):
    """Everything a host needs to build a guest, the same on every host it will ever run on."""

    instance_id: str
    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int  # of the root disk; 0: as large as the image
    image: ImageRef | None = None
    cells: tuple[HeldCell, ...] = ()  # where its vcpus and memory lie on its host; () anywhere
    machine_type: str = ""  # "" is the hypervisor's own choice
    hardware: Hardware = Hardware()
    ephemeral_gb: int = 0  # a second disk, empty
    swap_mb: int = 0  # a third one, ready to be swapped to
    config_drive: bool = False  # a read-only one with what the guest is told of itself, made by `prepare`
    nics: Annotated[tuple[Nic, ...], FEW] = ()  # in the order in which the guest sees them
    rescue: bool = False  # it begins from a disk of its own for that, and finds its root disk behind it
    volumes: Annotated[tuple[VolumeDisk, ...], FEW] = ()  # in the order in which the guest sees them
    root_pool: RootPool = ""  # where its root disk lies; empty: with its host, as a file

    @property
    def begins_from_volume(self) -> bool:
        """Its root disk is a volume, and no file of its host."""
        return any(volume.boot_index == 0 for volume in self.volumes)

    @property
    def has_root_file(self) -> bool:
        """Its root disk lies on the instance store of its host."""
        return not self.begins_from_volume and not self.root_pool

    @property
    def needs_store(self) -> bool:
        """It has files that lie with its host, so that it moves only between hosts that share them."""
        has_files = self.ephemeral_gb or self.swap_mb or self.config_drive or (self.rescue and not self.root_pool)
        return bool(self.has_root_file or has_files or self.hardware.firmware == UEFI)


class SpareDisk(StrEnum):
    """A disk of an image that lies beside a guest's own."""

    RESCUE = "rescue"  # what it begins from while it is rescued
    REBUILD = "rebuild"  # what takes the place of its root disk


class Resources(msgspec.Struct, frozen=True):
    """What a hypervisor offers, as it says itself."""

    hypervisor_type: ShortText  # QEMU | KVM | simulated
    hypervisor_version: Number  # libvirt's number: 7002022 is 7.2.22
    hypervisor_hostname: ShortText
    vcpus: Number
    memory_mb: Number
    memory_free_mb: Number
    disk_gb: Number
    disk_free_gb: Number
    cpu_arch: ShortText = "x86_64"
    cpu_model: ShortText = ""
    cpu_vendor: ShortText = ""
    cpu_features: Annotated[tuple[ShortText, ...], LIST] = ()
    cpu_topology: Annotated[dict[ShortText, Number], FEW] = {}
    cpu_xml: Description = ""  # what another host compares its own CPU with
    host_ip: ShortText = ""
    machine_types: Annotated[tuple[ShortText, ...], LIST] = ()
    firmwares: Annotated[tuple[ShortText, ...], FEW] = ()  # bios, uefi; () when the hypervisor does not say
    reserved_memory_mb: Number = 0
    peer_uri: ShortText = ""  # where other hypervisors connect to it
    cells: Annotated[tuple[NumaCell, ...], LIST] = ()  # NUMA; () when the hypervisor does not say
    reserved_disk_gb: Number = 0
    host_uuid: ShortText = ""  # the machine's, as the hypervisor says: it stays when the host is given another name
    store_trouble: Reason = ""  # why its instance store cannot be used now; a sentence that stays the same meanwhile
    root_pool: RootPool = ""  # where it keeps root disks, and of which its disk sizes are; empty: on its instance store
    disk_identity: Description = ""  # PEM: whom an export of a volume knows this host by; empty: by nothing


class LocalDisk(msgspec.Struct, frozen=True):
    """A disk of a guest that is a file of its host. `base`: the name of the image's file behind it, the same on every
    host that has that image; empty: nothing is behind it."""

    name: FileName
    disk_format: Annotated[str, msgspec.Meta(pattern=r"^(qcow2|raw)\Z")]
    size_bytes: Count
    allocated_bytes: Count = 0
    base: FileName = ""


class LocalFiles(msgspec.Struct, frozen=True):
    """What goes along with a guest to a host that does not see the store it lies on: its disks, of which the hypervisor
    copies what they hold, and its config drive, which never changes, packed by zlib."""

    disks: Annotated[tuple[LocalDisk, ...], FEW] = ()
    drive: Annotated[bytes, msgspec.Meta(max_length=1 << 20)] = b""

    @property
    def is_on_base(self) -> bool:
        return any(disk.base for disk in self.disks)


class MigrationEndpoint(msgspec.Struct, frozen=True):
    """How a source hypervisor reaches a destination: libvirt's peer URI and the URI of the data stream."""

    host: ShortText
    peer_uri: ShortText
    data_uri: ShortText
    instances_path: StorePath = ""  # where its guests' files lie; empty: where the source has them
    ceph: RootPool = ""  # as whom it comes to a Ceph cluster: the cluster's fsid, a slash, the user; empty: to none


class VmState(StrEnum):
    """The instance as its user sees it (Nova's vm_state)."""

    BUILDING = "building"
    ACTIVE = "active"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    RESCUED = "rescued"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    SOFT_DELETED = "soft-delete"
    RESIZED = "resized"  # on another host, or of another flavor, until that is confirmed or reverted
    ERROR = "error"
    DELETED = "deleted"


class TaskState(StrEnum):
    """What is being done to the instance now (Nova's task_state)."""

    SCHEDULING = "scheduling"
    SPAWNING = "spawning"
    POWERING_OFF = "powering-off"
    POWERING_ON = "powering-on"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    RESCUING = "rescuing"
    UNRESCUING = "unrescuing"
    REBUILDING = "rebuilding"
    REBUILD_SPAWNING = "rebuild_spawning"
    IMAGE_SNAPSHOT = "image_snapshot"
    IMAGE_BACKUP = "image_backup"
    IMAGE_UPLOADING = "image_uploading"
    SHELVING = "shelving"
    SHELVING_IMAGE_UPLOADING = "shelving_image_uploading"
    SHELVING_OFFLOADING = "shelving_offloading"
    UNSHELVING = "unshelving"
    SOFT_DELETING = "soft-deleting"
    RESTORING = "restoring"
    MIGRATING = "migrating"
    RESIZE_PREP = "resize_prep"
    RESIZE_MIGRATING = "resize_migrating"
    RESIZE_FINISH = "resize_finish"
    RESIZE_REVERTING = "resize_reverting"
    DELETING = "deleting"


class LockedBy(StrEnum):
    """Who has locked an instance (Nova's locked_by): someone of its project, or an administrator of another one."""

    OWNER = "owner"
    ADMIN = "admin"


class SubjectKind(StrEnum):
    """What work may be about, and what is recorded."""

    INSTANCE = "instance"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    BACKUP = "backup"
    IMAGE = "image"
    PORT = "port"
    HOST = "host"  # its id is its name
    SERVICE = "service"  # its id is HOST/BINARY
    AGGREGATE = "aggregate"  # its id is its name
    SAGA = "saga"


class Subject(msgspec.Struct, frozen=True, order=True):
    """One thing that a saga, a fence, a command, a nudge or an event is about."""

    kind: SubjectKind
    id: ShortText

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.id}"


def of_instance(instance_id: str) -> Subject:
    return Subject(SubjectKind.INSTANCE, instance_id)


def of_saga(saga_id: str) -> Subject:
    return Subject(SubjectKind.SAGA, saga_id)


def of_host(name: str) -> Subject:
    return Subject(SubjectKind.HOST, name)


class SagaKind(StrEnum):
    BOOT = "boot"
    DELETE = "delete"
    STOP = "stop"
    START = "start"
    HARD_REBOOT = "hard_reboot"
    SOFT_REBOOT = "soft_reboot"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SUSPEND = "suspend"
    RESUME = "resume"
    TRIGGER_CRASH_DUMP = "trigger_crash_dump"
    RESET_STATE = "reset_state"
    CREATE_IMAGE = "create_image"
    CREATE_BACKUP = "create_backup"
    REBUILD = "rebuild"
    RESCUE = "rescue"
    UNRESCUE = "unrescue"
    SHELVE = "shelve"
    SHELVE_OFFLOAD = "shelve_offload"
    UNSHELVE = "unshelve"
    SOFT_DELETE = "soft_delete"
    RESTORE = "restore"
    LIVE_MIGRATION = "live_migration"
    COLD_MIGRATION = "cold_migration"
    RESIZE_SERVER = "resize_server"
    CONFIRM_RESIZE = "confirm_resize"
    REVERT_RESIZE = "revert_resize"
    ATTACH_INTERFACE = "attach_interface"
    DETACH_INTERFACE = "detach_interface"
    ATTACH_VOLUME = "attach_volume"
    DETACH_VOLUME = "detach_volume"
    FREE_VOLUME = "free_volume"
    ADMIT_CONNECTOR = "admit_connector"
    CREATE_VOLUME = "create_volume"
    DELETE_VOLUME = "delete_volume"
    EXTEND_VOLUME = "extend_volume"
    RETYPE_VOLUME = "retype_volume"
    REVERT_VOLUME = "revert_volume"
    UPLOAD_VOLUME = "upload_volume"
    CREATE_SNAPSHOT = "create_snapshot"
    DELETE_SNAPSHOT = "delete_snapshot"
    TIDY_VOLUME = "tidy_volume"
    BACKUP_VOLUME = "backup_volume"
    RESTORE_BACKUP = "restore_backup"
    DELETE_BACKUP = "delete_backup"


class SagaStatus(StrEnum):
    QUEUED = "queued"  # another saga about the same, or one that holds it, must end first
    FORWARD = "forward"
    BACKWARD = "backward"
    DONE = "done"
    UNDONE = "undone"
    BROKEN = "broken"  # an assertion failed: quarantined with its subject until an operator retries it


ENDED_SAGA = frozenset({SagaStatus.DONE, SagaStatus.UNDONE})
# The cursor of a saga is the name of a step: the next one to do, or the next to undo. Beside those names it is START of
# one that has not begun, or of which nothing is left to undo; and END of one that is done.
START, END = "", "end"


class MigrationStatus(StrEnum):
    """Nova's words for a migration: the first four are of live ones, and those from `migrating` on of cold ones."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ERROR = "error"
    FAILED = "failed"
    MIGRATING = "migrating"
    FINISHED = "finished"  # to be confirmed, or reverted
    CONFIRMED = "confirmed"
    REVERTED = "reverted"


class Flavor(msgspec.Struct, frozen=True):
    id: str
    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    disabled: bool = False
    description: str | None = None
    extra_specs: dict[str, str] = {}
