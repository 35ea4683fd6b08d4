"""The one word that users know of a server, of its state and of what is being done to it; and the way back, for
filters."""

from __future__ import annotations

from droveway.domain.model import TaskState, VmState
from droveway.store.rows import InstanceRow

STATUS: dict[str, str] = {
    VmState.BUILDING: "BUILD",
    VmState.ACTIVE: "ACTIVE",
    VmState.PAUSED: "PAUSED",
    VmState.SUSPENDED: "SUSPENDED",
    VmState.STOPPED: "SHUTOFF",
    VmState.RESCUED: "RESCUE",
    VmState.SHELVED: "SHELVED",
    VmState.SHELVED_OFFLOADED: "SHELVED_OFFLOADED",
    VmState.SOFT_DELETED: "SOFT_DELETED",
    VmState.RESIZED: "VERIFY_RESIZE",
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}
_REBUILD: dict[str | None, str] = {TaskState.REBUILDING: "REBUILD", TaskState.REBUILD_SPAWNING: "REBUILD"}
_RESIZE: dict[str | None, str] = dict.fromkeys(
    (TaskState.RESIZE_PREP, TaskState.RESIZE_MIGRATING, TaskState.RESIZE_FINISH), "RESIZE"
)
# While something is done to it, a server in that state has another word.
_TASK_STATUS: dict[str, dict[str | None, str]] = {
    VmState.ACTIVE: {
        TaskState.MIGRATING: "MIGRATING",
        TaskState.REBOOTING: "REBOOT",
        TaskState.REBOOTING_HARD: "HARD_REBOOT",
        **_REBUILD,
        **_RESIZE,
    },
    VmState.STOPPED: {**_REBUILD, **_RESIZE},
    VmState.RESIZED: {TaskState.RESIZE_REVERTING: "REVERT_RESIZE"},
    VmState.ERROR: _REBUILD,
}
# What Nova knows besides. No server is in it, because what leads there is not built.
_UNBUILT_STATUS = frozenset(("PASSWORD",))


def status_of(row: InstanceRow) -> str:
    """The one word that users know."""
    if row["deleted"]:
        return "DELETED"
    vm_state = row["vm_state"]
    if row["task_state"] is not None and vm_state in _TASK_STATUS:
        return _TASK_STATUS[vm_state].get(row["task_state"], STATUS[vm_state])
    return STATUS[vm_state]


def states_of(status: str) -> tuple[list[str], list[str] | None] | None:
    """The other way, for filters: vm_states and task_states (None: any); None for a word that is no status."""
    word = status.upper()
    tasks = {str(task) for named in _TASK_STATUS.values() for task, name in named.items() if name == word}
    if tasks:
        return sorted(str(state) for state, named in _TASK_STATUS.items() if word in named.values()), sorted(tasks)
    for vm_state, name in STATUS.items():
        if name == word:
            return [str(vm_state)], None
    return ([], []) if word in _UNBUILT_STATUS else None
