"""Delete: end the guest and its files where they are, take its host from the volumes, then the row. There is no way
back from the first step."""

from __future__ import annotations

import contextlib

from droveway.control.engine.saga import Context, Saga, SpecNotes, Step
from droveway.control.sagas import held_volumes
from droveway.control.sagas.power import record_failure
from droveway.domain.faults import Forbidden, NotFound
from droveway.domain.model import SagaKind, VmState
from droveway.ports.bus import Remove
from droveway.store.compute import guest_data, instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.image import images
from droveway.store.volume import attachments


def find_guest(tx: Tx, ctx: Context) -> None:
    instance = instances.get(tx, ctx.instance_id)
    held = attachments.held_by(tx, ctx.instance_id)
    ctx.notes = SpecNotes(instance["host"] or "", volumes=held, root_pool=instance["root_pool"] or "")


async def remove_guest(ctx: Context) -> None:
    """Nothing to ask when it never got a host."""
    if ctx.notes.host:
        await ctx.ask(ctx.notes.host, Remove(ctx.notes.root_pool), ctx.settings.long_command_timeout_s)
        ctx.notes.host = ""  # nothing of it is there any more


def record_deleted(tx: Tx, ctx: Context) -> None:
    """A host that was left for later stays in the row: the deferred cleanup (decision 003)."""
    was_on = instances.get(tx, ctx.instance_id)["host"]
    instances.set_(
        tx,
        ctx.instance_id,
        deleted=True,
        vm_state=VmState.DELETED.value,
        task_state=None,
        host=ctx.notes.host or None,
        root_pool=(ctx.notes.root_pool if ctx.notes.host else "") or None,
        power_state=instances.POWER_NONE,
        terminated_at_us=tx.now_us,
        held_cells=None,
    )
    _forget_shelved(tx, ctx.instance_id)
    guest_data.forget(tx, ctx.instance_id)
    server_ports.release(tx, ctx.instance_id)
    held_volumes.let_go_of_all(tx, ctx)
    hosts.touch(tx, was_on)


def _forget_shelved(tx: Tx, instance_id: str) -> None:
    """The image that it was while it was shelved is its own."""
    image_id = instances.get(tx, instance_id, deleted=True)["shelved_image_id"]
    if image_id is not None:
        with contextlib.suppress(NotFound, Forbidden):  # its owner has deleted it, or has kept it
            images.remove(tx, image_id, None, keep_data=True)


def set_idle(tx: Tx, ctx: Context) -> None:
    """It had not begun: the instance is what it was, and may be deleted again."""
    instances.set_(tx, ctx.instance_id, task_state=None)


DELETE = Saga(
    SagaKind.DELETE,
    SpecNotes,
    (
        Step("find_guest", write=find_guest, pivot=True),
        Step("remove_guest", do=remove_guest, deferred_cleanup=True),
        Step("withdraw_left", do=held_volumes.withdraw_left, needed=held_volumes.has_any),
        Step("record_deleted", write=record_deleted),
    ),
    failed=record_failure,
    undone=set_idle,
)
