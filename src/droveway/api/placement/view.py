"""How a host looks as a resource provider, by the very arithmetic that placing uses (scheduler/capacity.py).

VCPU and PCPU are two ways to give away the same CPUs: one that a pinned guest holds is reserved from the VCPUs, and as
many as the floating guests need are reserved from the PCPUs. PCPU is there where the host tells its NUMA cells.
"""

from __future__ import annotations

import math
from email.utils import formatdate
from typing import Any

import msgspec

from droveway.api.http.faults import NoProvider, NoSuchMethod
from droveway.api.http.request import Request, Response
from droveway.api.http.router import Handler, refusal
from droveway.api.wiring import Api
from droveway.domain.placement import HostFacts, PlacementSettings
from droveway.domain.traits import traits_of
from droveway.scheduler import capacity as headroom
from droveway.store.compute import inventories
from droveway.store.compute.inventories import HostClaims, Provider
from droveway.store.engine.transaction import Tx

ROOT = "/placement"
VCPU, PCPU, MEMORY_MB, DISK_GB = "VCPU", "PCPU", "MEMORY_MB", "DISK_GB"
CLASSES = (VCPU, PCPU, MEMORY_MB, DISK_GB)


class Inventory(msgspec.Struct, frozen=True):
    """How much of one class a provider has; the names are Placement's."""

    total: int
    reserved: int
    max_unit: int
    allocation_ratio: float
    min_unit: int = 1
    step_size: int = 1

    @property
    def capacity(self) -> int:
        return math.floor((self.total - self.reserved) * self.allocation_ratio + headroom.NOISE)


# -- one host ---------------------------------------------------------------------------------------------------------
def inventories_of(facts: HostFacts, settings: PlacementSettings) -> dict[str, Inventory]:
    """What there is, by class. A class of which there is nothing is left out."""

    def made(total: int, reserved: int, ratio: float, largest: int) -> Inventory:
        return Inventory(total, min(max(0, reserved), total), max(1, largest), ratio)

    alone = headroom.dedicated(facts)
    found = {VCPU: made(facts.vcpus, alone, settings.cpu_ratio, facts.vcpus - alone)}
    if facts.cells:
        free = headroom.headroom_of(facts, headroom.ratios_of(settings))["own_cpu"]
        found[PCPU] = made(facts.vcpus, facts.vcpus - alone - free, 1.0, facts.vcpus)
    reserved_mb = facts.reserved_memory_mb + settings.reserved_memory_mb
    found[MEMORY_MB] = made(facts.memory_mb, reserved_mb, settings.ram_ratio, facts.memory_mb)
    reserved_gb = facts.reserved_disk_gb + settings.reserved_disk_gb
    found[DISK_GB] = made(facts.disk_gb, reserved_gb, settings.disk_ratio, facts.disk_gb)
    return {name: inventory for name, inventory in found.items() if inventory.total > 0}


def used(facts: HostFacts) -> dict[str, int]:
    """What is held of each class."""
    alone = headroom.dedicated(facts)
    return {VCPU: facts.vcpus_used - alone, PCPU: alone, MEMORY_MB: facts.ram_mb_used, DISK_GB: facts.disk_gb_used}


def amounts(holding: HostClaims) -> dict[str, int]:
    """What one consumer holds, by class; nothing is left out."""
    found = {
        VCPU: holding.vcpus - holding.pinned,
        PCPU: holding.pinned,
        MEMORY_MB: holding.ram_mb,
        DISK_GB: holding.disk_gb,
    }
    return {name: amount for name, amount in found.items() if amount > 0}


def traits(facts: HostFacts) -> frozenset[str]:
    """Of the host; one that was disabled or whose report was refused takes no new guests."""
    return traits_of(facts.cpu_features, facts.architecture, closed=facts.disabled or bool(facts.refused))


# -- replies ----------------------------------------------------------------------------------------------------------
_LINKS = (("inventories", 0), ("usages", 0), ("aggregates", 1), ("traits", 6), ("allocations", 11))  # since 1.N


def provider_body(provider: Provider, version: int) -> dict[str, Any]:
    uuid = provider.facts.uuid
    path = f"{ROOT}/resource_providers/{uuid}"
    links = [{"rel": "self", "href": path}]
    links.extend({"rel": rel, "href": f"{path}/{rel}"} for rel, since in _LINKS if version >= since)
    body = {"uuid": uuid, "name": provider.name, "generation": provider.facts.claims, "links": links}
    return {**body, "parent_provider_uuid": None, "root_provider_uuid": uuid} if version >= 14 else body


def answer(api: Api, request: Request, value: Any) -> Response:
    """All of it is computed while it is asked for: it was modified now, and is not to be cached (said since 1.15)."""
    return Response(200, value, headers=_fresh(api, request))


def nothing(api: Api, request: Request) -> Response:
    return Response(204, headers=_fresh(api, request))


def _fresh(api: Api, request: Request) -> list[tuple[bytes, bytes]]:
    if request.version < 15:
        return []
    now = formatdate(api.clock.now_us() / 1_000_000, usegmt=True)
    return [(b"last-modified", now.encode()), (b"cache-control", b"no-cache")]


def find(tx: Tx, request: Request) -> Provider:
    """The provider that the path names. Raises NoProvider."""
    uuid = request.params["provider"]
    provider = inventories.provider(tx, uuid)
    if provider is None:
        raise NoProvider(f"No resource provider with uuid {uuid[:64]} found.")
    return provider


def refused(reason: str, *allowed: str) -> Handler:
    """The handler of a method that would write: there is nothing to write to. `sentence` says what it follows from."""

    @refusal
    async def refuse(api: Api, request: Request) -> Response:
        raise NoSuchMethod(reason, list(allowed))

    return refuse
