"""What a guest has used since it started, as its hypervisor counts."""

from __future__ import annotations

from typing import Annotated

import msgspec

from droveway.domain.wire import FEW, Count, ShortText


class CpuUse(msgspec.Struct, frozen=True):
    id: Count
    time_ns: Count


class NicUse(msgspec.Struct, frozen=True):
    """The counters of one interface, as the guest sees the directions."""

    mac: ShortText
    device: ShortText = ""
    rx_bytes: Count = 0
    rx_packets: Count = 0
    rx_errors: Count = 0
    rx_drop: Count = 0
    tx_bytes: Count = 0
    tx_packets: Count = 0
    tx_errors: Count = 0
    tx_drop: Count = 0


class DiskUse(msgspec.Struct, frozen=True):
    device: ShortText  # vda
    read_bytes: Count = 0
    read_requests: Count = 0
    write_bytes: Count = 0
    write_requests: Count = 0


class GuestDiagnostics(msgspec.Struct, frozen=True):
    """`state`: in Nova's words. Memory in MiB."""

    state: ShortText
    driver: ShortText
    hypervisor: ShortText
    uptime_s: Count = 0
    cpus: Annotated[tuple[CpuUse, ...], FEW] = ()
    nics: Annotated[tuple[NicUse, ...], FEW] = ()
    disks: Annotated[tuple[DiskUse, ...], FEW] = ()
    memory_maximum_mb: Count = 0
    memory_used_mb: Count = 0
