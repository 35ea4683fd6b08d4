"""The ServiceGroup port: who is a member, kept by each driver in its own way, judged by what the driver declares.

Five verbs, as operators know them from the articles: join, leave, get_all, get_one, service_is_up. A worker joins when
it starts; control asks. A driver says in `guarantees` what its answer rests on, and callers rely on nothing more.

Guarantees every driver gives (tests/drivers/test_membership_contract.py holds them):
- a member that joined is seen as present within `detection_s`; one whose process is killed is seen as absent within
  `detection_s`; one that keeps beating is never seen as absent while the server answers;
- while the server cannot be reached the answer is `Unknown`, never absence: a dead broker makes no member absent. When
  it is back those who were present before are held as present (`is_held`) for a bounded time: the server may have
  expired them all while no member could beat. `detection_s` then begins anew;
- `join` keeps at it: a session or lease that was lost is made again without help; a name that is still held by an
  earlier process of the same member is waited for (`sg_retry_interval`) or, where the server can pass it on without a
  gap, taken over; both are said;
- asking is watching: from the first question about a group on its changes are told by drivers that push;
- what stands in the server's namespace and is no member's name is ignored;
- clocks of two machines are never compared.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec

from droveway.domain.faults import Fault

NAME_MAX = 255  # characters of a group or of a member
EVERY_SERVICE = "services"  # the group of all services, whose members are `host/binary`


class DetectedBy(StrEnum):
    COUNTER = "counter"  # a rising number, timed by the observer's own clock
    LEASE = "lease"  # the server's session or lease: the server's clock alone
    STAMP = "stamp"  # one server's clock on both sides (the database's)


class Guarantees(msgspec.Struct, frozen=True):
    """What a driver's answer rests on."""

    detected_by: DetectedBy
    may_forget: bool  # the server may lose a live member (eviction, restart): absence alone is then no proof
    pushes: bool  # changes are told; otherwise they are found by asking
    detection_s: float  # from the death of a member until it is seen, at most, with the settings given


class Presence(msgspec.Struct, frozen=True):
    """One member as the server knows it. `beats` and `seen_at_us` are for people: what `report_count` and
    `updated_at` show; 0 when the driver has none. `is_held`: nothing new may be concluded yet, the last state is kept
    (the server was away, or the member is known too briefly to have been seen beating)."""

    member: str
    is_present: bool
    reason: str
    beats: int = 0
    seen_at_us: int = 0
    is_held: bool = False


class Unknown(Fault):
    """The membership server does not answer: nothing may be said about anybody."""


class ServiceGroup(Protocol):
    """One end of a group. Members are `host` or `host/binary`; a group is `compute` and the like, or EVERY_SERVICE.
    Names are at most NAME_MAX characters; an impossible one is BadRequest."""

    guarantees: Guarantees

    async def open(self, changed: Callable[[str, str], None], connection: Callable[[bool, str], None]) -> None:
        """Start. `changed(group, member)` is called in the loop when a watched group may have changed (drivers that
        push); `connection(is_up, sentence)` when the server is lost or back. Returns at once when the server is down:
        the driver connects by itself, with bounded back-off, and says so."""
        ...

    async def close(self) -> None:
        """Leave quietly: sessions are closed, so members of this end vanish at once where the server allows it."""
        ...

    async def join(self, group: str, member: str) -> None:
        """Be a member from now on, until `leave`, `close` or the death of this process. Returns once the member is
        registered, or is being registered in the background because the server is away."""
        ...

    async def leave(self, group: str, member: str) -> None: ...

    async def get_all(self, group: str) -> dict[str, Presence]:
        """Every member that is known, present or not. Raises Unknown."""
        ...

    async def get_one(self, group: str, member: str) -> Presence | None:
        """None when there never was such a member (or the driver forgets the dead). Raises Unknown."""
        ...

    async def service_is_up(self, group: str, member: str) -> bool:
        """Present now. Raises Unknown."""
        ...
