"""What may be asked of an instance in which state: the machine is this table.

A saga may start when the instance stands in one of `states` with nothing being done to it. Deleting is always
allowed: it cancels what is under way and waits for its turn.
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


S = VmState
_BUILT = frozenset({"active", "paused", "suspended", "stopped"})  # whose metadata and tags may be changed
_HAS_INTERFACES = frozenset({S.ACTIVE, S.STOPPED})
LIFECYCLE: dict[SagaKind, Rule] = {
    SagaKind.BOOT: Rule("boot", frozenset({S.BUILDING}), TaskState.SCHEDULING, needs_host=False),
    SagaKind.STOP: Rule("stop", frozenset({S.ACTIVE, S.ERROR}), TaskState.POWERING_OFF),
    SagaKind.START: Rule("start", frozenset({S.STOPPED}), TaskState.POWERING_ON),
    SagaKind.HARD_REBOOT: Rule("reboot", frozenset({S.ACTIVE, S.STOPPED, S.ERROR}), TaskState.REBOOTING_HARD),
    SagaKind.LIVE_MIGRATION: Rule("live-migrate", frozenset({S.ACTIVE}), TaskState.MIGRATING),
    SagaKind.ATTACH_INTERFACE: Rule("attach_interface", _HAS_INTERFACES, None),
    SagaKind.DETACH_INTERFACE: Rule("detach_interface", _HAS_INTERFACES, None),
    SagaKind.DELETE: Rule("delete", frozenset(S) - {S.DELETED}, TaskState.DELETING, needs_host=False),
}
# One of these waits for its turn behind another one of them: clients ask for several at once.
IN_TURN = frozenset({SagaKind.ATTACH_INTERFACE, SagaKind.DETACH_INTERFACE})
IN_TURN_MAX = 16  # of one server, that have not ended


def refusal(kind: SagaKind, name: str, vm_state: str, task_state: str | None, host: str | None) -> str | None:
    """The sentence that refuses `kind`, or None when it may start."""
    rule = LIFECYCLE[kind]
    if kind is SagaKind.DELETE:
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
