"""What is asked before a guest moves, and how long its move will take."""

from __future__ import annotations

import pytest

from droveway.domain import move_checks
from droveway.domain.model import GuestState
from droveway.domain.move_checks import Check, VolumeBackend, first_failed
from droveway.domain.move_prediction import (
    LEARNT_FROM_MIN,
    GuestLoad,
    Mode,
    Outcome,
    Way,
    learn,
    of_mode,
    predict,
)

MIB = 1024**2
WAY = Way(bytes_per_s=100 * MIB, setup_s=1.0, downtime_s=0.05)


def failed(*answers: move_checks.CheckAnswer) -> str:
    found = first_failed(answers)
    return "" if found is None else found.name


def test_each_check_says_its_reason_only_when_it_fails() -> None:
    assert failed(*move_checks.of_server("s", "active", "h1", holds_cells=False)) == ""
    assert failed(*move_checks.of_server("s", "stopped", "h1", holds_cells=False)) == Check.ACTIVE
    assert failed(*move_checks.of_server("s", "active", "h1", holds_cells=True)) == Check.NUMA
    down = move_checks.of_source("h1", "it was switched off", is_up=False, hypervisor_up=True)
    assert (down.name, down.passed) == (Check.SOURCE_UP, False) and "switched off" in down.reason
    assert move_checks.of_source("h1", "", is_up=True, hypervisor_up=False).passed is False
    assert move_checks.of_source("h1", "", is_up=True, hypervisor_up=True).reason == ""
    assert move_checks.of_other_host("h1", "h1").passed is False
    assert move_checks.of_other_host("h1", None).passed is True


def test_a_backend_that_is_down_is_named_and_one_that_never_reported_is_not_held_against_it() -> None:
    up, unknown = VolumeBackend("v1", "h@a", True), VolumeBackend("v2", "h@b", None)
    down = VolumeBackend("v3", "h@c", False, "its process died")
    assert move_checks.of_backends([up, unknown]).passed
    answer = move_checks.of_backends([up, down])
    assert answer.passed is False and all(word in answer.reason for word in ("v3", "h@c", "its process died"))


@pytest.mark.parametrize(
    ("state", "stalled", "devices", "fails"),
    [
        (GuestState.RUNNING, "", (), ""),
        (GuestState.PAUSED, "", (), Check.GUEST),
        (GuestState.ABSENT, "", (), Check.GUEST),
        (GuestState.PAUSED, "its disk vda fails", (), Check.IO_ERROR),
        (GuestState.RUNNING, "", ("host device 0000:03:00.0",), Check.DEVICES),
    ],
)
def test_a_guest_that_waits_for_a_disk_is_told_from_one_that_is_paused(
    state: GuestState, stalled: str, devices: tuple[str, ...], fails: str
) -> None:
    answers = move_checks.of_guest(state, stalled, devices)
    assert failed(*answers) == fails
    assert all(device in (answers[2].reason or "") for device in devices)


@pytest.mark.parametrize(
    ("is_shared", "needs_store", "asked", "passes"),
    [
        (True, True, None, True),
        (True, True, "auto", True),
        (True, True, False, True),
        (True, True, True, False),
        (True, False, True, False),
        (False, True, True, True),
        (False, True, "auto", True),
        (False, True, None, True),
        (False, True, False, False),
        (False, False, False, True),
    ],
)
def test_block_migration_is_asked_for_where_it_is_needed(
    is_shared: bool, needs_store: bool, asked: bool | str | None, passes: bool
) -> None:
    answer = move_checks.of_store("h1", "h2", asked, is_shared=is_shared, needs_store=needs_store)
    assert answer.passed is passes


def test_room_is_enough_to_the_byte() -> None:
    assert move_checks.of_room("g", 10, 10).passed
    assert not move_checks.of_room("g", 9, 10).passed
    assert not move_checks.of_room("g", -1, 0).passed


# -- the prediction ---------------------------------------------------------------------------------------------------
def seconds(load: GuestLoad, mode: Mode, disk_bytes: int = 0, downtime_max_s: float = 0.3) -> tuple[float, float]:
    one = of_mode(predict(load, disk_bytes, WAY, downtime_max_s), mode)
    assert one.duration_s is not None and one.downtime_s is not None
    return one.duration_s, one.downtime_s


