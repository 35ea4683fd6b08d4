"""What a host has reported of itself, as the columns of the scheduler need it of the stored JSON."""

from __future__ import annotations

import msgspec

from droveway.domain.placement import NumaCell


class Reported(msgspec.Struct, frozen=True):
    """The part of a host's resources that placing looks at; decoded alone, which is a third of the work."""

    hypervisor_hostname: str = ""
    hypervisor_type: str = ""
    hypervisor_version: int = 0
    cpu_arch: str = "x86_64"
    machine_types: tuple[str, ...] = ()
    firmwares: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    cells: tuple[NumaCell, ...] = ()
    vcpus: int = 0
    memory_mb: int = 0
    reserved_memory_mb: int = 0
    disk_gb: int = 0
    reserved_disk_gb: int = 0
    store_trouble: str = ""
    root_pool: str = ""


class ReportedOfSource(Reported, frozen=True):
    cpu_xml: str = ""


decode_reported = msgspec.json.Decoder(Reported).decode


decode_source = msgspec.json.Decoder(ReportedOfSource).decode


NOTHING_REPORTED = Reported()
