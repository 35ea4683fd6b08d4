"""A membership server in memory, under the clock port: sessions run out, the server goes away, and it may forget.

One `SimulatedServer` stands for the server, each `SimulatedServiceGroup` for one process's connection to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from droveway.drivers.membership import names
from droveway.drivers.membership.grace import Grace
from droveway.ports.clock import Clock
from droveway.ports.membership import DetectedBy, Guarantees, Presence, Unknown

BEATS_A_SESSION = 4
SLACK_S = 0.2


class _Session(msgspec.Struct):
    ends_s: float


class SimulatedServer:
    """What a lease server keeps. `is_away`: it does not answer, and time stands still for its sessions, unless
    `expires_while_away`: then they run out all the same, as in a process that was stopped and woken."""

    def __init__(
        self, clock: Clock, session_timeout_s: float = 3.0, *, may_forget: bool = False, expires_while_away: bool = True
    ) -> None:
        self.clock, self.session_timeout_s, self.may_forget = clock, session_timeout_s, may_forget
        self.expires_while_away = expires_while_away
        self.is_away = False
        self.groups: dict[str, dict[str, tuple[_Session, int]]] = {}
        self.watchers: list[Callable[[str, str], None]] = []

    def go_away(self) -> None:
        self.is_away = True

    def come_back(self) -> None:
        self.is_away = False
        if not self.expires_while_away:
            ends_s = self.clock.monotonic_s() + self.session_timeout_s
            for members in self.groups.values():
                for session, _ in members.values():
                    session.ends_s = ends_s

    def forget(self, group: str, member: str) -> None:
        """What `may_forget` allows: a live member's entry is lost."""
        assert self.may_forget, "this server was built as one that does not forget"
        self.drop(group, member)

    def ask(self) -> None:
        """Every question comes through here: fails while away, and first ends what has run out."""
        if self.is_away:
            raise Unknown("the simulated membership server is away")
        now_s = self.clock.monotonic_s()
        gone = [
            (g, m)
            for g, members in self.groups.items()
            for m, (session, _) in members.items()
            if session.ends_s <= now_s
        ]
        for group, member in gone:
            self.drop(group, member)

    def put(self, group: str, member: str, session: _Session, beats: int) -> None:
        members = self.groups.setdefault(group, {})
        is_new = member not in members
        members[member] = (session, beats)
        if is_new:
            self._notify(group, member)

    def drop(self, group: str, member: str) -> None:
        if self.groups.get(group, {}).pop(member, None) is not None:
            self._notify(group, member)

    def _notify(self, group: str, member: str) -> None:
        for watcher in list(self.watchers):
            watcher(group, member)


class SimulatedServiceGroup:
    def __init__(self, server: SimulatedServer) -> None:
        self._server, self._clock = server, server.clock
        self._pulse_s = server.session_timeout_s / BEATS_A_SESSION
        self.guarantees = Guarantees(
            DetectedBy.LEASE,
            may_forget=server.may_forget,
            pushes=True,
            detection_s=server.session_timeout_s + self._pulse_s + SLACK_S,
        )
        self._grace = Grace(server.clock, server.session_timeout_s + self._pulse_s)
        self._session = _Session(0.0)
        self._wanted: dict[tuple[str, str], int] = {}
        self._watched: set[str] = set()
        self._is_up = True
        self._task: asyncio.Task[None] | None = None
        self._changed: Callable[[str, str], None] = lambda _group, _member: None
        self._connection: Callable[[bool, str], None] = lambda _up, _reason: None

    async def open(self, changed: Callable[[str, str], None], connection: Callable[[bool, str], None]) -> None:
        self._changed, self._connection = changed, connection
        self._server.watchers.append(self._on_change)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        wanted = list(self._wanted)
        await self.crash()
        if not self._server.is_away:
            for group, member in wanted:
                self._server.drop(group, member)

    async def crash(self) -> None:
        """The process dies where it stands: nothing is given back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._server.watchers.remove(self._on_change)
            self._task = None
        self._wanted.clear()

    async def join(self, group: str, member: str) -> None:
        names.encode(group)
        names.encode(member)
        self._wanted[group, member] = 0
        self._pulse()

    async def leave(self, group: str, member: str) -> None:
        self._wanted.pop((group, member), None)
        if not self._server.is_away:
            self._server.drop(group, member)

    async def get_all(self, group: str) -> dict[str, Presence]:
        names.encode(group)
        self._watched.add(group)
        self._server.ask()
        if not self._is_up:
            self._pulse()
        seen = {
            m: Presence(m, True, "its session lives", beats)
            for m, (_, beats) in self._server.groups.get(group, {}).items()
        }
        return dict(self._grace.over(group, seen))

    async def get_one(self, group: str, member: str) -> Presence | None:
        return (await self.get_all(group)).get(member)

    async def service_is_up(self, group: str, member: str) -> bool:
        found = await self.get_one(group, member)
        return found is not None and found.is_present

    def _on_change(self, group: str, member: str) -> None:
        if group in self._watched and not self._server.is_away:
            self._changed(group, member)

    async def _run(self) -> None:
        while True:
            self._pulse()
            await self._clock.sleep(self._pulse_s)

    def _pulse(self) -> None:
        """Beat for all members, and see whether the server is there."""
        try:
            self._server.ask()
        except Unknown as fault:
            if self._is_up:
                self._is_up = False
                self._grace.lost()
                self._connection(False, fault.reason)
            return
        if not self._is_up:
            self._is_up = True
            self._grace.back()
            self._connection(True, "the simulated membership server is back")
        self._session.ends_s = self._clock.monotonic_s() + self._server.session_timeout_s
        for (group, member), beats in self._wanted.items():
            self._wanted[group, member] = beats + 1
            self._server.put(group, member, self._session, beats + 1)
