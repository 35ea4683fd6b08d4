"""What may be asked of an instance in which state: the machine is this table.

A saga may start when the instance stands in one of `states` with nothing being done to it. Deleting is always
allowed, for good or until it is reclaimed: it cancels what is under way and waits for its turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from droveway.domain.model import LockedBy, SagaKind, TaskState, VmState


@dataclass(frozen=True, slots=True)
class Rule:
    verb: str  # as it reads in a sentence
    states: frozenset[VmState]
    task: TaskState | None  # shown while it is under way; None: nothing is, as with Nova
    needs_host: bool = True


def _rule(verb: str, task: TaskState | None, *states: VmState, needs_host: bool = True) -> Rule:
    return Rule(verb, frozenset(states), task, needs_host)


K, S, T = SagaKind, VmState, TaskState
_BUILT = frozenset({S.ACTIVE, S.PAUSED, S.SUSPENDED, S.STOPPED})  # whose metadata and tags may be changed
LIFECYCLE: dict[SagaKind, Rule] = {
    K.BOOT: _rule("boot", T.SCHEDULING, S.BUILDING, needs_host=False),
    K.STOP: _rule("stop", T.POWERING_OFF, S.ACTIVE, S.ERROR),
    K.START: _rule("start", T.POWERING_ON, S.STOPPED),
    K.HARD_REBOOT: _rule("reboot", T.REBOOTING_HARD, S.ACTIVE, S.STOPPED, S.PAUSED, S.SUSPENDED, S.ERROR),
    K.SOFT_REBOOT: _rule("reboot", T.REBOOTING, S.ACTIVE),
    K.PAUSE: _rule("pause", T.PAUSING, S.ACTIVE),
    K.UNPAUSE: _rule("unpause", T.UNPAUSING, S.PAUSED),
    K.SUSPEND: _rule("suspend", T.SUSPENDING, S.ACTIVE),
    K.RESUME: _rule("resume", T.RESUMING, S.SUSPENDED),
    K.TRIGGER_CRASH_DUMP: _rule("trigger_crash_dump", None, S.ACTIVE, S.PAUSED, S.RESCUED, S.ERROR),
    K.RESET_STATE: Rule("os-resetState", frozenset(S) - {S.BUILDING, S.RESIZED, S.DELETED}, None, needs_host=False),
    K.CREATE_IMAGE: _rule("createImage", T.IMAGE_SNAPSHOT, S.ACTIVE, S.STOPPED, S.PAUSED, S.SUSPENDED),
    K.CREATE_BACKUP: _rule("createBackup", T.IMAGE_BACKUP, S.ACTIVE, S.STOPPED, S.PAUSED, S.SUSPENDED),
    K.REBUILD: _rule("rebuild", T.REBUILDING, S.ACTIVE, S.STOPPED, S.ERROR),
    K.RESCUE: _rule("rescue", T.RESCUING, S.ACTIVE, S.STOPPED, S.ERROR),
    K.UNRESCUE: _rule("unrescue", T.UNRESCUING, S.RESCUED),
    K.SHELVE: _rule("shelve", T.SHELVING, S.ACTIVE, S.STOPPED, S.PAUSED, S.SUSPENDED),
    K.SHELVE_OFFLOAD: _rule("shelveOffload", T.SHELVING_OFFLOADING, S.SHELVED),
    K.UNSHELVE: _rule("unshelve", T.UNSHELVING, S.SHELVED, S.SHELVED_OFFLOADED, needs_host=False),
    K.LIVE_MIGRATION: _rule("live-migrate", T.MIGRATING, S.ACTIVE),
    K.COLD_MIGRATION: _rule("migrate", T.RESIZE_PREP, S.ACTIVE, S.STOPPED),
    K.RESIZE_SERVER: _rule("resize", T.RESIZE_PREP, S.ACTIVE, S.STOPPED),
    K.CONFIRM_RESIZE: _rule("confirmResize", None, S.RESIZED),
    K.REVERT_RESIZE: _rule("revertResize", T.RESIZE_REVERTING, S.RESIZED),
    K.ATTACH_INTERFACE: _rule("attach_interface", None, S.ACTIVE, S.STOPPED),
    K.DETACH_INTERFACE: _rule("detach_interface", None, S.ACTIVE, S.STOPPED),
    K.ATTACH_VOLUME: _rule(
        "attach_volume", None, S.ACTIVE, S.PAUSED, S.STOPPED, S.SHELVED, S.SHELVED_OFFLOADED, needs_host=False
    ),
    K.DETACH_VOLUME: _rule(
        "detach_volume", None, S.ACTIVE, S.PAUSED, S.STOPPED, S.SHELVED, S.SHELVED_OFFLOADED, needs_host=False
    ),
    K.SOFT_DELETE: Rule(
        "delete", frozenset(S) - {S.RESIZED, S.SOFT_DELETED, S.DELETED}, T.SOFT_DELETING, needs_host=False
    ),
    K.RESTORE: _rule("restore", T.RESTORING, S.SOFT_DELETED, needs_host=False),
    K.DELETE: Rule("delete", frozenset(S) - {S.DELETED}, T.DELETING, needs_host=False),
}
ENDINGS = frozenset({SagaKind.DELETE, SagaKind.SOFT_DELETE})  # always allowed; they cancel what is under way
# One of these waits for its turn behind another one of them: clients ask for several at once.
VOLUME_CHANGES = frozenset({SagaKind.ATTACH_VOLUME, SagaKind.DETACH_VOLUME})
IN_TURN = frozenset({SagaKind.ATTACH_INTERFACE, SagaKind.DETACH_INTERFACE}) | VOLUME_CHANGES
# These let a host to the volumes of the instance, or take one from them: none of those is changed meanwhile.
HOLDS_VOLUMES = frozenset({K.BOOT, K.DELETE, K.SHELVE_OFFLOAD, K.UNSHELVE, K.LIVE_MIGRATION, K.REBUILD})
HOLDS_VOLUMES |= {K.COLD_MIGRATION, K.RESIZE_SERVER, K.REVERT_RESIZE}
AWAITED = IN_TURN | {SagaKind.ADMIT_CONNECTOR}  # whose requests wait for the end
IN_TURN_MAX = 16  # of one server, that have not ended


def refusal(kind: SagaKind, name: str, vm_state: str, task_state: str | None, host: str | None) -> str | None:
    """The sentence that refuses `kind`, or None when it may start."""
    rule = LIFECYCLE[kind]
    if kind is SagaKind.DELETE or (kind is SagaKind.SOFT_DELETE and VmState(vm_state) in rule.states):
        return None
    if task_state is not None:
        return f"Cannot '{rule.verb}' instance {name} while it is in task_state {task_state}; wait until that has ended"
    if VmState(vm_state) not in rule.states:
        wanted = " or ".join(sorted(rule.states))
        return f"Cannot '{rule.verb}' instance {name} while it is in vm_state {vm_state}; it must be {wanted}"
    if rule.needs_host and host is None:
        return f"Cannot '{rule.verb}' instance {name}: it never got a host; delete it and create it again"
    return None


def lock_refusal(instance_id: str, *, locked: bool, is_admin: bool) -> str | None:
    """The sentence that refuses any change of a locked server to its own users, or None when it may be changed. Every
    call that changes a server asks this, by api/compute/server_access.py."""
    if not locked or is_admin:
        return None
    return f"Instance {instance_id} is locked; it can be changed once it is unlocked."


def unlock_refusal(locked_by: LockedBy | None, *, is_admin: bool) -> str | None:
    """The sentence that refuses to unlock a server, or None: what an administrator of another project has locked, its
    own users do not unlock."""
    if is_admin or locked_by is not LockedBy.ADMIN:
        return None
    return "An administrator has locked this server; only an administrator can unlock it."


def attributes_refusal(what: str, instance_id: str, vm_state: str) -> str | None:
    """The sentence that refuses to change metadata or tags, or None: they are changed of a server that is built."""
    if vm_state in _BUILT:
        return None
    return f"Cannot '{what}' instance {instance_id} while it is in vm_state {vm_state}"
