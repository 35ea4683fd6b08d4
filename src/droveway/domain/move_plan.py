"""The dry run of moves: whether a guest could go to a host, with each check and its answer, and what that would take.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from droveway.domain.move_checks import CheckAnswer, first_failed
from droveway.domain.move_prediction import GuestLoad, Mode, Prediction, Way


class MoveVerdict(StrEnum):
    MOVES = "moves"
    ENDLESS = "does not end"  # nothing stands in its way, but that its guest writes faster than it is copied
    UNKNOWN = "unknown"  # a check could not be looked at, and none has failed
    BLOCKED = "blocked"


class TriedHost(msgspec.Struct, frozen=True):
    """One destination. `shares_store`: whether the two see one instance store; None: not found out. `copy_bytes`: of
    its disks, to be copied."""

    host: str
    verdict: MoveVerdict
    blockers: tuple[str, ...] = ()  # the names of the checks that fail
    checks: tuple[CheckAnswer, ...] = ()
    shares_store: bool | None = None
    copy_bytes: int = 0
    predictions: tuple[Prediction, ...] = ()


class TriedServer(msgspec.Struct, frozen=True):
    id: str
    name: str
    host: str


class MovePlan(msgspec.Struct, frozen=True):
    """`checks`: of the server and its host alone. `mode`: what a migration here does about a guest that writes faster
    than it is copied. `more`: hosts that keep the rules and were not asked."""

    server: TriedServer
    checks: tuple[CheckAnswer, ...]
    load: GuestLoad | None
    way: Way
    mode: Mode
    hosts: tuple[TriedHost, ...]
    more: int = 0


class TriedPair(msgspec.Struct, frozen=True):
    server_id: str
    host: str
    verdict: MoveVerdict
    blocker: str = ""
    reason: str = ""


class MoveMatrix(msgspec.Struct, frozen=True):
    """Every server against every host. `more_servers`, `more_hosts`: how many there are beside these."""

    servers: tuple[TriedServer, ...]
    hosts: tuple[str, ...]
    pairs: tuple[TriedPair, ...]
    more_servers: int = 0
    more_hosts: int = 0


def verdict(checks: Sequence[CheckAnswer], predicted: Prediction | None) -> MoveVerdict:
    """`predicted`: of the mode that would be used; None where nothing is known of the guest's load."""
    if first_failed(checks) is not None:
        return MoveVerdict.BLOCKED
    if any(one.passed is None for one in checks):
        return MoveVerdict.UNKNOWN
    return MoveVerdict.ENDLESS if predicted is not None and predicted.duration_s is None else MoveVerdict.MOVES


def blockers(checks: Sequence[CheckAnswer]) -> tuple[str, ...]:
    return tuple(one.name for one in checks if one.passed is False)
