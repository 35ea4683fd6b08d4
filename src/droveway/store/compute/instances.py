"""Instances, and the one way to want something of them: `intend` writes the saga that will do it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, case, func, insert, null, select, update

from droveway.domain.faults import Conflict, NotFound
from droveway.domain.guest_data import GuestKey
from droveway.domain.hardware import claimed_disk_gb
from droveway.domain.lifecycle import ENDINGS, HOLDS_VOLUMES, IN_TURN, IN_TURN_MAX, LIFECYCLE, VOLUME_CHANGES, refusal
from droveway.domain.model import Flavor, GuestSpec, SagaKind, SagaStatus, Subject, TaskState, VmState, of_instance
from droveway.domain.placement import HeldCell
from droveway.domain.volume.model import of_volume
from droveway.scheduler import hardware
from droveway.store.compute import guest_data, migrations, server_ports, server_volumes
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.rows import DeferredCleanupRow, HoldingRow, InstanceRow, SagaRow
from droveway.store.schema import instances
from droveway.store.volume import attachments
from droveway.store.volume.attachments import NewAttachment
from droveway.store.work import counters, events, sagas

_GET = Prepared(select(instances).where(instances.c.id == bindparam("of")))
_ON_HOSTS = Prepared(select(instances).where(in_list(instances.c.host, "names"), instances.c.deleted.is_(False)))
_OWED_BY = Prepared(
    select(instances.c.id, instances.c.fence, instances.c.host, instances.c.root_pool)
    .where(in_list(instances.c.host, "names"), instances.c.deleted)
    .order_by(instances.c.fence, instances.c.id)
    .limit(bindparam("most"))
)
_BY_IDS = Prepared(select(instances).where(in_list(instances.c.id, "ids")))
_INSERT = Prepared(insert(instances))
_SET = update(instances).where(instances.c.id == bindparam("of"))
_SET_POWER = Prepared(_SET.values(power_state=bindparam("new_power")))
_SET_FENCE = Prepared(_SET.where(instances.c.fence == bindparam("seen")).values(fence=bindparam("new_fence")))
_FORGET_HOST = Prepared(_SET.where(instances.c.deleted).values(host=null(), root_pool=null()))
MOVES = {
    SagaKind.LIVE_MIGRATION: migrations.LIVE,
    SagaKind.COLD_MIGRATION: migrations.COLD,
    SagaKind.RESIZE_SERVER: migrations.RESIZE,
}
POWER_NONE, POWER_RUNNING, POWER_PAUSED, POWER_SHUTDOWN, POWER_CRASHED = 0, 1, 3, 4, 6  # Nova's numbers


class NewInstance(msgspec.Struct, frozen=True):
    """What the API knows of a server that is to be made; everything has been checked."""

    project_id: str
    user_id: str
    name: str
    hostname: str
    flavor: Flavor
    image_id: str | None
    image_properties: dict[str, str] = {}  # what it keeps of its image (scheduler/image_properties.py)
    image_virtual_bytes: int = 0
    description: str | None = None
    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    access_ipv4: str | None = None
    access_ipv6: str | None = None
    auto_disk_config: bool = False
    zone: str | None = None
    requested_host: str | None = None
    config_drive: bool = False
    key: GuestKey | None = None
    user_data: str | None = None  # base64
    admin_password: str | None = None
    nics: tuple[NicRequest, ...] = ()  # what its boot makes ports of
    group_ids: tuple[str, ...] = ()  # of those ports
    hints: dict[str, Any] = {}  # the scheduler hints as they were given
    server_group_id: str | None = None
    launch_index: int = 0  # among the servers of one request
    reservation_id: str = ""
    request_id: str = ""
    volumes: tuple[NewAttachment, ...] = ()  # in the order in which its guest sees them

    @property
    def begins_from_volume(self) -> bool:
        return any(one.boot_index == 0 for one in self.volumes)


def create(tx: Tx, new: NewInstance) -> str:
    """The instance row and the saga that boots it, in one transaction; the instance's id."""
    instance_id = tx.names.uuid()
    tx.execute(
        _INSERT,
        {
            "id": instance_id,
            "number": counters.next_number(tx, "instance"),
            "project_id": new.project_id,
            "user_id": new.user_id,
            "name": new.name,
            "hostname": new.hostname,
            "access_ipv4": new.access_ipv4,
            "access_ipv6": new.access_ipv6,
            "auto_disk_config": new.auto_disk_config,
            "description": new.description,
            "metadata": new.metadata,
            "tags": list(new.tags),
            "key_name": None if new.key is None else new.key.name,
            "config_drive": new.config_drive,
            "reservation_id": new.reservation_id,
            "zone": new.zone,
            "flavor": msgspec.to_builtins(new.flavor),
            "flavor_id": new.flavor.id,
            "vcpus": new.flavor.vcpus,
            "ram_mb": new.flavor.ram_mb,
            "disk_gb": claimed_disk_gb(
                0 if new.begins_from_volume else new.flavor.disk_gb,
                new.flavor.ephemeral_gb,
                new.flavor.swap_mb,
                new.image_virtual_bytes,
            ),
            "launch_index": new.launch_index,
            "hints": new.hints or None,
            "server_group_id": new.server_group_id,
            "image_id": new.image_id,
            "image_properties": new.image_properties,
            "vm_state": VmState.BUILDING.value,
            "task_state": TaskState.SCHEDULING.value,
            "created_at_us": tx.now_us,
            "updated_at_us": tx.now_us,
            "fence": sagas.FIRST_FENCE,
        },
    )
    guest_data.keep(tx, instance_id, new.user_data, new.key, new.admin_password)
    params: dict[str, Any] = {"requested_host": new.requested_host} if new.requested_host else {}
    if new.nics:
        params |= {"nics": msgspec.to_builtins(new.nics), "groups": list(new.group_ids)}
    asked = {"request_id": new.request_id, "user_id": new.user_id}
    if new.volumes:
        server_volumes.reserve_all(tx, get(tx, instance_id), new.volumes)
        holds = needs_of(tx, instance_id, SagaKind.BOOT, params)
        sagas.enqueue(tx, SagaKind.BOOT, of_instance(instance_id), new.project_id, params, **asked, holds=holds)
    else:
        sagas.enqueue_first(tx, SagaKind.BOOT, of_instance(instance_id), new.project_id, params, **asked)
    return instance_id


