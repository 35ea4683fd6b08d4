"""An interface more, and one less, of a server: its port is made or taken, in force, then in the guest that runs; and
the other way round.

A guest takes part in both: it is given a device while it runs, and must let go of one. Where it does not, a detachment
is undone and says so; an attachment that was to be undone has then happened, and goes forward.
"""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, TooLate, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import ports
from droveway.control.sagas.deleted_next import is_deleted_next
from droveway.control.sagas.seen_running import runs_after_all
from droveway.domain.faults import Fault, StepFailed, Unreachable
from droveway.domain.model import Nic, SagaKind, TaskState, VmState
from droveway.ports.bus import Plug, Unplug
from droveway.store.compute import instances, server_ports
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import Tx
from droveway.store.network import bindings
from droveway.store.network.ports import ACTIVE, DOWN
from droveway.store.rows import InstanceRow


class InterfaceNotes(msgspec.Struct):
    host: str = ""
    nic: Nic | None = None
    model: str = ""
    runs: bool = False  # the guest is to be asked, too
    has_port: bool = False  # it was made, or taken
    port_is_gone: bool = False  # its owner has deleted it
    network_revision: int = 0  # that has it bound to the host; 0: it is not


def _look(tx: Tx, ctx: Context) -> InstanceRow:
    """The server as it stands when its turn has come."""
    instance = instances.get(tx, ctx.instance_id)
    is_whole = instance["vm_state"] in (VmState.ACTIVE, VmState.STOPPED) and instance["host"] is not None
    if not is_whole or instance["task_state"] == TaskState.DELETING:
        raise StepFailed(f"instance {instance['name']} is {instance['task_state'] or instance['vm_state']} by now")
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=False)
    runs = instance["vm_state"] == VmState.ACTIVE
    ctx.notes = InterfaceNotes(instances.host_of(instance), model=spec.hardware.nic_model, runs=runs)
    return instance


def _nic(tx: Tx, ctx: Context, port_id: str) -> Nic | None:
    return next((nic for nic in server_ports.nics(tx, ctx.instance_id) if nic.port_id == port_id), None)


async def _plug(ctx: Context) -> None:
    """What of it the guest has already is left as it is."""
    notes: InterfaceNotes = ctx.notes
    assert notes.nic is not None, "it was found"
    await ctx.ask(notes.host, Plug(notes.nic, notes.model), ctx.settings.long_command_timeout_s)


async def _unplug(ctx: Context) -> None:
    notes: InterfaceNotes = ctx.notes
    assert notes.nic is not None, "it was found"
    within_s = ctx.settings.unplug_patience_s
    await ctx.ask(notes.host, Unplug(notes.nic, within_s), within_s + ctx.settings.command_timeout_s)


def runs(notes: InterfaceNotes) -> bool:
    return notes.runs


def is_stopped(notes: InterfaceNotes) -> bool:
    return not notes.runs


async def look_at_guest(ctx: Context) -> None:
    ctx.notes.runs = await runs_after_all(ctx, ctx.notes.host)


def say_nothing(tx: Tx, ctx: Context) -> None:
    """The server is what it was: who asked is told, and its actions tell it later."""


def set_idle(tx: Tx, ctx: Context) -> None:
    instances.set_idle(tx, ctx.instance_id)


# -- one more ---------------------------------------------------------------------------------------------------------
def take_port(tx: Tx, ctx: Context) -> None:
    """Made as it was asked for, or taken if it is nobody's: no other server can have it from here on."""
    instance = _look(tx, ctx)
    wanted = msgspec.convert(ctx.params["nic"], NicRequest)
    notes: InterfaceNotes = ctx.notes
    is_there = bool(wanted.port_id) and _nic(tx, ctx, wanted.port_id) is not None
    require(not is_there, f"port {wanted.port_id} is an interface of this server already")
    try:
        server_ports.create(tx, instance, (wanted,), (), ctx.settings.network_quotas)
    except Fault as fault:
        raise StepFailed(fault.reason) from None
    notes.nic, notes.has_port = server_ports.nics(tx, ctx.instance_id)[-1], True


