"""What the driver asks of a Ceph cluster: one protocol, answered by librbd in this process or by the `rbd` command.

Every call raises StorageRefused with the cluster's no, and StorageDown when it does not answer in time.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from droveway.drivers.storage.image_data import quoted
from droveway.ports.storage import Extent


class RbdSettings(msgspec.Struct, frozen=True):
    """Where the cluster is, and as whom to come. `conf` names the keyring: the key is in no option of a program, and so
    in no process list."""

    conf: str
    user: str
    pool: str

    def disk(self, image: str, snapshot: str = "") -> str:
        """A raw disk, as options of QEMU."""
        where = f"file.driver=rbd,file.pool={self.pool},file.image={image},file.conf={quoted(self.conf)}"
        of = f",file.snapshot={snapshot}" if snapshot else ""
        return f"driver=raw,{where},file.user={self.user}{of}"


class RbdImage(NamedTuple):
    """`clients`: the addresses of those who have it open to write; `marks`: metadata of ours by its key; `parent`: the
    image that it still shares data with."""

    size_bytes: int
    snapshots: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    marks: dict[str, str] = {}  # noqa: RUF012
    parent: str = ""


class OpenImage(Protocol):
    async def read(self, offset_bytes: int, length_bytes: int) -> bytes: ...
    async def write(self, offset_bytes: int, data: bytes) -> None: ...
    async def close(self) -> None: ...


class Cluster(Protocol):
    async def connect(self) -> str:
        """The fsid of the cluster, whose pool is there."""
        ...

    def close(self) -> None: ...

    async def space(self) -> tuple[int, int]:
        """Bytes that the pool can hold in all and yet; 0, 0 while the cluster has no manager that counts them."""
        ...

    async def images(self) -> list[str]: ...

    async def look(self, image: str) -> RbdImage | None: ...

    async def create(self, image: str, size_bytes: int) -> None: ...

    async def clone(self, parent: str, snapshot: str, image: str) -> None:
        """Copy on write; the snapshot may be removed at once, and hides then until its last clone is gone."""
        ...

    async def resize(self, image: str, size_bytes: int) -> None: ...

    async def rename(self, image: str, name: str) -> None: ...

    async def remove(self, image: str) -> None:
        """One that clones still share data with hides in the trash until they are gone."""
        ...

    async def purge(self) -> None:
        """What hides in the trash and has no clones any more goes."""
        ...

    async def snapshot(self, image: str, snapshot: str) -> None: ...

    async def remove_snapshot(self, image: str, snapshot: str) -> None: ...

    async def has_clones(self, image: str, snapshot: str) -> bool: ...

    async def roll_back(self, image: str, snapshot: str) -> None: ...

    async def mark(self, image: str, key: str, value: str | None) -> None:
        """Keep that with it; None: no longer."""
        ...

    async def cut_off(self, image: str, clients: tuple[str, ...]) -> None:
        """Those clients of the cluster may never write again, and hold the image's lock no longer."""
        ...

    async def changed(
        self, image: str, snapshot: str, since: str | None, offset_bytes: int, length_bytes: int
    ) -> list[Extent]: ...

    async def open(self, image: str, snapshot: str | None, *, writes: bool) -> OpenImage: ...
