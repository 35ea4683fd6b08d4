"""The files of a backend's volumes. All of it blocks.

    volume-ID                       a raw disk, sparse
    .snapshots/VOLUME/SNAPSHOT      one as it was, never written again
    .admitted/VOLUME/HOST           an empty file for each host that may open it
    .new-…                          what is not whole yet; swept when the service starts

What has its final name is whole and on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

from droveway.drivers.storage.image_data import checked
from droveway.ports.storage import OWN_SNAPSHOT, Extent

VOLUME = "volume-"
EXTENTS_MAX = 1024  # that one look gives
_FICLONE = 0x40049409
_NO_CLONES = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EXDEV)


class VolumeFiles:
    def __init__(self, root: Path) -> None:
        self.root = root

    # -- names ----------------------------------------------------------------------------------------------------
    def volume(self, volume_id: str) -> Path:
        return self.root / f"{VOLUME}{checked(volume_id)}"

    def snapshot(self, volume_id: str, snapshot_id: str) -> Path:
        return self.root / ".snapshots" / checked(volume_id) / checked(snapshot_id)

    def unfinished(self, identity: str) -> Path:
        return self.root / f".new-{checked(identity)}"

    # -- what is there --------------------------------------------------------------------------------------------
    def volumes(self) -> list[str]:
        with os.scandir(self.root) as entries:
            return sorted(entry.name.removeprefix(VOLUME) for entry in entries if entry.name.startswith(VOLUME))

    def snapshots(self, volume_id: str) -> list[str]:
        """Of users: those of backups go with the volume."""
        found = _names(self.root / ".snapshots" / checked(volume_id))
        return [name for name in found if not name.startswith(OWN_SNAPSHOT)]

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def extents(self, path: Path, at: int) -> list[Extent]:
        """From there on, up to EXTENTS_MAX of them; none at the end of the file."""
        found: list[Extent] = []
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            while at < size and len(found) < EXTENTS_MAX:
                data = _seek(descriptor, at, os.SEEK_DATA, size)
                if data > at:
                    found.append(Extent(at, data - at, is_zero=True))
                end = _seek(descriptor, data, os.SEEK_HOLE, size) if data < size else size
                if end > data:
                    found.append(Extent(data, end - data))
                at = end
        finally:
            os.close(descriptor)
        return found

    # -- making them ----------------------------------------------------------------------------------------------
    def blank(self, path: Path, size_bytes: int) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.truncate(size_bytes)

    def clone(self, source: Path, target: Path, size_bytes: int) -> None:
        """At one moment, whatever is written to the source meanwhile: the two share what neither has changed."""
        self.blank(target, 0)
        with source.open("rb") as read, target.open("r+b") as written:
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
            written.truncate(size_bytes)

    def can_clone(self) -> bool:
        with tempfile.TemporaryFile(dir=self.root) as source, tempfile.TemporaryFile(dir=self.root) as target:
            source.write(b"\0" * 65536)
            source.flush()
            try:
                fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
            except OSError as error:
                if error.errno not in _NO_CLONES:
                    raise
                return False
        return True

    def publish(self, unfinished: Path, final: Path) -> None:
        """In one step, in place of what has that name."""
        sync(unfinished)
        if not final.parent.exists():
            final.parent.mkdir(mode=0o700, parents=True)
            sync(final.parent.parent)
            sync(self.root)
        os.rename(unfinished, final)
        sync(final.parent)

    def extend(self, path: Path, size_bytes: int) -> None:
        os.truncate(path, size_bytes)
        sync(path)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if path.parent.exists():
            sync(path.parent)

    def remove_volume(self, volume_id: str) -> None:
        self.remove(self.volume(volume_id))
        for name in _names(self.root / ".snapshots" / volume_id):
            self.remove(self.root / ".snapshots" / volume_id / name)
        for directory in (self.root / ".snapshots" / volume_id, self.root / ".admitted" / volume_id):
            if directory.exists():
                directory.rmdir()  # empty: what lies in it keeps the volume from being deleted

    # -- who may open them ----------------------------------------------------------------------------------------
    def admit(self, volume_id: str, host: str) -> None:
        directory = self.root / ".admitted" / checked(volume_id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / quote(host, safe="")).touch()
        sync(directory)

    def withdraw(self, volume_id: str, host: str) -> None:
        self.remove(self.root / ".admitted" / checked(volume_id) / quote(host, safe=""))

    def admitted(self, volume_id: str) -> list[str]:
        return [unquote(name) for name in _names(self.root / ".admitted" / checked(volume_id))]


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.exists() else []


def _seek(descriptor: int, at: int, how: int, size: int) -> int:
    try:
        return min(size, os.lseek(descriptor, at, how))
    except OSError as error:
        if error.errno != errno.ENXIO:  # there is no more data
            raise
        return size


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
