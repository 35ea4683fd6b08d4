"""An administrator's word on the state of a server. `error` is taken at that word. `active` means: as it really is; the
host is asked, and what it says is written, so that a server is never shown to run that does not."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step
from droveway.control.sagas.power import set_idle
from droveway.domain.model import Guest, GuestState, SagaKind, VmState
from droveway.ports.bus import Inspect
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx

ACTIVE, ERROR = "active", "error"  # the words of a request


class ResetNotes(msgspec.Struct):
    host: str = ""  # to be asked
    guest: Guest | None = None
    boot_id: str = ""


def state_of(guest: Guest) -> VmState:
    """What a server is whose guest is so, when nobody has said anything else."""
    if guest.state is GuestState.RUNNING:
        return VmState.ACTIVE
    if guest.state is GuestState.PAUSED:
        return VmState.PAUSED
    return VmState.SUSPENDED if guest.saved else VmState.STOPPED


def find_guest(tx: Tx, ctx: Context) -> None:
    host = instances.get(tx, ctx.instance_id)["host"]
    ctx.notes = ResetNotes(host or "" if ctx.params["state"] == ACTIVE else "")


async def look(ctx: Context) -> None:
    answer = await ctx.ask(ctx.notes.host, Inspect())
    ctx.notes.guest, ctx.notes.boot_id = answer.guest, answer.boot_id


def record(tx: Tx, ctx: Context) -> None:
    """In `error` it stays until it is reset again, or rebooted: the guests loop, which takes one that runs for active,
    knows by the boot that is missing that it was put there."""
    guest = ctx.notes.guest
    if guest is None:
        instances.set_idle(tx, ctx.instance_id, vm_state=VmState.ERROR.value, ran_boot_id=None)
        return
    is_running = guest.state is GuestState.RUNNING
    was = instances.get(tx, ctx.instance_id)
    if was["launched_at_us"] is None and guest.state in (GuestState.ABSENT, GuestState.SHUTOFF):
        set_idle(tx, ctx)  # it never ran, so there is nothing that could be started: its fault says why
        return
    power = {GuestState.RUNNING: instances.POWER_RUNNING, GuestState.PAUSED: instances.POWER_PAUSED}
    ran = ctx.notes.boot_id if guest.state in power else was["ran_boot_id"]
    instances.set_idle(
        tx,
        ctx.instance_id,
        vm_state=state_of(guest).value,
        fault=None,
        power_state=power.get(guest.state, instances.POWER_SHUTDOWN),
        ran_boot_id=ran,
    )
    server_ports.set_status(tx, ctx.instance_id, is_running=is_running)


def has_host(notes: ResetNotes) -> bool:
    return bool(notes.host)


def keep(tx: Tx, ctx: Context) -> None:
    """Its host did not answer, and nothing is known: it stays as it was."""


RESET_STATE = Saga(
    SagaKind.RESET_STATE,
    ResetNotes,
    (
        Step("find_guest", write=find_guest, harmless=True),
        Step("look", do=look, needed=has_host, harmless=True),
        Step("record", write=record, pivot=True),
    ),
    failed=keep,
    undone=set_idle,
)