def get(tx: Tx, instance_id: str, project_id: str | None = None, *, deleted: bool = False) -> InstanceRow:
    """That instance; another project's is as absent as one that never was."""
    row = results.first(InstanceRow, tx.execute(_GET, {"of": instance_id}))
    if row is None or (row["deleted"] and not deleted) or project_id not in (None, row["project_id"]):
        raise NotFound(f"Instance {instance_id} could not be found.")
    return row


def intend(
    tx: Tx,
    instance_id: str,
    kind: SagaKind,
    params: dict[str, Any],
    request_id: str = "",
    user_id: str | None = None,
) -> str:
    """Want `kind` of the instance: checks the state machine, writes the saga, shows the task. Returns the saga's id.

    Raises Conflict with the sentence of the refusal. Deleting cancels what is under way and is idempotent.
    """
    instance = get(tx, instance_id)
    subject = of_instance(instance_id)
    active = sagas.active_of(tx, subject)
    if active is not None and active["status"] == SagaStatus.BROKEN and kind not in ENDINGS:
        raise Conflict(
            f"Cannot '{LIFECYCLE[kind].verb}' instance {instance['name']}: its {active['kind']} is broken "
            f"({active['error']}); once the cause is gone, 'droveway saga retry {active['id']}' lets it go on"
        )
    reason = refusal(kind, instance["name"], instance["vm_state"], instance["task_state"], instance["host"])
    if reason is not None:
        raise Conflict(reason)
    if active is None and kind in ENDINGS:
        waiting = sagas.waiting_or_active(tx, subject, SagaKind.BOOT)
        if waiting is not None:
            sagas.cancel(tx, waiting, "the instance is to be deleted")
    if active is not None and not _takes_its_turn(tx, kind, active):
        if kind not in ENDINGS:
            rule = LIFECYCLE[kind]
            why = active["unreadable"] or active["blocked"] or "wait until it has ended"
            raise Conflict(
                f"Cannot '{rule.verb}' instance {instance['name']} while its {active['kind']} is under way: {why}"
            )
        deleting = sagas.waiting_or_active(tx, subject, kind)
        if deleting is not None:
            return deleting
        if (active["subject_kind"], active["subject_id"]) == (subject.kind, subject.id):
            sagas.cancel(tx, active["id"], "the instance is to be deleted")
    saga_id = sagas.enqueue(
        tx,
        kind,
        subject,
        instance["project_id"],
        params,
        request_id=request_id,
        user_id=user_id,
        holds=needs_of(tx, instance_id, kind, params),
    )
    if kind in MOVES:
        migrations.create(tx, instance, saga_id, params, MOVES[kind])
    if (task := LIFECYCLE[kind].task) is not None:
        set_(tx, instance_id, task_state=task.value)
    return saga_id


