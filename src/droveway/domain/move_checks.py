"""What is asked before a guest moves: checks that each have a name and an answer. Pure.

The saga of a live migration, the refusal that a client of before 2.34 reads at once, and the dry run ask the same
questions with the same functions. Where a guest may be placed is asked by the rules of scheduler/filters.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from droveway.domain.model import GuestState, VmState
from droveway.domain.wire import Reason, ShortText

MIB = 1024**2


class Check(StrEnum):
    """In the order in which they are asked."""

    ACTIVE = "active"  # is the server active?
    NUMA = "numa"  # is it bound to no NUMA cells of its host?
    SOURCE_UP = "source_up"  # are its host and the hypervisor there up?
    BACKENDS = "volume_backends"  # is the backend of each of its volumes up?
    OTHER_HOST = "other_host"  # is the destination another host?
    PLACEMENT = "placement"  # does the destination keep every rule of placement: up, type and version, memory, …?
    NOT_THERE = "not_there"  # is no guest of that id at the destination?
    MACHINE = "machine_type"  # does the destination know the machine that the guest is?
    CPU = "cpu_model"  # can the destination's CPU run what runs on the source's?
    VOLUMES = "volume_ways"  # has the destination a way to open each of its volumes?
    POOL = "root_pool"  # has the destination the pool of Ceph in which its root disk lies, and do the two see the same?
    GUEST = "guest"  # does the guest run at the source?
    IO_ERROR = "io_error"  # is it not paused because a disk takes no writes?
    DEVICES = "devices"  # has it no device of its host that cannot go along?
    STORE = "store"  # does the wish for block migration fit whether the two share their instance store?
    ROOM = "room"  # is there room at the destination for the disks that go along?


class CheckAnswer(msgspec.Struct, frozen=True):
    """`passed` None: it could not be looked at, and `reason` says why. The reason of one that passed may be empty."""

    name: ShortText
    passed: bool | None
    reason: Reason = ""


class VolumeBackend(msgspec.Struct, frozen=True):
    """Of one volume. `is_up` None: the backend has never reported."""

    volume_id: str
    backend: str
    is_up: bool | None
    reason: str = ""


def answer(name: Check, passed: bool, reason: str) -> CheckAnswer:
    """The reason is that of a failure."""
    return CheckAnswer(name.value, passed, "" if passed else reason)


def first_failed(answers: Iterable[CheckAnswer]) -> CheckAnswer | None:
    return next((one for one in answers if one.passed is False), None)


# -- what the rows say ------------------------------------------------------------------------------------------------
def of_server(name: str, vm_state: str, host: str | None, *, holds_cells: bool) -> tuple[CheckAnswer, ...]:
    return (
        answer(Check.ACTIVE, vm_state == VmState.ACTIVE, f"instance {name} is {vm_state}, not active"),
        answer(
            Check.NUMA,
            not holds_cells,
            f"instance {name} holds NUMA cells of {host} and is bound to them; it cannot be moved while it runs",
        ),
    )


def of_source(name: str, reason: str, *, is_up: bool, hypervisor_up: bool) -> CheckAnswer:
    if not is_up:
        return answer(Check.SOURCE_UP, False, f"its host {name} is down: {reason}")
    return answer(Check.SOURCE_UP, hypervisor_up, f"the hypervisor of its host {name} does not answer")


def of_backends(volumes: Sequence[VolumeBackend]) -> CheckAnswer:
    """One that has never reported is asked by the saga itself."""
    down = next((one for one in volumes if one.is_up is False), None)
    if down is None:
        return answer(Check.BACKENDS, True, "")
    why = f": {down.reason}" if down.reason else ""
    reason = f"volume {down.volume_id} lies on {down.backend}, which is down{why}; it moves once that is back"
    return answer(Check.BACKENDS, False, reason)


def of_other_host(source: str, asked: str | None) -> CheckAnswer:
    return answer(
        Check.OTHER_HOST,
        asked != source,
        f"{source} is where the instance already runs; name another host, or none",
    )


# -- what the two hosts say -------------------------------------------------------------------------------------------
def of_guest(state: GuestState, stalled: str, devices: Sequence[str]) -> tuple[CheckAnswer, ...]:
    """At the source. `stalled`: the disk that takes no writes, and why; empty where the guest waits for none."""
    runs = state is GuestState.RUNNING or bool(stalled)
    named = ", ".join(devices)
    return (
        answer(Check.GUEST, runs, "the guest does not run there now"),
        answer(
            Check.IO_ERROR,
            not stalled,
            f"the guest is paused because {stalled}; it goes on by itself once the disk takes writes again, and moves "
            "then",
        ),
        answer(
            Check.DEVICES,
            not devices,
            f"the guest has a device of its host that cannot go along: {named}; take it from the guest, or stop the "
            "server first",
        ),
    )


def of_pool(source: str, destination: str, pool: str, *, is_shared: bool) -> CheckAnswer:
    """`pool`: of the guest's root disk; empty where that lies in none."""
    return answer(
        Check.POOL,
        not pool or is_shared,
        f"{source} and {destination} do not see the same pool of root disks ({pool}): the test object of {destination} "
        "is not there",
    )


def of_store(
    source: str, destination: str, asked: bool | str | None, *, is_shared: bool, needs_store: bool
) -> CheckAnswer:
    """`asked`: the client's `block_migration`. A guest without files of its own moves either way, but where block
    migration was asked for by its name."""
    both = f"{source} and {destination}"
    if is_shared:
        return answer(
            Check.STORE,
            asked is not True,
            f"block migration is refused: {both} share their instance store; ask without block migration",
        )
    return answer(
        Check.STORE,
        not needs_store or asked is not False,
        f"{both} do not share their instance store: the guest's disks have to go along; ask with block migration",
    )


def of_room(instance_id: str, free_bytes: int, needed_bytes: int) -> CheckAnswer:
    """`free_bytes` may be below 0, where disks were promised more than there is."""
    return answer(
        Check.ROOM,
        free_bytes >= needed_bytes,
        f"The instance store of this host has {free_bytes / MIB:.0f} MiB free, and the disks of guest {instance_id} "
        f"need {needed_bytes / MIB:.0f} MiB.",
    )