def has_port(notes: InterfaceNotes) -> bool:
    return notes.has_port


def give_back_port(tx: Tx, ctx: Context) -> None:
    server_ports.release_one(tx, ctx.instance_id, ctx.notes.nic.port_id)


def bind_port(tx: Tx, ctx: Context) -> None:
    notes: InterfaceNotes = ctx.notes
    assert notes.nic is not None, "its port was taken"
    notes.network_revision = server_ports.bind_one(tx, notes.nic.port_id, notes.host)


def is_bound(notes: InterfaceNotes) -> bool:
    return notes.network_revision > 0


def unbind_port(tx: Tx, ctx: Context) -> None:
    bindings.unbind(tx, ctx.notes.nic.port_id, ctx.notes.host)


async def await_port(ctx: Context) -> None:
    """Its rules are there before the guest has it."""
    notes: InterfaceNotes = ctx.notes
    assert notes.nic is not None, "its port was taken"
    await ports.until_in_force(ctx, notes.host, notes.network_revision, (notes.nic,))


async def unplug_again(ctx: Context) -> None:
    """The guest may have it, whatever was answered. One that does not let go of it keeps it, and so does its server."""
    try:
        await _unplug(ctx)
    except DeclaredGone:
        return
    except StepFailed:
        if not await is_deleted_next(ctx):
            raise TooLate from None
    except Unreachable:
        if not await is_deleted_next(ctx):
            raise


def record_attached(tx: Tx, ctx: Context) -> None:
    notes: InterfaceNotes = ctx.notes
    assert notes.nic is not None, "its port was taken"
    bindings.set_status(tx, notes.nic.port_id, notes.host, ACTIVE if notes.runs else DOWN)
    instances.set_idle(tx, ctx.instance_id)


ATTACH_INTERFACE = Saga(
    SagaKind.ATTACH_INTERFACE,
    InterfaceNotes,
    (
        Step("take_port", write=take_port, unwrite=give_back_port, did=has_port),
        Step("bind_port", write=bind_port, unwrite=unbind_port, did=is_bound),
        Step("look_at_guest", do=look_at_guest, needed=is_stopped, harmless=True),
        Step("await_port", do=await_port, needed=runs, harmless=True),
        Step("plug_interface", do=_plug, needed=runs, undo=unplug_again, did=runs),
        Step("record_attached", write=record_attached, pivot=True),
    ),
    failed=say_nothing,
    undone=set_idle,
)


# -- one less ---------------------------------------------------------------------------------------------------------
def find_interface(tx: Tx, ctx: Context) -> None:
    """Of a port that was deleted the guest has a device still, which nothing else tells of but this request."""
    _look(tx, ctx)
    port_id: Any = ctx.params["port_id"]
    notes: InterfaceNotes = ctx.notes
    notes.nic = _nic(tx, ctx, port_id)
    if notes.nic is None and "nic" in ctx.params:
        notes.nic, notes.port_is_gone = msgspec.convert(ctx.params["nic"], Nic), True
    require(notes.nic is not None, f"port {port_id} is no interface of this server")


async def plug_again(ctx: Context) -> None:
    """It is the server's still: what the guest has let go of it gets back."""
    if ctx.notes.port_is_gone:
        return
    try:
        await _plug(ctx)
    except DeclaredGone:
        return
    except (StepFailed, Unreachable):
        if not await is_deleted_next(ctx):
            raise


def release_port(tx: Tx, ctx: Context) -> None:
    """What was made for the server is deleted, what was given belongs to no server."""
    server_ports.release_one(tx, ctx.instance_id, ctx.notes.nic.port_id)
    instances.set_idle(tx, ctx.instance_id)


DETACH_INTERFACE = Saga(
    SagaKind.DETACH_INTERFACE,
    InterfaceNotes,
    (
        Step("find_interface", write=find_interface, harmless=True),
        Step("look_at_guest", do=look_at_guest, needed=is_stopped, harmless=True),
        Step("unplug_interface", do=_unplug, needed=runs, undo=plug_again, did=runs),
        Step("release_port", write=release_port, pivot=True),
    ),
    failed=say_nothing,
    undone=set_idle,
)
