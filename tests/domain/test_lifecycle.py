"""The instance's machine, and what is done when a row and its guest disagree."""

from __future__ import annotations

import pytest

from droveway.domain.lifecycle import ENDINGS, LIFECYCLE, refusal
from droveway.domain.model import Guest, GuestState, SagaKind, TaskState, VmState
from droveway.domain.reconcile import Remedy, UnexpectedGuestRemedy, remedy, unexpected_guest_remedy


@pytest.mark.parametrize("kind", LIFECYCLE)
@pytest.mark.parametrize("state", VmState)
def test_the_table_decides(kind: SagaKind, state: VmState) -> None:
    allowed = refusal(kind, "g1", state, None, "h1") is None
    assert allowed == (state in LIFECYCLE[kind].states or kind is SagaKind.DELETE)


def test_one_thing_at_a_time_but_deleting() -> None:
    for kind in LIFECYCLE:
        reason = refusal(kind, "g1", VmState.ACTIVE, TaskState.MIGRATING, "h1")
        assert (reason is None) == (kind in ENDINGS)
        if reason:
            assert "g1" in reason and "migrating" in reason


def test_without_a_host_nothing_can_be_started() -> None:
    assert "never got a host" in (refusal(SagaKind.HARD_REBOOT, "g1", VmState.ERROR, None, None) or "")


def test_a_guest_that_ended_by_itself_is_stopped_and_one_whose_host_went_down_is_started() -> None:
    gone = Guest("i", GuestState.ABSENT)
    assert remedy(VmState.ACTIVE, "boot1", "boot1", gone) is Remedy.RECORD_STOPPED
    assert remedy(VmState.ACTIVE, "boot1", "boot2", gone) is Remedy.START_AGAIN
    assert remedy(VmState.STOPPED, "boot1", "boot2", gone) is Remedy.NOTHING
    assert remedy(VmState.STOPPED, None, "boot1", Guest("i", GuestState.RUNNING)) is Remedy.RECORD_RUNNING
    assert remedy(VmState.ACTIVE, None, "boot1", Guest("i", GuestState.RUNNING)) is Remedy.NOTHING
    assert remedy(VmState.ERROR, None, "boot1", Guest("i", GuestState.RUNNING)) is Remedy.NOTHING
    for ran in ("boot1", ""):  # its host was declared gone while it was moved, or started
        assert remedy(VmState.ERROR, ran, "boot1", Guest("i", GuestState.RUNNING)) is Remedy.RECORD_RUNNING
        assert remedy(VmState.ERROR, ran, "boot1", Guest("i", GuestState.PAUSED)) is Remedy.NOTHING
        assert remedy(VmState.ERROR, ran, "boot1", gone) is Remedy.NOTHING


def test_one_that_is_held_is_as_its_host_says() -> None:
    paused, saved = Guest("i", GuestState.PAUSED, suspended=True), Guest("i", GuestState.SHUTOFF, saved=True)
    runs, off = Guest("i", GuestState.RUNNING), Guest("i", GuestState.SHUTOFF)
    for boot in ("boot1", "boot2"):  # memory on the disk outlives its host's boot
        found = {
            (state, guest.state, guest.saved): remedy(state, "boot1", boot, guest)
            for state in (VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED)
            for guest in (paused, saved, runs)
        }
        assert {key: said for key, said in found.items() if said is not Remedy.NOTHING} == {
            (VmState.ACTIVE, GuestState.PAUSED, False): Remedy.RECORD_PAUSED,
            (VmState.ACTIVE, GuestState.SHUTOFF, True): Remedy.RECORD_SUSPENDED,
            (VmState.PAUSED, GuestState.SHUTOFF, True): Remedy.RECORD_SUSPENDED,
            (VmState.PAUSED, GuestState.RUNNING, False): Remedy.RECORD_RUNNING,
            (VmState.SUSPENDED, GuestState.PAUSED, False): Remedy.RECORD_PAUSED,
            (VmState.SUSPENDED, GuestState.RUNNING, False): Remedy.RECORD_RUNNING,
        }
        assert remedy(VmState.PAUSED, "boot1", boot, off) is Remedy.RECORD_STOPPED, "what was paused is not started"
        assert remedy(VmState.SUSPENDED, "boot1", boot, off) is Remedy.RECORD_STOPPED, "its memory is lost"
    by_a_move = Guest("i", GuestState.PAUSED)
    assert remedy(VmState.ACTIVE, "boot1", "boot1", by_a_move) is Remedy.NOTHING


def test_a_running_stranger_is_never_ended() -> None:
    assert (
        unexpected_guest_remedy(False, "active", "h2", "h1", Guest("i", GuestState.RUNNING))
        is UnexpectedGuestRemedy.ALARM
    )
    assert (
        unexpected_guest_remedy(False, "active", "h2", "h1", Guest("i", GuestState.SHUTOFF))
        is UnexpectedGuestRemedy.RELEASE
    )
    assert (
        unexpected_guest_remedy(False, "active", None, "h1", Guest("i", GuestState.RUNNING))
        is UnexpectedGuestRemedy.ALARM
    )
    assert (
        unexpected_guest_remedy(False, "error", None, "h1", Guest("i", GuestState.RUNNING))
        is UnexpectedGuestRemedy.REMOVE
    )
    assert (
        unexpected_guest_remedy(True, "deleted", None, "h1", Guest("i", GuestState.RUNNING))
        is UnexpectedGuestRemedy.REMOVE
    )
    assert (
        unexpected_guest_remedy(False, "active", "h1", "h1", Guest("i", GuestState.RUNNING))
        is UnexpectedGuestRemedy.NOTHING
    )


def test_the_disk_of_a_deleted_server_is_for_the_host_to_delete_that_owes_it() -> None:
    for state in (GuestState.RUNNING, GuestState.PAUSED, GuestState.SHUTOFF):
        assert unexpected_guest_remedy(True, "deleted", "h2", "h1", Guest("i", state)) is UnexpectedGuestRemedy.END
        assert unexpected_guest_remedy(True, "deleted", None, "h1", Guest("i", state)) is UnexpectedGuestRemedy.REMOVE
        assert unexpected_guest_remedy(True, "deleted", "h1", "h1", Guest("i", state)) is UnexpectedGuestRemedy.NOTHING
