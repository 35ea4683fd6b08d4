"""Where the bytes of a volume are, as the hypervisor of any host opens them, and the disk that a guest sees of it.

A source is made by the host of the volume's backend and opened on another one, so it is data with a grammar and never
an instruction: a path is below the directory that the opening host's own configuration names, an address and a pool
hold nothing that ends an option of QEMU. A source is the same whatever host opens it, but for the port of an export, so
that a guest takes its disks along; what a host opens it with (a cephx user, a certificate) is that host's own and
crosses no wire.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from droveway.domain.network_plan import Id
from droveway.domain.wire import FEW, Count

Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,128}\Z")]  # a pool, an image, an export, a file
Address = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f:.]{2,45}|[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?)\Z")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Iqn = Annotated[str, msgspec.Meta(pattern=r"^iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.-]{1,100}(:[a-z0-9.-]{1,100})?\Z")]
Device = Annotated[str, msgspec.Meta(pattern=r"^[vsh]d[a-z]{1,2}\Z")]  # as the hypervisor names it: vda


class DiskFormat(StrEnum):
    """Of a volume's bytes. It is always told and never guessed from what a guest wrote."""

    RAW = "raw"
    QCOW2 = "qcow2"


class FileSource(msgspec.Struct, frozen=True, tag="file"):
    """A file of that name below the directory of that backend, which the opening host has too."""

    backend: Word  # its name alone
    name: Word


class RbdSource(msgspec.Struct, frozen=True, tag="rbd"):
    """An image of a pool of the Ceph cluster of that id. Its monitors, and as whom to come, the opening host knows."""

    fsid: Id
    pool: Word
    image: Word


class NbdSource(msgspec.Struct, frozen=True, tag="nbd"):
    """An export of an NBD server that takes mutual TLS alone, and one host: each has a port of its own."""

    address: Address
    port: Port
    export: Word


class IscsiSource(msgspec.Struct, frozen=True, tag="iscsi"):
    address: Address
    port: Port
    target: Iqn
    lun: Annotated[int, msgspec.Meta(ge=0, le=255)]


class SimulatedSource(msgspec.Struct, frozen=True, tag="simulated"):
    """A volume of an imagined backend, to which that host alone is admitted; empty: any, as in older releases."""

    backend: Word
    volume_id: Id
    host: Annotated[str, msgspec.Meta(max_length=255)] = ""


def are_same_bytes(one: DiskSource, other: DiskSource) -> bool:
    """Whether two hosts that were told these open the same volume."""
    if isinstance(one, NbdSource) and isinstance(other, NbdSource):
        return (one.address, one.export) == (other.address, other.export)
    if isinstance(one, SimulatedSource) and isinstance(other, SimulatedSource):
        return (one.backend, one.volume_id) == (other.backend, other.volume_id)
    return one == other


DiskSource = FileSource | RbdSource | NbdSource | IscsiSource | SimulatedSource


class VolumeDisk(msgspec.Struct, frozen=True):
    """One disk of a guest that is a volume. `serial`: the volume's id, as the guest sees it. `limits`: libvirt's names
    for the most that it may move in a second."""

    volume_id: Id
    attachment_id: Id
    source: DiskSource
    device: Device
    size_gb: Count
    disk_format: DiskFormat = DiskFormat.RAW
    bus: Annotated[str, msgspec.Meta(pattern=r"^(virtio|scsi|sata|ide|usb)\Z")] = "virtio"
    read_only: bool = False
    boot_index: int = -1  # 0 is begun from first; below: not begun from
    limits: Annotated[dict[str, int], FEW] = {}
