"""The ports of a guest in the stories of its server: what each step about them does and undoes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from droveway.control.engine.saga import Context, NotYet, SpecNotes
from droveway.domain.faults import Fault, StepFailed, Unreachable
from droveway.domain.model import Nic, of_host
from droveway.domain.service_kinds import NETWORK
from droveway.ports.bus import RestoreConnections, SaveConnections
from droveway.ports.verb import VerbWithReply
from droveway.store.compute import instances, server_ports
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import Tx
from droveway.store.network import in_force

R = TypeVar("R")
CARRIED_WITHIN_S = 1.0
LOOK_AGAIN_S = 0.25  # where no nudge says that it is in force


# -- of its first start -----------------------------------------------------------------------------------------------
def create(tx: Tx, ctx: Context) -> None:
    """As they were asked for: its host must have what they need, so they come before it is chosen."""
    wanted = msgspec.convert(ctx.params.get("nics", ()), tuple[NicRequest, ...])
    ctx.notes = SpecNotes(has_ports=bool(wanted))
    if not wanted:
        return
    instance = instances.get(tx, ctx.instance_id)
    try:
        server_ports.create(tx, instance, wanted, ctx.params.get("groups", ()), ctx.settings.network_quotas)
    except Fault as fault:
        raise StepFailed(fault.reason) from None


def has_ports(notes: SpecNotes) -> bool:
    return notes.has_ports


def release(tx: Tx, ctx: Context) -> None:
    """Where its guest may be left, they are left too, for the deletion that comes next."""
    if not ctx.notes.is_left:
        server_ports.release(tx, ctx.instance_id)


def bind(tx: Tx, ctx: Context) -> None:
    notes = ctx.notes
    if notes.has_ports:
        notes.network_revision = server_ports.bind(tx, ctx.instance_id, notes.host)


def is_bound(notes: SpecNotes) -> bool:
    return notes.network_revision > 0


def unbind(tx: Tx, ctx: Context) -> None:
    if not ctx.notes.is_left:
        server_ports.unbind(tx, ctx.instance_id, ctx.notes.host)
        ctx.notes.network_revision = 0


async def await_in_force(ctx: Context) -> None:
    """Its rules are there before the guest is. What cannot be made on this host may be made on another one."""
    notes = ctx.notes
    assert notes.spec is not None
    await until_in_force(ctx, notes.host, notes.network_revision, notes.spec.nics)


# -- of every story ---------------------------------------------------------------------------------------------------
async def until_in_force(ctx: Context, host: str, revision: int, nics: Sequence[Nic]) -> None:
    """Until the host says that it has put these ports in force. Raises NotYet, StepFailed."""
    ctx.asked = host
    why = await ctx.store.read(server_ports.why_not_in_force, host, revision, nics)
    waited_s = _waited_s(ctx, (host, revision))
    if why:
        raise StepFailed(f"{host}: {why}")
    if why is None and waited_s >= ctx.settings.network_patience_s:
        raise StepFailed(f"{host}: its network agent has not put the ports of the server in force for {waited_s:.0f} s")
    if why is None:
        raise NotYet(LOOK_AGAIN_S, f"{host} is to put the ports of the server in force", in_force.topic(host))


def _waited_s(ctx: Context, what: tuple[str, int]) -> float:
    """For how long this process has waited for that: clocks of two machines are not compared."""
    now_s = asyncio.get_running_loop().time()
    if ctx.same_since_s[0] != what:
        ctx.same_since_s = (what, now_s)
    return now_s - ctx.same_since_s[1]


async def carry_connections(ctx: Context, source: str, destination: str, nics: Sequence[Nic]) -> None:
    """What is tracked of the guest's connections goes with it: one that only receives would stall without. A guest that
    has moved is not kept waiting for it: what fails in CARRIED_WITHIN_S is left."""

    async def carry(nic: Nic) -> None:
        with contextlib.suppress(StepFailed, Unreachable, NotYet):
            saved = await _ask_network(ctx, source, SaveConnections(nic.port_id))
            await _ask_network(ctx, destination, RestoreConnections(nic.port_id, saved.saved))

    await asyncio.gather(*map(carry, nics))


async def _ask_network(ctx: Context, host: str, verb: VerbWithReply[R]) -> R:
    return await ctx.ask(host, verb, CARRIED_WITHIN_S, of_host(host), NETWORK)
