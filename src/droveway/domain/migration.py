"""Where a guest is while it moves. A command's error is not a verdict; only what both hosts say is (law 3).

The table below is the whole machine: (source, destination) -> verdict.
"""

from __future__ import annotations

from enum import StrEnum

from droveway.domain.model import START, Guest, GuestJob, GuestState, PostCopy

# The steps of a live migration at which a check is still to be made; its first one, when nothing has begun.
CHECKS = frozenset(
    (START, "instance_runs", "withdraw_stale", "choose_destination", "check_destination", "check_source")
) | {"remove_probe", "await_turn", "admit_destination", "prepare_files"}

# And those behind its point of no return.
AFTER_SWITCH = frozenset(
    ("carry_connections", "record_switch", "keep_files", "release_source", "withdraw_source", "drop_files")
) | {"record_done"}


class ObservedState(StrEnum):
    """One host's word on the guest, or that it gave none."""

    RUNNING = "running"
    PAUSED = "paused"  # half arrived, or left behind and no longer running
    ABSENT = "absent"  # not there, or only a definition that does not run
    UNREACHABLE = "unreachable"
    GONE = "gone"  # an operator has said that the host will not come back by itself: it is not asked


class Verdict(StrEnum):
    SWITCHED = "switched"  # it is at the destination: go forward
    STAYED = "stayed"  # it is at the source and nothing is copying: undo
    COPYING = "copying"  # nothing is decided yet: ask again
    WAIT = "wait"  # a host must answer before anybody may say
    ENDED = "ended"  # it runs on neither any more: undo, and what is paused at the source must never run again
    LEFT = "left"  # if it is anywhere, then on a host that was declared gone: undo, and start it nowhere
    TORN = "torn"  # its memory lies on both, and nothing leads from one to the other: to be connected again
    LOST = "lost"  # its memory lay on both, and one of the two has lost its half: it is no more, wherever it was
    UNDECIDED = "undecided"  # a host that was declared gone may run it: only its return or a deletion ends that


V, R, P, A, U, G = (
    Verdict,
    ObservedState.RUNNING,
    ObservedState.PAUSED,
    ObservedState.ABSENT,
    ObservedState.UNREACHABLE,
    ObservedState.GONE,
)
TABLE: dict[tuple[ObservedState, ObservedState], Verdict] = {
    (R, P): V.STAYED,
    (R, A): V.STAYED,
    (R, U): V.STAYED,
    (P, R): V.SWITCHED,
    (A, R): V.SWITCHED,
    # The source is silent: libvirt lets the destination run only after the source has been paused for good.
    (U, R): V.SWITCHED,
    # Paused on both sides is the moment of the switch, or a switch cut in half: libvirt resumes or ends one of them,
    # and where it does not SETTLED decides.
    (P, P): V.COPYING,
    (P, U): V.WAIT,
    # Paused at the source with nothing at the destination: the switch was cut; undoing resumes it (but see `verdict`).
    (P, A): V.STAYED,
    (A, P): V.COPYING,
    (A, U): V.WAIT,
    (U, P): V.WAIT,
    (U, A): V.WAIT,
    (U, U): V.WAIT,
    (A, A): V.ENDED,
    # Declared gone is no proof that it is off: what may run there is run nowhere else.
    (R, G): V.STAYED,
    (G, R): V.SWITCHED,
    (A, G): V.LEFT,
    (G, A): V.LEFT,  # the one that answers has not got it
    (P, G): V.UNDECIDED,
    (G, P): V.UNDECIDED,
    (G, G): V.UNDECIDED,
    (U, G): V.WAIT,
    (G, U): V.WAIT,
}
# (running, running) is missing on purpose: it is a broken law, and the saga that meets it must stop.

# What stays so for longer than any hypervisor takes to resume or to end one of the two: (pair, whether the guest at the
# destination has arrived whole) -> verdict. One that has arrived whole is the guest, paused there for a reason of its
# own; one that has not never ran.
SETTLED: dict[tuple[ObservedState, ObservedState, bool], Verdict] = {
    (P, P, True): V.SWITCHED,
    (P, P, False): V.STAYED,
    (A, P, True): V.SWITCHED,
    (A, P, False): V.ENDED,
}


def seen(guest: Guest | None, *, gone: bool = False) -> ObservedState:
    """What an answer (None: there was none) says of the guest. `gone`: that host was declared so."""
    if guest is None:
        return G if gone else U
    return {GuestState.RUNNING: R, GuestState.PAUSED: P, GuestState.SHUTOFF: A, GuestState.ABSENT: A}[guest.state]


def is_split(guest: Guest | None) -> bool:
    """A half of it is there, as that host sees it."""
    return guest is not None and guest.post_copy is not PostCopy.NONE


def _of_halves(source: Guest | None, destination: Guest | None, *, gone: tuple[bool, bool], settled: bool) -> Verdict:
    """Of a guest in post-copy: it runs at the destination, or stands still there, and never again at its source.

    What says that it is whole at the destination is so at once. A half whose other one is gone is lost with it; that
    this is so is taken from a host which says that it has no half, or which will not come back by itself.
    """
    there, here = destination, source
    if there is not None and there.state is GuestState.RUNNING and there.post_copy is PostCopy.NONE:
        return V.SWITCHED
    if there is None:
        return V.UNDECIDED if gone[1] else V.WAIT
    failed = [half is not None and half.post_copy is PostCopy.FAILED for half in (here, there)]
    if not is_split(there):  # it ended there, with its hypervisor's process or by itself
        return V.LOST if failed[0] or settled else V.COPYING
    if here is None and not gone[0]:
        return V.WAIT if failed[1] else V.COPYING
    if not is_split(here):
        # A source lets go only after its destination has said that it has all of it. Not every destination notices by
        # itself that it is alone: found by killing QEMU at the source.
        return V.LOST if failed[1] or (settled and here is not None) else V.COPYING
    return V.TORN if failed[0] and (failed[1] or settled) else V.COPYING


def verdict(
    source: Guest | None,
    destination: Guest | None,
    *,
    destination_rebooted: bool = False,
    gone: tuple[bool, bool] = (False, False),
    settled: bool = False,
) -> Verdict:
    """Decide from what both hosts say now; None is a host that did not answer, or that was declared `gone`. `settled`:
    they have said the same for long.

    While the source says that a copy is going out nothing is decided, unless the destination runs already. What is
    paused at the source is a husk when the guest has run at the destination since: a definition that it left there
    says so, and a destination that has booted since cannot deny it. Resumed, it would write over a disk that has
    gone on without it.
    """
    at = (seen(source, gone=gone[0]), seen(destination, gone=gone[1]))
    if is_split(source) or is_split(destination):
        return _of_halves(source, destination, gone=gone, settled=settled)
    assert at != (R, R), f"{source.instance_id if source else '?'} runs on two hosts"
    if source is not None and source.job is GuestJob.OUTGOING and at[1] is not R:
        return V.COPYING
    if destination is not None and settled and at in ((P, P), (A, P)):
        return SETTLED[at[0], at[1], destination.kept and destination.job is GuestJob.NONE]
    if at == (P, A) and destination is not None:
        may_have_run = destination_rebooted or destination.state is GuestState.SHUTOFF
        return V.ENDED if may_have_run else TABLE[at]
    return TABLE[at]