def needs_of(tx: Tx, instance_id: str, kind: SagaKind, params: dict[str, Any]) -> tuple[Subject, ...]:
    """The volumes that a saga of that kind holds: those to which it lets a host, or takes one from."""
    if kind in VOLUME_CHANGES:
        return (of_volume(params["volume_id"]),)
    if "snapshots" in params:
        return tuple(map(of_volume, params["snapshots"]))
    if kind not in HOLDS_VOLUMES:
        return ()
    return tuple(of_volume(row["volume_id"]) for row in attachments.of_instance(tx, instance_id))


def _takes_its_turn(tx: Tx, kind: SagaKind, active: SagaRow) -> bool:
    """Whether it may wait behind what is under way. Raises Conflict when too many do."""
    if kind not in IN_TURN or active["kind"] not in IN_TURN:
        return False
    if sagas.count_open_of(tx, sagas.subject_of(active)) >= IN_TURN_MAX:
        raise Conflict(
            f"Cannot '{LIFECYCLE[kind].verb}': {IN_TURN_MAX} changes of its interfaces and volumes wait for their "
            "turn; try again when some have ended"
        )
    return True


def check(tx: Tx, instance_id: str, kind: SagaKind) -> None:
    """Raises Conflict when that may not begin now."""
    row = get(tx, instance_id)
    if (why := refusal(kind, row["name"], row["vm_state"], row["task_state"], row["host"])) is not None:
        raise Conflict(why)
    if sagas.active_of(tx, of_instance(instance_id)) is not None:
        raise Conflict(f"Something is being done to instance {row['name']}; wait until it has ended")


def soft_deleted_before(tx: Tx, before_us: int, most: int) -> list[InstanceRow]:
    return _in_state(tx, VmState.SOFT_DELETED, instances.c.soft_deleted_at_us <= before_us, most)


def shelved_before(tx: Tx, before_us: int, most: int) -> list[InstanceRow]:
    """Of those that are on their host still."""
    return _in_state(tx, VmState.SHELVED, instances.c.shelved_at_us <= before_us, most)


def resized_before(tx: Tx, before_us: int, most: int) -> list[InstanceRow]:
    return _in_state(tx, VmState.RESIZED, instances.c.resized_at_us <= before_us, most)


def _in_state(tx: Tx, state: VmState, condition: ColumnElement[bool], most: int) -> list[InstanceRow]:
    """At rest, in the order of their ids."""
    c = instances.c
    rests = select(instances).where(c.vm_state == state.value, c.task_state.is_(None), c.deleted.is_(False), condition)
    return results.every(InstanceRow, tx.execute(rests.order_by(c.id).limit(most)))


def set_(tx: Tx, instance_id: str, **values: Any) -> None:
    _set(tx, instance_id, values, rests=False)


def set_idle(tx: Tx, instance_id: str, **values: Any) -> None:
    """What was being done has ended. `deleting` stays: that saga is the next."""
    _set(tx, instance_id, values, rests=True)


def _set(tx: Tx, instance_id: str, values: dict[str, Any], *, rests: bool) -> None:
    new = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_update(tuple(values), rests), {"of": instance_id, "new_updated_at_us": tx.now_us, **new})


@functools.lru_cache(maxsize=64)
def _update(names: tuple[str, ...], rests: bool) -> Prepared:
    """Built once for each set of columns: building costs more than running."""
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in (*names, "updated_at_us")}
    if rests:
        new["task_state"] = case(
            (instances.c.task_state == TaskState.DELETING.value, TaskState.DELETING.value),
            (instances.c.task_state == TaskState.SOFT_DELETING.value, TaskState.SOFT_DELETING.value),
            else_=None,
        )
    return Prepared(update(instances).where(instances.c.id == bindparam("of")).values(new))


def show_task(tx: Tx, instance_id: str, task: TaskState) -> None:
    """What is being done now; one that is to be deleted shows that."""
    now = func.coalesce(instances.c.task_state, "")
    is_deleting = now.in_((TaskState.DELETING.value, TaskState.SOFT_DELETING.value))
    tx.execute(update(instances).where(instances.c.id == instance_id, ~is_deleting).values(task_state=task.value))


def set_power(tx: Tx, instance_id: str, power_state: int) -> None:
    """What the host says; not a change the user made, so `updated_at` stays."""
    tx.execute(_SET_POWER, {"of": instance_id, "new_power": power_state})


