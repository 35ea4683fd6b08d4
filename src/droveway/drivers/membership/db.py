"""Members as rows of the services table: the driver people know, by row A2's rule and the database's clock.

The one driver that imports the store (a named exception in pyproject.toml): it is control's own. Agents hold no
database credentials; their beats arrive over the bus and are handed to `beat`, and every `report_interval` all that
have arrived are written in one statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from sqlalchemy.exc import DBAPIError

from droveway.config.membership import MembershipSettings
from droveway.domain import service_kinds
from droveway.domain.faults import BadRequest, Busy
from droveway.drivers.membership import names
from droveway.drivers.membership.grace import Grace
from droveway.drivers.membership.unending import unending
from droveway.ports.clock import Clock
from droveway.ports.membership import EVERY_SERVICE, DetectedBy, Guarantees, Presence, Unknown
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import heartbeats
from droveway.store.rows import BeatRow

log = structlog.get_logger("droveway.config.membership")
BEATS_MAX = 200_000  # members that may wait for one flush
SLACK_S = 0.2
ANSWERS_WITHIN_MAX_S = 5.0


class DbSettings(msgspec.Struct, frozen=True):
    report_interval_s: float = 10.0
    service_down_time_s: float = 60.0
    initial_delay_s: float = 0.0
    zone: str = "nova"  # of services that are joined for the first time


class DbServiceGroup:
    """A member of the group `compute` is a host whose binary is `nova-compute`, and so on; of EVERY_SERVICE it is
    `host/binary`."""

    def __init__(self, settings: DbSettings, clock: Clock, store: Store) -> None:
        self._settings, self._clock, self._store = settings, clock, store
        # A slower database stalls; known before a heartbeat could look too old for it.
        spare_s = settings.service_down_time_s - settings.report_interval_s
        self._answers_within_s = min(ANSWERS_WITHIN_MAX_S, spare_s / 2)
        # A beat may wait for its flush, and is stamped then.
        self.guarantees = Guarantees(
            DetectedBy.STAMP,
            may_forget=False,
            pushes=False,
            detection_s=settings.service_down_time_s + settings.report_interval_s + SLACK_S,
        )
        self._grace = Grace(clock, settings.report_interval_s + self._answers_within_s)
        self._wanted: dict[str, None] = {}  # host/binary: members of this process, which beat as long as it does
        self._beats: dict[str, None] = {}  # host/binary, heard since the last flush
        self._writing: asyncio.Task[int] | None = None
        self._is_up = True
        self._task: asyncio.Task[None] | None = None
        self._connection: Callable[[bool, str], None] = lambda _up, _reason: None
        self.beats_dropped = 0

    # -- the port ---------------------------------------------------------------------------------------------------
    async def open(self, changed: Callable[[str, str], None], connection: Callable[[bool, str], None]) -> None:
        self._connection = connection
        self._task = unending(self._report_for_ever(), "db", self._lost)

    async def close(self) -> None:
        tasks = [task for task in (self._task, self._writing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = self._writing = None

    async def join(self, group: str, member: str) -> None:
        host, binary = _service(group, member)
        if binary not in service_kinds.KINDS:
            raise BadRequest(
                f"the db driver keeps no {binary!r}: it is no kind of service here; there is "
                f"{', '.join(service_kinds.KINDS)}"
            )
        self._wanted[f"{host}/{binary}"] = None
        try:
            async with asyncio.timeout(self._answers_within_s):
                await self._store.run(heartbeats.join, host, binary, self._settings.zone)
        except (TimeoutError, Busy, DBAPIError) as error:
            log.warning("service not registered yet", host=host, binary=binary, error=repr(error))

    async def leave(self, group: str, member: str) -> None:
        """Its row stays, and grows old."""
        host, binary = _service(group, member)
        self._wanted.pop(f"{host}/{binary}", None)
        self._beats.pop(f"{host}/{binary}", None)

    def beat(self, member: str) -> None:
        """`host/binary` has been heard. Never waits; a beat of a service that was deleted does not bring it back."""
        if len(self._beats) < BEATS_MAX:
            self._beats[member] = None
        else:
            self.beats_dropped += 1

    async def get_all(self, group: str) -> dict[str, Presence]:
        binary = None if group == EVERY_SERVICE else _binary(group)
        rows = await self._evaluate(None, binary)
        seen = {_member(group, row): self._presence(group, row) for row in rows}
        return dict(self._grace.over(group, seen))

    async def get_one(self, group: str, member: str) -> Presence | None:
        rows = await self._evaluate(*_service(group, member))
        return self._grace.over_one(group, member, self._presence(group, rows[0]) if rows else None)

    async def service_is_up(self, group: str, member: str) -> bool:
        found = await self.get_one(group, member)
        return found is not None and found.is_present

    # -- asking -----------------------------------------------------------------------------------------------------
    async def _evaluate(self, host: str | None, binary: str | None) -> list[BeatRow]:
        """Readers see old stamps while writers stall: who cannot write may not judge either."""
        if not self._is_up:
            raise Unknown("the database does not take heartbeats: how old the last ones are says nothing")
        down_s = self._settings.service_down_time_s
        try:
            async with asyncio.timeout(self._answers_within_s):
                return await self._store.read(heartbeats.evaluate, down_s, host, binary)
        except (TimeoutError, Busy, DBAPIError) as error:
            self._lost(f"the database does not answer: {error!r}")
            raise Unknown("the database does not answer: who is a member cannot be told") from None

    def _presence(self, group: str, row: BeatRow) -> Presence:
        age_s, down_s = row["age_us"] / 1_000_000, self._settings.service_down_time_s
        what = "it was registered" if row["updated_at_us"] is None else "its last heartbeat"
        when = f"{age_s:.1f} s ago" if age_s >= 0 else f"{-age_s:.1f} s in the future"
        reason = f"{what} {when} by the database's clock" + ("" if row["is_alive"] else f"; down after {down_s:g} s")
        return Presence(
            _member(group, row), bool(row["is_alive"]), reason, row["report_count"], row["updated_at_us"] or 0
        )

    # -- reporting --------------------------------------------------------------------------------------------------
    async def _report_for_ever(self) -> None:
        """A fixed interval, counted from the first report: a slow database does not shift it."""
        await self._clock.sleep(self._settings.initial_delay_s)
        due_s = self._clock.monotonic_s()
        while True:
            await self._report_state()
            due_s = max(due_s + self._settings.report_interval_s, self._clock.monotonic_s())
            await self._clock.sleep(due_s - self._clock.monotonic_s())

    async def _report_state(self) -> None:
        """Write what has been heard, once; while an earlier write has not ended nothing is added behind it."""
        if self._writing is None:
            members = list(self._wanted | self._beats)
            log.debug("enter report_state", members=len(members))
            self._beats.clear()
            self._writing = asyncio.get_running_loop().create_task(
                self._store.run(self._record, members, list(self._wanted))
            )
        await asyncio.wait({self._writing}, timeout=self._answers_within_s)
        if not self._writing.done():
            self._lost("the database has not taken heartbeats for some time")
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except (Busy, DBAPIError) as error:
            self._lost(f"the database refuses heartbeats: {error!r}")
            return
        if not self._is_up:
            self._is_up = True
            self._grace.back()
            self._connection(True, "the database takes heartbeats again")

    def _record(self, tx: Tx, members: list[str], own: list[str]) -> int:
        """A statement for the beats; more only for members of this process whose services are not known yet."""
        known = heartbeats.record(tx, members)
        if known < len(members):
            for member in own:
                host, _, binary = member.rpartition("/")
                heartbeats.join(tx, host, binary, self._settings.zone)
        return known

    def _lost(self, reason: str) -> None:
        if self._is_up:
            self._is_up = False
            self._grace.lost()
            log.warning("membership server away", because=reason)
            self._connection(False, reason)


def _service(group: str, member: str) -> tuple[str, str]:
    names.encode(member)
    host, slash, binary = member.rpartition("/")
    if not slash and group != EVERY_SERVICE:
        return member, _binary(group)
    if not host or not binary or (group != EVERY_SERVICE and binary != _binary(group)):
        raise BadRequest(
            f"the db driver keeps {member!r} in no group {group!r}: name it HOST/BINARY in the group "
            f"{EVERY_SERVICE!r}, or HOST in a group such as 'compute'"
        )
    return host, binary


def _binary(group: str) -> str:
    names.encode(group)
    return f"nova-{group}"


def _member(group: str, row: BeatRow) -> str:
    return f"{row['host']}/{row['binary']}" if group == EVERY_SERVICE else str(row["host"])


def make(settings: MembershipSettings, clock: Clock, store: Store | None) -> DbServiceGroup | None:
    """None in a process without a store: its heartbeats travel over the bus to one that has it."""
    if store is None:
        return None
    times = DbSettings(settings.report_interval_s, settings.service_down_time_s, settings.initial_delay)
    return DbServiceGroup(times, clock, store)
