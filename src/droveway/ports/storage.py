"""What a volume service asks of its backend.

Guarantees every driver gives (tests/drivers/test_storage_contract.py holds them), beside those that it declares:
- every verb is idempotent: done twice it leaves the world as done once, and what is gone is deleted already;
- a volume is of the size it was made with, to the byte; what was never written reads as zeros, whatever lay there
  before;
- the format of a volume is told and never guessed: what a guest writes into it is never taken for a header;
- no host but those admitted by `admit` reaches a volume through what the driver serves, and `withdraw` ends what is
  open; where only the backend's own users hold hosts apart, the declared isolation says so;
- a snapshot is of one moment and never changes, or the driver declares that it has none;
- a volume that others hang on is not deleted: StorageRefused names them; snapshots of backups (OWN_SNAPSHOT) are no
  users', hold nothing up, stand in no inventory, and go with their volume;
- StorageRefused is the backend's own no, and has left nothing half; StorageDown means that it did not answer, and may
  or may not have acted;
- no verb blocks the event loop; long ones run in a bounded pool; a cancelled one may have acted;
- exports outlive the process of the driver: a volume service that ends or restarts disturbs no guest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from droveway.domain.faults import Fault
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskSource
from droveway.domain.volume.model import StorageGuarantees, StoragePool, StoredVolume, VolumeOrigin, VolumeSpec

OWN_SNAPSHOT = "backup-"  # how the ids of those begin that backups make for themselves


class StorageRefused(Fault):
    """The backend said no."""


class StorageDown(Fault):
    """The backend did not answer: it may or may not have acted."""


class Extent(NamedTuple):
    """Bytes of a volume; `is_zero`: they read as zeros and need not be read."""

    offset_bytes: int
    length_bytes: int
    is_zero: bool = False


class Reader(Protocol):
    """One snapshot or volume, open for reading."""

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes: ...
    async def close(self) -> None: ...


class Writer(Protocol):
    """One volume, open for writing by its backend itself."""

    async def write(self, offset_bytes: int, data: bytes) -> None: ...
    async def close(self) -> None:
        """What was written is on the disk."""
        ...


class Storage(Protocol):
    @property
    def guarantees(self) -> StorageGuarantees: ...

    async def open(self) -> None:
        """Look at what this backend can do, and serve again what was admitted before. Raises StorageRefused with what
        is missing (a program, a pool, a right)."""
        ...

    async def close(self) -> None:
        """End what the driver itself has open; exports stay."""
        ...

    async def pool(self) -> StoragePool:
        """How it stands, bounded in time: trouble is a sentence in it and raises nothing."""
        ...

    # -- volumes --------------------------------------------------------------------------------------------------
    async def create(self, volume: VolumeSpec, origin: VolumeOrigin | None = None) -> None:
        """Make it, empty or of what the origin holds; what lies behind the origin's end is zeros."""
        ...

    async def fill(self, volume: VolumeSpec, image: ImageRef, ticket: ImageTicket | None) -> None:
        """Let it begin with the bytes of that image, converted from its format to the volume's. Done again, it is done
        from the beginning. Raises TicketWanted (ports/images.py), StorageRefused when the image is larger or a host is
        admitted; then it holds what it held."""
        ...

    async def send(self, volume: VolumeSpec, image_id: str, disk_format: str, ticket: ImageTicket | None) -> int:
        """Give its bytes to an API as the data of an image, in that format. Returns how many were sent. Raises
        TicketWanted."""
        ...

    async def delete(self, volume_id: str) -> None:
        """For good. Refused while something hangs on it or a host has it open."""
        ...

    async def extend(self, volume: VolumeSpec) -> None:
        """Make it as large as its spec says now. Refused when it is larger than that."""
        ...

    # -- snapshots ------------------------------------------------------------------------------------------------
    async def snapshot(self, volume_id: str, snapshot_id: str) -> None: ...

    async def delete_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        """Refused, with the volumes that were made of it, where the driver does not declare them independent."""
        ...

    async def revert(self, volume: VolumeSpec, snapshot_id: str) -> None:
        """Let it hold again what the snapshot holds. Refused while a host has it open."""
        ...

    # -- who may open it ------------------------------------------------------------------------------------------
    async def admit(self, volume: VolumeSpec, host: str, *, read_only: bool = False, identity: str = "") -> DiskSource:
        """Let that host open it, and say how. What other hosts were admitted to stays. `identity`: the certificate of
        its own CA for opening disks (pki/disk_identity.py), which a driver that exports volumes needs."""
        ...

    async def withdraw(self, volume_id: str, host: str, *, force: bool = False) -> None:
        """That host may open it no longer. Refused while its guest has it open, unless forced: then what is open is cut
        off (an export ends, a client is fenced), and when it returns that host writes no more."""
        ...

    # -- its bytes ------------------------------------------------------------------------------------------------
    async def reader(self, volume: VolumeSpec, snapshot_id: str | None = None) -> Reader: ...

    async def writer(self, volume: VolumeSpec) -> Writer: ...

    def changed(self, volume: VolumeSpec, snapshot_id: str, since_snapshot_id: str | None) -> AsyncIterator[Extent]:
        """What a snapshot holds that an older one does not; all that is allocated when there is none. Without declared
        changed blocks: one extent, the whole."""
        ...

    async def inventory(self) -> tuple[StoredVolume, ...]:
        """Every volume of ours that lies there, for the audit."""
        ...


class MadeStorage(NamedTuple):
    """What a driver makes for one backend."""

    storage: Storage
    trouble: str = ""  # why it could not be made; the service runs and says so
