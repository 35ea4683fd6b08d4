"""What to do when an instance's row and its guest disagree and nothing is under way; pure."""

from __future__ import annotations

from enum import StrEnum

from droveway.domain.model import Guest, GuestJob, GuestState, VmState

NOSTATE = 0  # of a guest's power: not known


class Remedy(StrEnum):
    NOTHING = "nothing"
    RECORD_STOPPED = "record stopped"  # it ended by itself: that is what its user did, or a crash
    RECORD_RUNNING = "record running"  # it runs although its row says no: a refused start had begun after all
    RECORD_PAUSED = "record paused"  # an operator paused it, or a refused pause had begun after all
    RECORD_SUSPENDED = "record suspended"  # its memory was saved, likewise
    START_AGAIN = "start again"  # its host went down under it; it should run


PLACELESS = frozenset({VmState.BUILDING, VmState.ERROR, VmState.SHELVED_OFFLOADED})  # may have no host


def was_lost(vm_state: str, power_state: int, ran_boot_id: str | None) -> bool:
    """Its host was declared gone while it was being moved or started: what it did there was not known any more. One
    that has no `ran_boot_id` never ran."""
    return vm_state == VmState.ERROR and power_state == NOSTATE and ran_boot_id is not None


def remedy(vm_state: str, ran_boot_id: str | None, boot_id: str, guest: Guest) -> Remedy:
    """`boot_id` is the host's boot now, `ran_boot_id` the one in which the guest was last known to run; "" where it may
    have been started. A start may arrive late: one that was lost runs although it had been looked for and was not
    there. What is started again is what should run: a paused guest whose host went down has lost its memory, and is
    stopped."""
    runs = guest.state in {GuestState.RUNNING, GuestState.PAUSED}
    match vm_state:
        case VmState.ACTIVE if not runs and not guest.saved:
            return Remedy.RECORD_STOPPED if ran_boot_id == boot_id else Remedy.START_AGAIN
        case VmState.ACTIVE if guest.state is not GuestState.RUNNING:
            return _held(guest)
        case VmState.PAUSED if guest.state is not GuestState.PAUSED:
            return _held(guest)
        case VmState.SUSPENDED if runs or not guest.saved:
            return _held(guest)
        case VmState.RESCUED if not runs and ran_boot_id != boot_id:
            return Remedy.START_AGAIN
        case VmState.RESIZED if not runs and ran_boot_id is not None and ran_boot_id != boot_id:
            return Remedy.START_AGAIN
        case VmState.STOPPED if runs:
            return Remedy.RECORD_RUNNING
        case VmState.ERROR if ran_boot_id is not None and guest.state is GuestState.RUNNING:
            return Remedy.RECORD_RUNNING
    return Remedy.NOTHING


def _held(guest: Guest) -> Remedy:
    """Of one that is, or should be, paused or suspended: as its host says. What a move has paused is not held."""
    if guest.state is GuestState.RUNNING:
        return Remedy.RECORD_RUNNING
    if guest.state is GuestState.PAUSED:
        return Remedy.RECORD_PAUSED if guest.suspended and guest.job is GuestJob.NONE else Remedy.NOTHING
    return Remedy.RECORD_SUSPENDED if guest.saved else Remedy.RECORD_STOPPED


class UnexpectedGuestRemedy(StrEnum):
    NOTHING = "nothing"
    REMOVE = "remove"  # its instance has been deleted, or never came to be
    RELEASE = "release"  # a husk of a guest whose place is another host
    END = "end"  # its disk is another host's, which has the instance, or owes its removal
    ALARM = "alarm"  # it runs where it should not: said aloud, never ended by a guess


def unexpected_guest_remedy(
    is_deleted: bool, vm_state: str, place: str | None, host: str, guest: Guest, *, is_returning: bool = False
) -> UnexpectedGuestRemedy:
    """What to do about a guest that `host` has, when its instance's place is `place`: of a deleted one, the host that
    owes its removal, and where it may live until then. `is_returning`: the host had been declared gone, and was let in
    again; what the store has given to another one meanwhile it ends, running or not."""
    if place == host or guest.state is GuestState.ABSENT:
        return UnexpectedGuestRemedy.NOTHING
    if is_deleted and place is not None:
        return UnexpectedGuestRemedy.END
    if is_deleted or (place is None and vm_state in PLACELESS):
        return UnexpectedGuestRemedy.REMOVE  # no place: its boot was undone while this host was away
    if place is None:  # its row is wrong, and this may be the only place where its data is
        return UnexpectedGuestRemedy.ALARM
    if guest.state is GuestState.RUNNING:
        return UnexpectedGuestRemedy.END if is_returning else UnexpectedGuestRemedy.ALARM
    return UnexpectedGuestRemedy.RELEASE
