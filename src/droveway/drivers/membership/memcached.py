"""Members as counters in memcached, each written anew by its member every `report_interval`.

An observer looks whether a counter moves, by its own monotonic clock, and counts a silence only while memcached
answers and has not been restarted. An evicted counter is back with its member's next beat, so a missing key is a
silence like any other and declares nothing by itself.

memcached lists nothing: the names of a group stand in SHARDS index keys, which members look after by compare-and-swap.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import zlib
from collections.abc import Callable

import msgspec
import structlog

from droveway.config.membership import MembershipSettings
from droveway.config.tls import tls_context
from droveway.drivers.membership import names
from droveway.drivers.membership.memcached_wire import MemcachedConnection
from droveway.drivers.membership.unending import unending
from droveway.ports.clock import Clock
from droveway.ports.membership import DetectedBy, Guarantees, Presence, Unknown

log = structlog.get_logger("droveway.config.membership")
SHARDS = 16
SWAPS_MAX = 50  # attempts to get a name into an index that others write too
KEPT_TIMES = 10  # a counter outlives the verdict on it by far: its key says "silent", not "gone"
SLACK_S = 0.2
LEFT = b"left"  # in place of a counter: the member has said goodbye


class MemcachedSettings(msgspec.Struct, frozen=True):
    address: str
    prefix: str = "servicegroups"
    report_interval_s: float = 10.0
    service_down_time_s: float = 60.0
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    user: str = ""
    password: str = ""


class _Observation(msgspec.Struct):
    counter: bytes | None
    moved_s: float  # when it was last seen to move, or first seen
    moved_us: int = 0  # for people
    is_present: bool = True
    has_moved: bool = False


class MemcachedServiceGroup:
    def __init__(self, settings: MemcachedSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._poll_s = settings.report_interval_s / 2
        self.guarantees = Guarantees(
            DetectedBy.COUNTER,
            may_forget=True,
            pushes=True,
            detection_s=settings.service_down_time_s + 2 * self._poll_s + SLACK_S,
        )
        # Beats and questions do not wait for each other.
        s = settings
        tls = tls_context("memcached", s.tls_ca, s.tls_cert, s.tls_key) if s.tls_ca else None
        login = f"{s.user} {s.password}".encode() if s.user else b""
        self._beating = MemcachedConnection(s.address, s.report_interval_s, tls, login)
        self._asking = MemcachedConnection(s.address, s.report_interval_s, tls, login)
        self._wanted: dict[tuple[str, str], int] = {}
        self._listed_s: dict[tuple[str, str], float] = {}  # when its name was last seen to stand in the index
        self._groups: dict[str, dict[str, _Observation]] = {}
        self._is_up: bool | None = None
        self._is_broken = False
        self._started: tuple[bytes, int] | None = None
        self._answers_since_s = 0.0
        self._polled_s: float | None = None
        self._polling = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed: Callable[[str, str], None] = lambda _group, _member: None
        self._connection: Callable[[bool, str], None] = lambda _up, _reason: None

    # -- the port ---------------------------------------------------------------------------------------------------
    async def open(self, changed: Callable[[str, str], None], connection: Callable[[bool, str], None]) -> None:
        self._changed, self._connection = changed, connection
        self._tasks = [
            unending(work, "memcached", self._broken) for work in (self._beat_for_ever(), self._poll_for_ever())
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        with contextlib.suppress(OSError):
            await self._beating.set({_counter(*key): LEFT for key in self._wanted}, self._ttl_s)
        self._wanted.clear()
        self._beating.close()
        self._asking.close()

    async def join(self, group: str, member: str) -> None:
        names.encode(group)
        names.encode(member)
        self._wanted.setdefault((group, member), 0)
        with contextlib.suppress(OSError):  # else with the next beats
            await self._beat([(group, member)])

    async def leave(self, group: str, member: str) -> None:
        self._listed_s.pop((group, member), None)
        if self._wanted.pop((group, member), None) is not None:
            with contextlib.suppress(OSError):
                await self._beating.set({_counter(group, member): LEFT}, self._ttl_s)
                await self._list(group, member, stands=False)

    async def get_all(self, group: str) -> dict[str, Presence]:
        return {member: self._presence(group, member) for member in await self._known(group)}

    async def get_one(self, group: str, member: str) -> Presence | None:
        return self._presence(group, member) if member in await self._known(group) else None

    async def service_is_up(self, group: str, member: str) -> bool:
        found = await self.get_one(group, member)
        return found is not None and found.is_present

    # -- being a member ---------------------------------------------------------------------------------------------
    @property
    def _ttl_s(self) -> int:
        return max(60, int(KEPT_TIMES * self._settings.service_down_time_s))

    async def _beat_for_ever(self) -> None:
        due_s = self._clock.monotonic_s()
        while True:
            with contextlib.suppress(OSError):  # memcached is away, which the poll says
                await self._beat(list(self._wanted))
            due_s = max(due_s + self._settings.report_interval_s, self._clock.monotonic_s())
            await self._clock.sleep(due_s - self._clock.monotonic_s())

    async def _beat(self, members: list[tuple[str, str]]) -> None:
        fresh = [key for key in members if self._wanted.get(key) == 0]
        if fresh:  # go on counting where an earlier process of that member stopped
            before = await self._beating.get(_counter(*key) for key in fresh)
            for key in fresh:
                value = before.get(_counter(*key), (b"", 0))[0]
                self._wanted[key] = int(value) if value.isdigit() else 0
        values = {}
        for key in members:
            if key in self._wanted:  # may have left while we waited
                self._wanted[key] += 1
                values[_counter(*key)] = b"%d" % self._wanted[key]
        await self._beating.set(values, self._ttl_s)
        now_s = self._clock.monotonic_s()
        for key in members:  # the index may be evicted as well
            due_s = self._listed_s.get(key, -math.inf) + self._settings.service_down_time_s / 2
            if key in self._wanted and now_s >= due_s:
                await self._list(*key, stands=True)
                self._listed_s[key] = now_s

    async def _list(self, group: str, member: str, *, stands: bool) -> None:
        """See that the member's name stands in its group's index, or does not."""
        line, index = names.encode(member).encode(), self._index(group, member)
        for _ in range(SWAPS_MAX):
            value, number = (await self._beating.get([index])).get(index, (b"", None))
            lines = value.split(b"\n") if value else []
            wanted = [*lines, line] if stands else [one for one in lines if one != line]
            if (line in lines) is stands or await self._beating.swap(index, b"\n".join(wanted), number):
                return
        raise OSError(f"the index {index} is written by too many at once")

    def _index(self, group: str, member: str) -> str:
        return _index(self._settings.prefix, group, zlib.crc32(member.encode()) % SHARDS)

    # -- observing --------------------------------------------------------------------------------------------------
    async def _known(self, group: str) -> dict[str, _Observation]:
        names.encode(group)
        is_new = group not in self._groups
        if is_new:
            self._groups[group] = {}
        now_s = self._clock.monotonic_s()
        # Judged only by what has just been read: an observer that was stopped would else judge by its own sleep.
        if is_new or self._polled_s is None or now_s > self._polled_s + 2 * self._poll_s:
            await self._poll()
        if not self._is_up:
            raise Unknown(f"memcached at {self._settings.address} does not answer: who is a member cannot be told")
        return self._groups[group]

    async def _poll_for_ever(self) -> None:
        while True:
            await self._poll()
            await self._clock.sleep(self._poll_s)

    def _broken(self, reason: str) -> None:
        self._is_up, self._is_broken = False, True
        self._connection(False, reason)

    async def _poll(self) -> None:
        async with self._polling:
            if self._is_broken:
                return
            try:
                started = await self._asking.started()
                read = {group: await self._read(group) for group in list(self._groups)}
            except OSError as error:
                if self._is_up is not False:
                    self._is_up = False
                    reason = f"memcached at {self._settings.address} does not answer: {error or repr(error)}"
                    log.warning("membership server away", because=reason)
                    self._connection(False, reason)
                return
            now_s = self._clock.monotonic_s()
            restarted = self._started is None or started[0] != self._started[0] or started[1] < self._started[1]
            overslept = self._polled_s is None or now_s > self._polled_s + 3 * self._poll_s
            if restarted or overslept or not self._is_up:
                self._answers_since_s = now_s  # a time in which nothing could be seen is no silence
            if not self._is_up:
                self._is_up = True
                self._connection(True, f"memcached at {self._settings.address} answers")
            self._started, self._polled_s = started, now_s
            for group, counters in read.items():
                for member, counter in counters.items():
                    self._see(group, member, counter, now_s)

    async def _read(self, group: str) -> dict[str, bytes | None]:
        """The counters of everybody who stands in the index or is remembered."""
        lists = await self._asking.get(_index(self._settings.prefix, group, shard) for shard in range(SHARDS))
        lines = [line for value, _ in lists.values() for line in value.split(b"\n")]
        listed = {names.decode(line.decode("ascii", "replace")) for line in lines}
        seen = self._groups[group]
        for member in [m for m, s in seen.items() if not s.is_present and m not in listed]:
            del seen[member]  # dead, and out of the index: forgotten
        members = [member for member in {*listed, *seen} if member is not None]
        values = await self._asking.get(_counter(group, member) for member in members)
        found = {member: values.get(_counter(group, member), (None, 0))[0] for member in members}
        return {m: v if v is None or v.isdigit() or v == LEFT else None for m, v in found.items()}

    def _see(self, group: str, member: str, counter: bytes | None, now_s: float) -> None:
        seen = self._groups[group]
        sighting = seen.get(member)
        was_present = sighting is not None and sighting.is_present
        if sighting is None:
            sighting = seen[member] = _Observation(counter, now_s)
        if counter == LEFT:
            sighting.is_present, sighting.counter = False, counter
        elif counter is not None and counter != sighting.counter:
            sighting.counter, sighting.moved_s, sighting.moved_us = counter, now_s, self._clock.now_us()
            sighting.is_present = sighting.has_moved = True
        elif now_s - max(sighting.moved_s, self._answers_since_s) > self._settings.service_down_time_s:
            sighting.is_present = False
        if sighting.is_present is not was_present:
            self._changed(group, member)

    def _presence(self, group: str, member: str) -> Presence:
        s = self._groups[group][member]
        beats = int(s.counter) if s.counter is not None and s.counter != LEFT else 0
        if s.counter == LEFT:
            reason = "it has left"
        elif not s.is_present:
            reason = f"its counter in memcached has not moved for {self._clock.monotonic_s() - s.moved_s:.1f} s"
        else:
            reason = "its counter moves" if s.has_moved else "its counter has not been seen to move yet"
        return Presence(member, s.is_present, reason, beats, s.moved_us, is_held=s.is_present and not s.has_moved)


def _counter(group: str, member: str) -> str:
    """Whatever the name, a key within memcached's 250 characters."""
    return f"sg:{hashlib.sha256(f'{group}/{member}'.encode()).hexdigest()[:48]}"


def _index(prefix: str, group: str, shard: int) -> str:
    return f"{prefix}:{hashlib.sha256(group.encode()).hexdigest()[:32]}:{shard}"


def make(settings: MembershipSettings, clock: Clock, _store: object) -> MemcachedServiceGroup:
    server = settings.memcached
    return MemcachedServiceGroup(
        MemcachedSettings(
            server.servers,
            report_interval_s=settings.report_interval_s,
            service_down_time_s=settings.service_down_time_s,
            **server.credentials,
        ),
        clock,
    )
