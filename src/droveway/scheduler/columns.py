"""All hosts as columns: one row a host, rows without gaps, so that a rule looks at all hosts in a few microseconds.

Texts become small numbers: hosts of one make share a `kind`, hosts of the same aggregates share their metadata. What a
rule says of a kind is found once and kept. Not safe for several threads: the owner locks shared columns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from droveway.domain.placement import HeldCell, HostFacts, PlacementRequest, PlacementSettings
from droveway.scheduler import numa
from droveway.scheduler.capacity import FIELDS as CAPACITY_FIELDS
from droveway.scheduler.capacity import WHOLE, Ratios, headroom_of, ratios_of
from droveway.scheduler.host_classes import host_class_of, metadata_of

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

KEPT = 64  # answers kept at once
ROWS_MIN = 8


class InternedTexts:
    """Values as small numbers, and what was found out about each of them."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._values: list[Any] = []
        self._answers: dict[Hashable, Mask] = {}

    def __len__(self) -> int:
        return len(self._values)

    def number(self, value: Hashable) -> int:
        """The number of this value; a new one when it is new."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def known(self, value: Hashable) -> int:
        """The number of this value, or -1."""
        return self._numbers.get(value, -1)

    def answers(self, key: Hashable, asked: Callable[[Any], bool]) -> Mask:
        """`asked` of every value, by number; asked once of each."""
        found = self._answers.get(key)
        if found is None or len(found) < len(self._values):
            start = 0 if found is None else len(found)
            fresh = np.array([asked(value) for value in self._values[start:]], dtype=np.bool_)
            found = fresh if found is None else np.concatenate([found, fresh])
            if len(self._answers) >= KEPT:
                self._answers.clear()
            self._answers[key] = found
        return found


TYPES: dict[str, type[np.generic]] = {
    "id": np.int64,
    "up": np.bool_,
    "enabled": np.bool_,
    "report_accepted": np.bool_,
    "answers": np.bool_,
    "stores": np.bool_,
    "zone": np.intp,
    "pool": np.intp,
    "kind": np.intp,
    "metadata": np.intp,
    "instances": np.int64,
    "failures": np.int64,
}
# What a claim changes. Anything else that changes makes the kept answers worthless.
DYNAMIC_FIELDS = (
    "vcpus",
    "memory_mb",
    "reserved_memory_mb",
    "disk_gb",
    "reserved_disk_gb",
    "vcpus_used",
    "ram_mb_used",
    "disk_gb_used",
    "instances",
    "claims",
    "failures",
    "cells",
    "held_cells",
    "uuid",
    "reason",
    "disabled_reason",
)
STATIC_FIELDS = tuple(name for name in HostFacts.__struct_fields__ if name not in DYNAMIC_FIELDS)


class Columns:
    """The hosts. `version` rises with every change of what a claim does not change."""

    def __init__(self) -> None:
        self.version = 0
        self._rows: dict[str, int] = {}
        self._facts: list[HostFacts] = []
        self._full = {name: np.zeros(ROWS_MIN, dtype=kind) for name, kind in TYPES.items()}
        self._cells = {name: np.full((1, ROWS_MIN), -1, dtype=np.int64) for name in numa.FIELDS}
        self._headrooms: dict[Ratios, dict[str, Ints]] = {}
        self._kept: dict[Hashable, Any] = {}
        self._pools_used: dict[str, int] = {}  # of each pool of root disks, what all of its users have been promised
        self.zones, self.kinds, self.metadatas = InternedTexts(), InternedTexts(), InternedTexts()
        self.pools = InternedTexts()

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[HostFacts]:
        return iter(self._facts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def facts(self, name: str) -> HostFacts:
        """The host as it is known now; KeyError when it is not."""
        return self.at(self._rows[name])

    def row(self, name: str) -> int | None:
        return self._rows.get(name)

    def at(self, row: int) -> HostFacts:
        facts = self._facts[row]
        used_gb = self._pools_used.get(facts.root_pool, facts.disk_gb_used) if facts.root_pool else facts.disk_gb_used
        return facts if used_gb == facts.disk_gb_used else msgspec.structs.replace(facts, disk_gb_used=used_gb)

    def column(self, name: str) -> NDArray[Any]:
        return self._full[name][: len(self._facts)]

    def cells(self, name: str) -> Ints:
        """A row for the first cell of each host, the second, …: what it has of `name` (numa.FIELDS), -1 without one."""
        return self._cells[name][:, : len(self._facts)]

    def headroom(self, name: str, settings: PlacementSettings) -> Ints:
        """What each host can still give of `name` (room.FIELDS) under these settings."""
        ratios = ratios_of(settings)
        if ratios not in self._headrooms:
            if len(self._headrooms) >= 2:
                self._headrooms.clear()
            size = len(self._full["id"])
            self._headrooms[ratios] = {field: np.zeros(size, dtype=np.int64) for field in CAPACITY_FIELDS}
            for row in range(len(self._facts)):
                self._write_headroom(row, ratios)
        return self._headrooms[ratios][name][: len(self._facts)]

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, until a host changes in more than its use."""
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            found = self._kept[key] = make()
        return found

    def put(self, facts: HostFacts) -> None:
        """A host as it is now: new, or instead of what was known of it. Of a pool of root disks the last word counts
        for all hosts that use it."""
        if facts.root_pool:
            self._set_pool(facts.root_pool, facts.disk_gb_used)
        row = self._rows.get(facts.name)
        if row is None:
            row = self._rows[facts.name] = len(self._facts)
            self._facts.append(facts)
            if row >= len(self._full["id"]):
                self._grow()
            self._write_static(row)
        else:
            before, self._facts[row] = self._facts[row], facts
            if any(getattr(before, name) != getattr(facts, name) for name in STATIC_FIELDS):
                self._write_static(row)
        self._write_use(row)

    def drop(self, name: str) -> None:
        """Forget a host; the last row takes its place. One that is not known is none."""
        row = self._rows.pop(name, None)
        if row is None:
            return
        last = len(self._facts) - 1
        if row != last:
            self._facts[row] = self._facts[last]
            self._rows[self._facts[row].name] = row
            for column in self._every():
                column[..., row] = column[..., last]
        self._facts.pop()
        self._changed()

    def hold(self, name: str, ask: PlacementRequest, cells: tuple[HeldCell, ...] = (), sign: int = 1) -> None:
        """A claim made here, or with -1 given back: use, instances and cells follow, and claims rises by one."""
        row = self._rows[name]
        old = self.at(row)
        if old.root_pool:
            self._set_pool(old.root_pool, old.disk_gb_used + sign * ask.disk_gb)
        held = list(old.held_cells)
        for cell in cells:
            if sign > 0:
                held.append(cell)
            elif cell in held:
                held.remove(cell)
        self._facts[row] = msgspec.structs.replace(
            old,
            vcpus_used=old.vcpus_used + sign * ask.vcpus,
            ram_mb_used=old.ram_mb_used + sign * ask.ram_mb,
            disk_gb_used=old.disk_gb_used + sign * ask.disk_gb,
            instances=old.instances + sign,
            claims=old.claims + 1,
            held_cells=tuple(held),
        )
        self._write_use(row)

    def _set_pool(self, pool: str, used_gb: int) -> None:
        if self._pools_used.get(pool) == used_gb:
            return
        self._pools_used[pool] = used_gb
        users = self.column("pool") == self.pools.known(pool)
        for columns in self._headrooms.values():
            here = columns["disk_all"][: len(users)][users]
            columns["disk"][: len(users)][users] = here - used_gb
            shares = (here - used_gb) * WHOLE // np.maximum(here, 1)
            columns["disk_share"][: len(users)][users] = np.where(here > 0, shares, 0)

    def _every(self) -> Iterator[NDArray[Any]]:
        yield from self._full.values()
        yield from self._cells.values()
        for headroom in self._headrooms.values():
            yield from headroom.values()

    def _grow(self) -> None:
        for columns in (self._full, self._cells, *self._headrooms.values()):
            for name, column in columns.items():
                columns[name] = np.concatenate([column, np.zeros_like(column)], axis=-1)

    def _changed(self) -> None:
        self.version += 1
        self._kept.clear()

    def _write_static(self, row: int) -> None:
        facts, full = self._facts[row], self._full
        full["id"][row] = facts.id
        full["up"][row] = facts.is_up
        full["enabled"][row] = not facts.disabled
        full["report_accepted"][row] = not facts.refused
        full["answers"][row] = facts.hypervisor_up
        full["stores"][row] = not facts.store_trouble
        full["zone"][row] = self.zones.number(facts.zone)
        full["pool"][row] = self.pools.number(facts.root_pool)
        full["kind"][row] = self.kinds.number(host_class_of(facts))
        full["metadata"][row] = self.metadatas.number(metadata_of(facts))
        self._changed()
        if max(len(self.zones), len(self.kinds), len(self.metadatas)) > 2 * len(self._facts) + KEPT:
            self._renumber()

    def _renumber(self) -> None:
        """Values that no host has any more go."""
        self.zones, self.kinds, self.metadatas = InternedTexts(), InternedTexts(), InternedTexts()
        for row, facts in enumerate(self._facts):
            self._full["zone"][row] = self.zones.number(facts.zone)
            self._full["kind"][row] = self.kinds.number(host_class_of(facts))
            self._full["metadata"][row] = self.metadatas.number(metadata_of(facts))

    def _write_use(self, row: int) -> None:
        facts = self._facts[row]
        self._full["instances"][row] = facts.instances
        self._full["failures"][row] = facts.failures
        for ratios in self._headrooms:
            self._write_headroom(row, ratios)
        self._write_cells(row)

    def _write_headroom(self, row: int, ratios: Ratios) -> None:
        columns = self._headrooms[ratios]
        for name, value in headroom_of(self.at(row), ratios).items():
            columns[name][row] = value

    def _write_cells(self, row: int) -> None:
        facts = self._facts[row]
        known, size = self._cells[numa.FIELDS[0]].shape
        if len(facts.cells) > known:
            for name, column in self._cells.items():
                more = np.full((len(facts.cells) - known, size), -1, dtype=np.int64)
                self._cells[name] = np.concatenate([column, more])
        free = numa.free_cells(facts)
        for place, name in enumerate(numa.FIELDS):
            column = self._cells[name]
            column[:, row] = -1
            for index, cell in enumerate(free):
                column[index, row] = cell[place + 1]
