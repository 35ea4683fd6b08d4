"""The hosts are asked whether guests could move: three short questions to each, and what was written is removed.

For any number of guests and hosts the same: the sources say what there is to send, the destinations whether each guest
could arrive (and write a test file), the sources which of the test files they see. Nothing is claimed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from droveway.control.engine.commands import send
from droveway.control.engine.saga import NotYet
from droveway.domain.faults import Stale, StepFailed, Unreachable
from droveway.domain.model import GuestSpec, of_host
from droveway.ports.bus import ControlBus
from droveway.ports.move_verbs import (
    ArrivalAsked,
    ArrivalsTried,
    DepartureTried,
    LookForProbes,
    RemoveProbes,
    TryArrivals,
    TryDepartures,
)
from droveway.ports.verb import VerbWithReply

R = TypeVar("R")
ANSWERS_WITHIN_S = 3.0


class AskedMove(msgspec.Struct, frozen=True):
    """A guest that runs, and where it could go."""

    spec: GuestSpec
    source: str
    source_cpu_xml: str
    destinations: tuple[str, ...]


class Tried(msgspec.Struct):
    """What the hosts have said. `silent`: why one has not. `departures`: by instance. `sees`: by source, the
    destinations whose test file it sees."""

    silent: dict[str, str] = {}
    departures: dict[str, DepartureTried] = {}
    arrivals: dict[str, ArrivalsTried] = {}
    sees: dict[str, frozenset[str]] = {}


class MoveTrials:
    def __init__(self, bus: ControlBus) -> None:
        self._bus = bus

    async def ask(self, moves: Sequence[AskedMove], names: Mapping[str, str], measure_s: int) -> Tried:
        """`names`: the test file of each destination."""
        tried = Tried()
        try:
            async with asyncio.TaskGroup() as group:
                for source in dict.fromkeys(move.source for move in moves):
                    group.create_task(self._leave(tried, source, moves, measure_s))
                for host in names:
                    group.create_task(self._arrive(tried, host, moves, names[host]))
            written = {host for host, answer in tried.arrivals.items() if not answer.store_trouble}
            async with asyncio.TaskGroup() as group:
                for source in dict.fromkeys(move.source for move in moves):
                    group.create_task(self._look(tried, source, {names[host]: host for host in written}))
        finally:
            await self._remove(names)
        return tried

    async def _leave(self, tried: Tried, source: str, moves: Iterable[AskedMove], measure_s: int) -> None:
        ids = tuple(move.spec.instance_id for move in moves if move.source == source)
        answer = await self._ask(tried, source, TryDepartures(ids, measure_s), ANSWERS_WITHIN_S + measure_s)
        if answer is not None:
            tried.departures |= {one.instance_id: one for one in answer.guests if one.instance_id in ids}

    async def _arrive(self, tried: Tried, host: str, moves: Iterable[AskedMove], probe: str) -> None:
        coming = [move for move in moves if host in move.destinations]
        cpus = tuple(dict.fromkeys(move.source_cpu_xml for move in coming))
        asked = tuple(ArrivalAsked(move.spec, cpus.index(move.source_cpu_xml)) for move in coming)
        answer = await self._ask(tried, host, TryArrivals(asked, cpus, probe), ANSWERS_WITHIN_S)
        if answer is not None:
            tried.arrivals[host] = answer

    async def _look(self, tried: Tried, source: str, hosts: Mapping[str, str]) -> None:
        answer = await self._ask(tried, source, LookForProbes(tuple(hosts)), ANSWERS_WITHIN_S)
        if answer is not None:
            tried.sees[source] = frozenset(hosts[name] for name in answer.names if name in hosts)

    async def _remove(self, names: Mapping[str, str]) -> None:
        """Where that fails the host sweeps them by itself."""
        tried = Tried()
        async with asyncio.TaskGroup() as group:
            for host, name in names.items():
                group.create_task(self._forget(tried, host, RemoveProbes((name,))))

    async def _forget(self, tried: Tried, host: str, verb: RemoveProbes) -> None:
        await self._ask(tried, host, verb, ANSWERS_WITHIN_S)

    async def _ask(self, tried: Tried, host: str, verb: VerbWithReply[R], within_s: float) -> R | None:
        try:
            return await send(self._bus, host, of_host(host), 0, verb, within_s)
        except (StepFailed, Unreachable, Stale) as fault:
            tried.silent[host] = fault.reason
        except NotYet as later:
            tried.silent[host] = later.reason
        return None
