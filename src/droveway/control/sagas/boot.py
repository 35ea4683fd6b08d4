"""Boot: make its ports, choose a host, let it to the volumes, make the guest's files there, start it. An instance is
never half there. Volumes that are made for it have sagas of their own, which this one stands behind: it holds them.

A host that refuses is not the end: once nothing of the guest is left there, the same request is tried on another one,
a few times. Until the last try has failed the instance is being built, and shows no fault; unless a host that may have
something of it does not answer, for until it does nothing is done elsewhere, and an event tells its user.
"""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from droveway.control.engine.saga import Context, NoValidHost, Saga, SpecNotes, Step, TicketNeeded, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import held_volumes, ports, tickets
from droveway.control.scheduling import requests
from droveway.domain.faults import Unreachable
from droveway.domain.guest_data import Document
from droveway.domain.model import GuestState, SagaKind, TaskState, VmState, of_host
from droveway.ports.bus import Prepare, Remove, Start
from droveway.scheduler.summaries import to_tenants
from droveway.store.compute import guest_data, instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.volume import attachments
from droveway.store.work import events, sagas

log = structlog.get_logger("droveway.boot")
WARNING = "warning"  # the kind of an event that an operator may want to act on


def choose_host(tx: Tx, ctx: Context) -> None:
    """Claim room on the best host; the claim is the instance's own row."""
    instance = instances.get(tx, ctx.instance_id)
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=True)
    decision = ctx.placer.choose(tx, requests.to_boot(tx, instance, ctx.params))
    if decision.host is None:
        raise NoValidHost(decision, may_wait=True)
    ctx.decision = decision
    shown = {} if instance["task_state"] == TaskState.DELETING else {"task_state": TaskState.SPAWNING.value}
    held = msgspec.to_builtins(decision.cells) if decision.cells else None
    instances.set_(tx, ctx.instance_id, host=decision.host, held_cells=held, **shown)
    root_pool = decision.root_pool if attachments.root_of(tx, ctx.instance_id) is None else ""
    instances.set_(tx, ctx.instance_id, root_pool=root_pool or None)
    spec = msgspec.structs.replace(spec, cells=decision.cells, root_pool=root_pool)
    ctx.notes = SpecNotes(
        decision.host,
        spec,
        has_ports=ctx.notes.has_ports,
        volumes=ctx.notes.volumes,
        immovable=ctx.placer.why_immovable(decision),
    )


def has_host(notes: SpecNotes) -> bool:
    return bool(notes.host)


def may_be_admitted(notes: SpecNotes) -> bool:
    return has_host(notes) and held_volumes.has_any(notes)


def release_host(tx: Tx, ctx: Context) -> None:
    if ctx.notes.is_left:  # it may run there: in which boot is not known
        instances.set_(tx, ctx.instance_id, ran_boot_id="")
        return
    instances.set_(tx, ctx.instance_id, host=None, held_cells=None, root_pool=None)
    hosts.touch(tx, ctx.notes.host or None)


async def prepare_guest(ctx: Context) -> None:
    """Its directory and its disk, made from the image. May take as long as the image is large: the host says that it
    is at work, and is asked again. A ticket is made only for a host that has to fetch the image, and is kept nowhere:
    when it has expired, or another control goes on, the host asks for another one."""
    host, spec, timeout_s = ctx.notes.host, ctx.notes.spec, ctx.settings.long_command_timeout_s
    documents = await ctx.store.read(_documents, ctx.instance_id) if spec.config_drive else ()
    try:
        await ctx.ask(host, Prepare(spec, None, documents), timeout_s)
    except TicketNeeded as needed:
        ticket = await tickets.to_fetch(ctx, host, spec.image, needed.challenge)
        await ctx.ask(host, Prepare(spec, ticket, documents), timeout_s)


def _documents(tx: Tx, instance_id: str) -> tuple[Document, ...]:
    return guest_data.for_drive(tx, instances.get(tx, instance_id))


async def remove_guest(ctx: Context) -> None:
    """Whatever of it there is: running, half made or nothing. Where the host does not answer and the instance is to be
    deleted, that is left to its deletion, which waits for no host; and so it is where the host was declared gone: it
    may run there, and is not tried on another one."""
    try:
        await ctx.ask(ctx.notes.host, Remove(ctx.notes.spec.root_pool), ctx.settings.long_command_timeout_s)
    except DeclaredGone:
        ctx.notes.is_left = True
    except Unreachable:
        if (await ctx.store.read(instances.get, ctx.instance_id))["task_state"] != TaskState.DELETING:
            raise
        ctx.notes.is_left = True


async def start_guest(ctx: Context) -> None:
    answer = await ctx.ask(ctx.notes.host, Start(ctx.notes.spec), ctx.settings.long_command_timeout_s)
    require(answer.guest.state is GuestState.RUNNING, f"{ctx.notes.host}: the guest was started and does not run")
    ctx.notes.boot_id = answer.boot_id


def record_running(tx: Tx, ctx: Context) -> None:
    instances.set_idle(
        tx,
        ctx.instance_id,
        vm_state=VmState.ACTIVE.value,
        fault=None,
        launched_at_us=tx.now_us,
        power_state=instances.POWER_RUNNING,
        ran_boot_id=ctx.notes.boot_id,
    )
    server_ports.set_status(tx, ctx.instance_id, is_running=True)
    held_volumes.record_in_use(tx, ctx)
    if ctx.notes.immovable:
        _warn(tx, ctx)


