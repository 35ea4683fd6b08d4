"""The verdict table: complete but for the one pair that must not be, and an outgoing job decides nothing."""

from __future__ import annotations

import itertools

import pytest

from droveway.domain.migration import TABLE, ObservedState, Verdict, seen, verdict
from droveway.domain.model import Guest, GuestJob, GuestState, PostCopy


def test_table_lacks_only_the_broken_law() -> None:
    assert set(itertools.product(ObservedState, ObservedState)) - set(TABLE) == {
        (ObservedState.RUNNING, ObservedState.RUNNING)
    }


def test_running_on_two_hosts_is_a_broken_law() -> None:
    guest = Guest("i", GuestState.RUNNING)
    with pytest.raises(AssertionError, match="runs on two hosts"):
        verdict(guest, guest)


def test_running_at_the_destination_decides_whatever_the_source_says() -> None:
    there = Guest("i", GuestState.RUNNING)
    for source in (None, Guest("i", GuestState.PAUSED, GuestJob.OUTGOING), Guest("i", GuestState.ABSENT)):
        assert verdict(source, there) is Verdict.SWITCHED


def test_an_outgoing_job_leaves_it_open() -> None:
    source = Guest("i", GuestState.RUNNING, GuestJob.OUTGOING)
    assert verdict(source, None) is Verdict.COPYING
    assert verdict(source, Guest("i", GuestState.PAUSED, GuestJob.INCOMING)) is Verdict.COPYING


def test_silence_is_never_taken_for_absence() -> None:
    assert verdict(None, Guest("i", GuestState.ABSENT)) is Verdict.WAIT
    assert verdict(Guest("i", GuestState.ABSENT), None) is Verdict.WAIT
    assert verdict(None, None) is Verdict.WAIT


def test_a_definition_that_does_not_run_is_absence() -> None:
    assert seen(Guest("i", GuestState.SHUTOFF)) is ObservedState.ABSENT


def at(state: GuestState, *, kept: bool = False) -> Guest:
    return Guest("i", state, kept=kept)


@pytest.mark.parametrize(
    ("left", "rebooted", "wanted"),
    [
        (GuestState.ABSENT, False, Verdict.STAYED),
        (GuestState.SHUTOFF, False, Verdict.ENDED),
        (GuestState.ABSENT, True, Verdict.ENDED),
    ],
)
def test_a_husk_is_not_taken_for_a_guest_that_stayed(left: GuestState, rebooted: bool, wanted: Verdict) -> None:
    assert verdict(at(GuestState.PAUSED), at(left), destination_rebooted=rebooted) is wanted


@pytest.mark.parametrize("source", [GuestState.PAUSED, GuestState.ABSENT])
def test_what_is_paused_for_long_is_decided_by_whether_it_has_arrived_whole(source: GuestState) -> None:
    arrived, half = at(GuestState.PAUSED, kept=True), at(GuestState.PAUSED)
    assert verdict(at(source), arrived) is Verdict.COPYING
    assert verdict(at(source), arrived, settled=True) is Verdict.SWITCHED
    ended = Verdict.STAYED if source is GuestState.PAUSED else Verdict.ENDED
    assert verdict(at(source), half, settled=True) is ended


def test_a_host_that_was_declared_gone_has_the_guest_only_where_the_other_has_not() -> None:
    r, p, a = at(GuestState.RUNNING), at(GuestState.PAUSED), at(GuestState.ABSENT)
    there, here = (False, True), (True, False)
    assert verdict(r, None, gone=there) is Verdict.STAYED
    assert verdict(None, r, gone=here) is Verdict.SWITCHED
    assert verdict(a, None, gone=there) is verdict(None, a, gone=here) is Verdict.LEFT
    for settled in (False, True):
        assert verdict(p, None, gone=there, settled=settled) is Verdict.UNDECIDED
        assert verdict(None, p, gone=here, settled=settled) is Verdict.UNDECIDED
    assert verdict(None, None, gone=(True, True)) is Verdict.UNDECIDED
    assert verdict(None, None, gone=here) is verdict(None, None, gone=there) is Verdict.WAIT


# -- a guest whose memory lies on two hosts ---------------------------------------------------------------------------
def half(post_copy: PostCopy, *, there: bool) -> Guest:
    state, job = (GuestState.RUNNING, GuestJob.INCOMING) if there else (GuestState.PAUSED, GuestJob.OUTGOING)
    return Guest("i", state, job, post_copy=post_copy)


HERE, THERE = ({one: half(one, there=there) for one in (PostCopy.ACTIVE, PostCopy.FAILED)} for there in (False, True))
ACTIVE, FAILED = PostCopy.ACTIVE, PostCopy.FAILED


def test_a_guest_in_post_copy_is_at_its_destination_only_once_it_is_whole_there() -> None:
    assert verdict(HERE[ACTIVE], THERE[ACTIVE]) is Verdict.COPYING
    for source in (HERE[ACTIVE], HERE[FAILED], None, at(GuestState.ABSENT)):
        assert verdict(source, at(GuestState.RUNNING)) is Verdict.SWITCHED
    for settled in (False, True):
        assert verdict(HERE[ACTIVE], at(GuestState.PAUSED), settled=settled) is not Verdict.STAYED


def test_a_cut_between_its_halves_is_mended_when_both_say_so() -> None:
    assert verdict(HERE[FAILED], THERE[FAILED]) is Verdict.TORN
    assert verdict(HERE[FAILED], THERE[ACTIVE]) is verdict(HERE[ACTIVE], THERE[FAILED]) is Verdict.COPYING
    assert verdict(HERE[FAILED], THERE[ACTIVE], settled=True) is Verdict.TORN
    assert verdict(HERE[ACTIVE], THERE[ACTIVE], settled=True) is Verdict.COPYING


@pytest.mark.parametrize("state", [GuestState.ABSENT, GuestState.SHUTOFF])
def test_it_is_lost_with_either_half_and_silence_is_no_loss(state: GuestState) -> None:
    gone = at(state)
    assert verdict(gone, THERE[FAILED]) is verdict(HERE[FAILED], gone) is Verdict.LOST
    assert verdict(gone, THERE[ACTIVE]) is verdict(HERE[ACTIVE], gone) is Verdict.COPYING
    assert verdict(gone, THERE[ACTIVE], settled=True) is verdict(HERE[ACTIVE], gone, settled=True) is Verdict.LOST
    for settled in (False, True):
        assert verdict(HERE[FAILED], None, settled=settled) is Verdict.WAIT
        assert verdict(None, THERE[FAILED], settled=settled) is Verdict.WAIT
        assert verdict(None, THERE[ACTIVE], settled=settled) is Verdict.COPYING


def test_a_source_that_was_declared_gone_loses_only_a_guest_that_stands_still() -> None:
    for settled in (False, True):
        assert verdict(None, THERE[FAILED], gone=(True, False), settled=settled) is Verdict.LOST
        assert verdict(None, THERE[ACTIVE], gone=(True, False), settled=settled) is Verdict.COPYING
        assert verdict(HERE[FAILED], None, gone=(False, True), settled=settled) is Verdict.UNDECIDED
