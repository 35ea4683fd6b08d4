"""What an audit reads, and every kind of finding with how severe it is and what repairs it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from droveway.domain.model import Guest, Subject
from droveway.domain.placement import HeldCell, HostFacts


class Instance(msgspec.Struct, frozen=True):
    """Of its row what an audit looks at."""

    id: str
    name: str
    host: str | None
    vm_state: str
    task_state: str | None
    power_state: int
    ran_boot_id: str | None
    deleted: bool
    fence: int
    updated_at_us: int
    held_cells: tuple[HeldCell, ...] = ()
    root_pool: str | None = None


class Migration(msgspec.Struct, frozen=True):
    """One that is shown as under way or holds a claim."""

    id: int
    instance_id: str
    saga_id: str
    status: str
    destination: str | None
    holds_claim: bool
    updated_at_us: int
    held_cells: tuple[HeldCell, ...] = ()


Seen = tuple[int, str | None]  # an instance's fence, and its place: a removal that was owed and is paid moves it alone


class BrokenSaga(msgspec.Struct, frozen=True):
    """A saga that holds its subject until an operator lets it go on."""

    id: str
    kind: str
    subject: Subject
    error: str
    updated_at_us: int


class StoreSnapshot(msgspec.Struct):
    """One snapshot of the store. `instances`: all that are not deleted, the deleted ones that a host still owes, and
    whatever a host named."""

    instances: dict[str, Instance]
    hosts: list[HostFacts] = []
    migrations: list[Migration] = []
    open_sagas: set[str] = set()
    busy: set[str] = set()  # instances with a saga that has not ended, be it queued
    broken: list[BrokenSaga] = []
    cleanups: set[str] = set()  # instances with files that a host deletes as soon as it answers


class Listing(msgspec.Struct, frozen=True):
    """What one host says it has, asked afresh. `files`: instances with a directory on its instance store."""

    host: str
    boot_id: str
    guests: tuple[Guest, ...] = ()
    admitted: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class PoolListing(msgspec.Struct, frozen=True):
    """The instances of which a root disk lies in a pool, as one host of it says, asked afresh. Not `is_whole`: there
    may be more than one answer holds."""

    host: str
    pool: str
    instance_ids: tuple[str, ...] = ()
    is_whole: bool = True


class Severity(StrEnum):
    HIGH = "high"  # data or a running guest is at stake
    MEDIUM = "medium"  # something cannot go on, or room is counted wrongly
    LOW = "low"  # a leftover


class Repair(StrEnum):
    HUMAN = "human"  # what is right cannot be known from here
    COMPARE = "compare"  # the guests loop looks at that host now, by its own rules
    RELEASE_CLAIM = "release claim"
    END_MIGRATION = "end migration"
    END_TASK = "end task"
    FAIL_BUILD = "fail build"
    DELETE = "delete"
    TIDY_VOLUME = "tidy volume"  # a saga ends on that backend what no row wants
    REMOVE_FILES = "remove files"  # owed to a host from then on: the guests loop pays it
    REMOVE_ROOT_DISK = "remove root disk"  # likewise, in the pool that the host works with


class Finding(msgspec.Struct, frozen=True):
    """`key` names it in every audit that finds it. `plan`: what would be done, or what a human has to do."""

    key: str
    kind: str
    severity: Severity
    what: str
    where: str
    since_us: int | None
    reason: str
    repair: Repair
    plan: str
    subject: str = ""  # the instance, the migration or the saga, by id


# kind: (how bad, who repairs it, how)
KINDS: dict[str, tuple[Severity, Repair, str]] = {
    "runs twice": (
        Severity.HIGH,
        Repair.HUMAN,
        "find out which of the two is right, then end the other one on its host by hand",
    ),
    "out of place": (
        Severity.HIGH,
        Repair.HUMAN,
        "nothing ends a running guest by a guess: end it there by hand, or delete the server",
    ),
    "no place": (Severity.HIGH, Repair.HUMAN, "delete the server, or end its guest by hand if a host has one"),
    "unknown host": (Severity.HIGH, Repair.HUMAN, "start the agent of that host again, or delete the server"),
    "orphaned guest": (Severity.MEDIUM, Repair.HUMAN, "no row names its instance: look at it, then end it by hand"),
    "over-claimed": (Severity.MEDIUM, Repair.HUMAN, "live-migrate guests away from it, or raise its ratio"),
    "cells overlap": (Severity.MEDIUM, Repair.HUMAN, "live-migrate one of the two: its cells are chosen anew"),
    "broken saga": (Severity.MEDIUM, Repair.HUMAN, "remove the cause, then 'droveway saga retry {subject}'"),
    "differs": (Severity.MEDIUM, Repair.COMPARE, "the guests loop looks at {where} now, and then: {remedy}"),
    "forgotten build": (Severity.MEDIUM, Repair.FAIL_BUILD, "show it as ERROR, so that its user can delete it"),
    "forgotten delete": (Severity.MEDIUM, Repair.DELETE, "delete it: a saga of its own does it"),
    "forgotten task": (Severity.MEDIUM, Repair.END_TASK, "show that nothing is being done to it"),
    "stray claim": (Severity.MEDIUM, Repair.RELEASE_CLAIM, "release the claim: its migration is over"),
    "forgotten migration": (Severity.LOW, Repair.END_MIGRATION, "show the migration as failed"),
    "left over": (Severity.LOW, Repair.COMPARE, "the guests loop removes it from {where} now"),
    "expected in vain": (Severity.LOW, Repair.COMPARE, "the guests loop tells {where} to expect it no longer"),
    "deferred removal": (Severity.LOW, Repair.COMPARE, "the guests loop removes it from {where} now"),
    "files left": (Severity.LOW, Repair.REMOVE_FILES, "the host removes them: the server is deleted and runs nowhere"),
    "orphaned files": (Severity.LOW, Repair.HUMAN, "no row names their instance: look at them, then delete them"),
    "lost root disk": (
        Severity.HIGH,
        Repair.HUMAN,
        "look at that pool: bring its disk back there, or delete the server",
    ),
    "root disk left": (
        Severity.LOW,
        Repair.REMOVE_ROOT_DISK,
        "{where} removes it from its pool: the server is deleted and runs nowhere",
    ),
    "stray root disk": (Severity.LOW, Repair.HUMAN, "its server needs it no longer: delete it there by hand"),
    "orphaned root disk": (Severity.LOW, Repair.HUMAN, "no row names its instance: look at it, then delete it there"),
    "lost volume": (Severity.HIGH, Repair.HUMAN, "look at that backend: bring its volume back there, or delete it"),
    "lost snapshot": (Severity.HIGH, Repair.HUMAN, "look at that backend: nothing can be made of it; delete it"),
    "forgotten admission": (Severity.MEDIUM, Repair.TIDY_VOLUME, "the backend admits them no longer"),
    "unserved backend": (Severity.MEDIUM, Repair.HUMAN, "put its [[host.backend]] back, or its host back in service"),
    "volume left": (Severity.LOW, Repair.TIDY_VOLUME, "that copy is deleted there"),
    "snapshots left": (Severity.LOW, Repair.TIDY_VOLUME, "they are deleted there"),
    "orphaned volume": (Severity.LOW, Repair.HUMAN, "no row names it: look at it, then delete it there by hand"),
}


def finding(
    kind: str, what: str, where: str, reason: str, *, subject: str = "", since_us: int | None = None, remedy: str = ""
) -> Finding:
    severity, repair, plan = KINDS[kind]
    key = f"{kind}/{subject or what}/{where}"
    advice = plan.format(subject=subject[:8], where=where, remedy=remedy)
    return Finding(key, kind, severity, what, where, since_us, reason, repair, advice, subject)