def spec(tx: Tx, instance: InstanceRow, images_path: str, *, with_image: bool) -> GuestSpec:
    """What a host needs to build or run that guest; the image only when its disk is to be made. Of what the image says
    its own copy counts: the image may be changed or gone. Raises NotFound."""
    image_id, properties, flavor = instance["image_id"], instance["image_properties"], instance["flavor"]
    image = images.ref(tx, image_id, images_path) if image_id is not None and with_image else None
    machine_type = properties.get("hw_machine_type") or properties.get("machine_type") or ""
    return GuestSpec(
        instance["id"],
        instance["name"],
        instance["vcpus"],
        instance["ram_mb"],
        flavor["disk_gb"],
        image,
        cells_of(instance),
        machine_type,
        hardware.of(flavor.get("extra_specs") or {}, properties, instance["vcpus"]),
        flavor.get("ephemeral_gb", 0),
        flavor.get("swap_mb", 0),
        instance["config_drive"],
        server_ports.nics(tx, instance["id"]),
        rescue=instance["vm_state"] == VmState.RESCUED,
        volumes=attachments.disks(tx, instance["id"]),
        root_pool=instance["root_pool"] or "",
    )


def host_of(instance: InstanceRow) -> str:
    """Of one that has a host: LIFECYCLE lets no other one be started, stopped or moved."""
    host = instance["host"]
    assert host is not None, f"instance {instance['id']} has no host"
    return host


def cells_of(row: HoldingRow) -> tuple[HeldCell, ...]:
    """What an instance, or a migration, holds of the NUMA cells of its host."""
    return msgspec.convert(row["held_cells"] or (), tuple[HeldCell, ...])


def raise_fence(tx: Tx, instance_id: str, seen: int) -> int | None:
    """A generation for one command outside any saga; None when something has begun since `seen` was read."""
    if sagas.active_of(tx, of_instance(instance_id)) is not None:
        return None
    changed = tx.execute(_SET_FENCE, {"of": instance_id, "seen": seen, "new_fence": seen + 1}).rowcount
    return seen + 1 if changed else None


def lift_fence(tx: Tx, instance_id: str, seen: int, above: int) -> None:
    """To what a host has seen, if that is more and nothing has begun since."""
    if above > seen and sagas.active_of(tx, of_instance(instance_id)) is None:
        tx.execute(_SET_FENCE, {"of": instance_id, "seen": seen, "new_fence": above})


def on_hosts(tx: Tx, names: Iterable[str]) -> list[InstanceRow]:
    """Every instance whose place is one of those hosts."""
    return results.every(InstanceRow, tx.execute(_ON_HOSTS, {"names": names}))


def placed(tx: Tx, host: str | None, most: int) -> tuple[list[InstanceRow], int]:
    """Those that have a host, or that one, by host and name; and how many there are in all."""
    c = instances.c
    there = (c.deleted.is_(False), c.host.is_not(None) if host is None else c.host == host)
    count = int(tx.execute(select(func.count()).select_from(instances).where(*there)).scalar_one())
    query = select(instances).where(*there).order_by(c.host, c.name, c.id).limit(most)
    return results.every(InstanceRow, tx.execute(query)), count


def deferred_cleanup_of(tx: Tx, names: Iterable[str], *, most: int) -> list[DeferredCleanupRow]:
    """Deleted instances whose removal was left for later by those hosts; those that were tried least come first."""
    return results.every(DeferredCleanupRow, tx.execute(_OWED_BY, {"names": names, "most": most}))


def forget_deferred_cleanup(tx: Tx, instance_id: str) -> None:
    """Its host has removed what was left of it."""
    tx.execute(_FORGET_HOST, {"of": instance_id})


def names(tx: Tx, ids: Iterable[str]) -> dict[str, str]:
    """Of those that are known, deleted ones too."""
    query = select(instances.c.id, instances.c.name).where(instances.c.id.in_(list(ids)))
    return {row.id: row.name for row in tx.execute(query)}


def by_ids(tx: Tx, ids: Iterable[str]) -> dict[str, InstanceRow]:
    """Those of `ids` that ever were, deleted ones too."""
    wanted = tuple(ids)
    if not wanted:
        return {}
    return {row["id"]: row for row in results.one_by_one(InstanceRow, tx.execute(_BY_IDS, {"ids": wanted}))}


def record_lost_guest(tx: Tx, instance_id: str, project_id: str, body: dict[str, Any]) -> None:
    """Something happened to the instance that its owner may want to read later."""
    events.record(tx, "instance", of_instance(instance_id), body, project_id)