def _warn(tx: Tx, ctx: Context) -> None:
    """Its host cannot be emptied while it runs: better known now than then."""
    notes: SpecNotes = ctx.notes
    reason = f"guest {ctx.instance_id} could not be migrated away: {notes.immovable}"
    log.warning("guest could not be migrated away", instance=ctx.instance_id, host=notes.host, because=notes.immovable)
    body = {"reason": reason, "server_id": ctx.instance_id}
    events.record(tx, WARNING, ctx.subject, body, ctx.project_id)
    events.record(tx, WARNING, of_host(notes.host), body)


def record_failure(tx: Tx, ctx: Context) -> None:
    """Said at once, unless another host will be tried: the undoing may still take a while."""
    if ctx.host_failed:
        ctx.placer.failed(ctx.notes.host)
    ctx.notes.tries_again = ctx.host_failed and _may_try_again(tx, ctx)
    if not ctx.notes.tries_again:
        fault = _fault(tx, _why(ctx))
        if ctx.decision is not None and ctx.decision.host is None:
            fault["to_tenants"] = to_tenants(ctx.decision.plan)
        instances.set_(tx, ctx.instance_id, vm_state=VmState.ERROR.value, fault=fault)


def _why(ctx: Context) -> str:
    """It failed, this time and before."""
    before = ctx.params.get("because")
    return f"{ctx.error}; and before that {before}" if before else ctx.error


def _fault(tx: Tx, message: str) -> dict[str, Any]:
    return {"code": 500, "message": message, "created_us": tx.now_us}


def show_wait(tx: Tx, ctx: Context) -> None:
    """A fault until that host answers: its user may delete it, and else it goes on as if nothing had been shown."""
    host, now = ctx.notes.host, ctx.waits_for
    if ctx.error:
        goal = "it is tried on another host" if ctx.notes.tries_again else "this ends"
        still = "" if now in ctx.error else f": {now}"
        message = f"{_why(ctx)}; {host} must remove what it has of it before {goal}{still}"
    else:
        message = f"{host} was told to start it, and may have done so: {now}"
    instances.set_(tx, ctx.instance_id, vm_state=VmState.ERROR.value, fault=_fault(tx, message))


def _may_try_again(tx: Tx, ctx: Context) -> bool:
    """Not where one host alone was asked for, nor when it is cancelled."""
    tried = len(ctx.params.get("failed", ())) + 1
    is_free = ctx.params.get("requested_host") is None
    return is_free and tried < ctx.settings.boot_tries and sagas.cancel_asked(tx, ctx.id) is None


def end(tx: Tx, ctx: Context) -> None:
    """Nothing of it is left there. Where another host is to be tried, that saga is the next. What was shown while it
    waited is over."""
    notes = ctx.notes
    if notes.tries_again and not notes.is_left and sagas.cancel_asked(tx, ctx.id) is None:
        _try_again(tx, ctx)
    elif notes.host:
        instances.set_idle(
            tx,
            ctx.instance_id,
            vm_state=VmState.ERROR.value,
            fault=_fault(tx, _why(ctx)),
            power_state=instances.POWER_NONE,
        )
    else:
        instances.set_idle(tx, ctx.instance_id)  # no host was found, which has been said


def _try_again(tx: Tx, ctx: Context) -> None:
    old = sagas.get(tx, ctx.id)
    params = ctx.params | {
        "failed": [*ctx.params.get("failed", ()), ctx.notes.host],
        "because": ctx.error,
        "asked_at_us": ctx.params.get("asked_at_us", old["created_at_us"]),
    }
    instances.set_(
        tx, ctx.instance_id, vm_state=VmState.BUILDING.value, task_state=TaskState.SCHEDULING.value, fault=None
    )
    sagas.enqueue(
        tx,
        SagaKind.BOOT,
        ctx.subject,
        ctx.project_id,
        params,
        request_id=old["request_id"],
        user_id=old["user_id"],
        holds=instances.needs_of(tx, ctx.instance_id, SagaKind.BOOT, params),
    )


BOOT = Saga(
    SagaKind.BOOT,
    SpecNotes,
    (
        Step("create_ports", write=ports.create, unwrite=ports.release, did=ports.has_ports),
        Step("find_volumes", write=held_volumes.find, harmless=True),
        Step("choose_host", write=choose_host, unwrite=release_host, did=has_host),
        Step("bind_ports", write=ports.bind, unwrite=ports.unbind, did=ports.is_bound),
        Step(
            "admit_host",
            do=held_volumes.admit_all,
            needed=held_volumes.has_any,
            undo=held_volumes.withdraw_all,
            did=may_be_admitted,
        ),
        Step("take_along", write=held_volumes.take_along, harmless=True),
        Step("prepare_guest", do=prepare_guest, undo=remove_guest, did=has_host),
        Step("await_ports", do=ports.await_in_force, needed=ports.is_bound, harmless=True),
        Step("start_guest", do=start_guest, pivot=True),
        Step("record_running", write=record_running),
    ),
    failed=record_failure,
    undone=end,
    blocked=show_wait,
)
