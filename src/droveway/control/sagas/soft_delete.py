"""Soft deletion: the server is off and out of sight, and its owner may have it back until it is reclaimed."""

from __future__ import annotations

from droveway.control.engine.saga import Context, Saga, SpecNotes, Step
from droveway.control.sagas.power import find_guest, record_failure, set_idle, stop_guest
from droveway.domain.model import SagaKind, TaskState, VmState
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.work import sagas


def find(tx: Tx, ctx: Context) -> None:
    """One that is offloaded has no host to be asked."""
    if instances.get(tx, ctx.instance_id)["host"] is None:
        ctx.notes = SpecNotes()
    else:
        find_guest(tx, ctx)


def has_host(notes: SpecNotes) -> bool:
    return bool(notes.host)


def record_soft_deleted(tx: Tx, ctx: Context) -> None:
    instances.set_(
        tx,
        ctx.instance_id,
        vm_state=VmState.SOFT_DELETED.value,
        task_state=None,
        power_state=instances.POWER_SHUTDOWN,
        soft_deleted_at_us=tx.now_us,
    )
    server_ports.set_status(tx, ctx.instance_id, is_running=False)


def restore(tx: Tx, ctx: Context) -> None:
    """Off, as it is; and then it is started, by a saga of its own, which may fail without keeping it deleted."""
    has_host = instances.get(tx, ctx.instance_id)["host"] is not None
    state = VmState.STOPPED if has_host else VmState.SHELVED_OFFLOADED
    instances.set_idle(tx, ctx.instance_id, vm_state=state.value, soft_deleted_at_us=None)
    if has_host and instances.get(tx, ctx.instance_id)["task_state"] is None:
        instances.set_(tx, ctx.instance_id, task_state=TaskState.POWERING_ON.value)
        sagas.enqueue(tx, SagaKind.START, ctx.subject, ctx.project_id, {}, request_id="")


def keep_task(tx: Tx, ctx: Context) -> None:
    """It had not begun, or its host refused: the server is what it was."""
    row = instances.get(tx, ctx.instance_id)
    if row["task_state"] == TaskState.SOFT_DELETING:
        instances.set_(tx, ctx.instance_id, task_state=None)


SOFT_DELETE = Saga(
    SagaKind.SOFT_DELETE,
    SpecNotes,
    (
        Step("find", write=find, pivot=True),
        Step("stop_guest", do=stop_guest, needed=has_host),
        Step("record_soft_deleted", write=record_soft_deleted),
    ),
    failed=record_failure,
    undone=keep_task,
)
RESTORE = Saga(
    SagaKind.RESTORE,
    SpecNotes,
    (Step("restore", write=restore, pivot=True),),
    failed=record_failure,
    undone=set_idle,
)
