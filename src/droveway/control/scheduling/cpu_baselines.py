"""Which CPU all hosts of an aggregate can run: one hypervisor works it out of what each host has reported, and each
host says whether it can run that."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, TypeVar

from droveway.control.engine.commands import send
from droveway.control.engine.saga import NotYet
from droveway.domain.cpu_baseline import BaselineHost, CpuBaseline, described
from droveway.domain.cpu_xml import WrongCpu
from droveway.domain.faults import BadRequest, Stale, StepFailed, Unreachable
from droveway.domain.model import of_host
from droveway.ports.bus import ControlBus
from droveway.ports.move_verbs import BaselineCpu, CompareCpu
from droveway.ports.verb import VerbWithReply
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import aggregates, hosts

R = TypeVar("R")
HOSTS_MAX = 256
ANSWERS_WITHIN_S = 3.0


class _Member(NamedTuple):
    host: str
    is_up: bool
    why: str
    model: str
    cpu_xml: str


class CpuBaselines:
    def __init__(self, store: Store, bus: ControlBus) -> None:
        self._store, self._bus = store, bus

    async def of_aggregate(self, name: str) -> CpuBaseline:
        """Raises NotFound, BadRequest."""
        members = await self._store.read(_members, name)
        known = tuple(dict.fromkeys(one.cpu_xml for one in members if one.cpu_xml))
        up = [one for one in members if one.is_up and one.cpu_xml]
        silent = tuple(BaselineHost(one.host, one.model, None, one.why or "it has not reported") for one in members)
        if not up:
            return CpuBaseline(name, reason="none of its hosts can be asked", hosts=silent)
        asked = up[0].host
        try:
            cpu_xml = (await self._ask(asked, BaselineCpu(known))).cpu_xml
            found = await asyncio.gather(*(self._compare(one, cpu_xml) for one in members))
            return described(name, cpu_xml, asked, tuple(found))
        except (StepFailed, Unreachable) as fault:
            return CpuBaseline(name, asked=asked, reason=fault.reason, hosts=silent)
        except WrongCpu as wrong:
            return CpuBaseline(name, asked=asked, reason=f"{asked}: {wrong}", hosts=silent)

    async def _compare(self, member: _Member, cpu_xml: str) -> BaselineHost:
        if not member.is_up:
            return BaselineHost(member.host, member.model, None, member.why)
        try:
            check = (await self._ask(member.host, CompareCpu(cpu_xml))).check
        except (StepFailed, Unreachable) as fault:
            return BaselineHost(member.host, member.model, None, fault.reason)
        return BaselineHost(member.host, member.model, check.passed, check.reason)

    async def _ask(self, host: str, verb: VerbWithReply[R]) -> R:
        try:
            return await send(self._bus, host, of_host(host), 0, verb, ANSWERS_WITHIN_S)
        except (Stale, NotYet) as later:
            raise Unreachable(f"{host}: {later.reason}") from None


def _members(tx: Tx, name: str) -> list[_Member]:
    names = aggregates.hosts_named(tx, name)
    if not names:
        raise BadRequest(f"Aggregate {name} has no hosts; 'openstack aggregate add host {name} HOST' adds one.")
    if len(names) > HOSTS_MAX:
        raise BadRequest(f"Aggregate {name} has {len(names)} hosts; of at most {HOSTS_MAX} a common CPU is worked out.")
    return [_member(tx, host) for host in names]


def _member(tx: Tx, name: str) -> _Member:
    source, row = hosts.source(tx, name), hosts.get(tx, name)
    model = (row["resources"] or {}).get("cpu_model") or ""
    is_up = source.is_up and source.hypervisor_up
    why = "" if is_up else source.reason or "its hypervisor does not answer"
    return _Member(name, is_up, why, str(model), source.cpu_xml)
