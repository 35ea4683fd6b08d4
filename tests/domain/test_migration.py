"""The verdict table: complete but for the one pair that must not be, and an outgoing job decides nothing."""

from __future__ import annotations

import itertools

import pytest

from droveway.domain.migration import TABLE, Seen, Verdict, seen, verdict
from droveway.domain.model import Guest, GuestJob, GuestState


def test_table_lacks_only_the_broken_law() -> None:
    assert set(itertools.product(Seen, Seen)) - set(TABLE) == {(Seen.RUNNING, Seen.RUNNING)}


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
    assert seen(Guest("i", GuestState.SHUTOFF)) is Seen.ABSENT