def test_an_idle_guest_takes_its_memory_and_its_disks() -> None:
    idle = GuestLoad(512 * MIB, 200 * MIB)
    for mode in (Mode.NEVER_SLOW, Mode.AUTO_CONVERGE, Mode.POST_COPY, Mode.PAUSE):
        duration_s, downtime_s = seconds(idle, mode)
        assert downtime_s == pytest.approx(0.05)
        assert duration_s == pytest.approx(3.0, abs=0.06)
    assert seconds(idle, Mode.NEVER_SLOW, disk_bytes=400 * MIB)[0] == pytest.approx(7.05)
    assert seconds(idle, Mode.COLD, disk_bytes=400 * MIB) == (5.0, 5.0)


def test_what_is_dirtied_meanwhile_is_sent_again() -> None:
    """200 MiB, then half of that in each pass, until a pass would take no longer than the downtime."""
    busy = GuestLoad(512 * MIB, 200 * MIB, 50 * MIB)
    duration_s, downtime_s = seconds(busy, Mode.NEVER_SLOW)
    assert downtime_s == pytest.approx(0.05 + 0.25)
    assert duration_s == pytest.approx(1.0 + 2.0 + 1.0 + 0.5 + 0.3)
    assert seconds(busy, Mode.PAUSE)[1] == pytest.approx(0.05 + 1.0)
    assert seconds(busy, Mode.POST_COPY)[1] == pytest.approx(0.05)


def test_a_guest_that_outruns_the_network_does_not_end_by_itself_and_is_slowed_down_until_it_does() -> None:
    wild = GuestLoad(512 * MIB, 200 * MIB, 150 * MIB)
    found = of_mode(predict(wild, 0, WAY, 0.3), Mode.NEVER_SLOW)
    assert (found.duration_s, found.downtime_s) == (None, None)
    slowed_s, downtime_s = seconds(wild, Mode.AUTO_CONVERGE)
    assert slowed_s > 10 and downtime_s <= 0.05 + 0.3
    assert seconds(wild, Mode.POST_COPY)[0] < slowed_s
    never = of_mode(predict(GuestLoad(512 * MIB, 200 * MIB, 100_000 * MIB), 0, WAY, 0.001), Mode.AUTO_CONVERGE)
    assert never.duration_s is None


def test_the_rate_and_what_comes_besides_are_learnt_from_earlier_moves() -> None:
    assert learn([], WAY) is WAY
    shown = [Outcome(n * MIB, 0.5 + n / 200, 0.02) for n in (100, 200, 300, 400, 800)]
    assert learn(shown[: LEARNT_FROM_MIN - 1], WAY) is WAY
    way = learn(shown, WAY)
    assert way.bytes_per_s == pytest.approx(200 * MIB) and way.setup_s == pytest.approx(0.5)
    assert way.downtime_s == pytest.approx(0.02) and way.learnt_from == 5
    odd = learn([*shown, Outcome(250 * MIB, 60.0)], WAY)
    assert odd.bytes_per_s == pytest.approx(200 * MIB, rel=0.2), "one that took long shifts little"


def test_moves_that_are_all_alike_tell_what_they_take_and_no_rate() -> None:
    way = learn([Outcome(200 * MIB, 2.5)] * 6, WAY)
    assert way.bytes_per_s == WAY.bytes_per_s
    assert way.setup_s == pytest.approx(0.5) and way.downtime_s == WAY.downtime_s


def test_moves_of_busy_guests_are_left_out_as_long_as_there_are_others() -> None:
    calm = [Outcome(n * MIB, 0.5 + n / 200, None, 0) for n in (100, 200, 400, 800)]
    busy = [Outcome(n * MIB, 9 + n / 10, None, 90 * MIB) for n in (100, 200, 400, 800)]
    assert learn([*busy, *calm], WAY).bytes_per_s == pytest.approx(200 * MIB)
    assert learn(busy, WAY).bytes_per_s < 20 * MIB
