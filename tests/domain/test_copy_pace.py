"""A copy goes as fast as it may: data slowly, what is empty quickly, and the last part slowest of all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.domain import copy_pace
from droveway.domain.copy_pace import MIB, WRITTEN_MAX_BYTES_A_S, DiskCopySample, first_speed, next_speed

LOOK_S = 0.1


def copied(is_data: list[bool], part_mib: int = 64) -> tuple[float, list[tuple[float, int]]]:
    """A disk of such parts, copied as it says: how long it takes, and each look with the data that was written since
    the one before."""
    total, passed, written, at_s = len(is_data) * part_mib * MIB, 0, 0, 0.0
    speed, looks = first_speed(), []
    before = DiskCopySample(0.0, total)
    while passed < total:
        left, fresh = speed * LOOK_S, 0
        while left > 0 and passed < total:
            step = int(min(left, part_mib * MIB - passed % (part_mib * MIB)))
            fresh += step if is_data[passed // (part_mib * MIB)] else 0
            passed, left = passed + max(1, step), left - max(1, step)
        written, at_s = written + fresh, at_s + LOOK_S
        looks.append((at_s, fresh))
        now = DiskCopySample(at_s, total, passed, written)
        speed, before = next_speed(speed, before, now), now
        assert at_s < 100_000
    return at_s, looks


def test_what_is_full_takes_its_time_and_what_is_empty_does_not() -> None:
    full_s, _ = copied([True] * 16)
    assert 10 < full_s < 16  # 1 GiB at 100 MiB/s, and the last part
    empty_s, _ = copied([False] * 1600)  # 100 GiB
    assert empty_s < 60
    mixed_s, looks = copied([*([True] * 16), *([False] * 1000), *([True] * 16)])
    assert mixed_s < 90
    beyond = [fresh for _, fresh in looks if fresh > 2 * WRITTEN_MAX_BYTES_A_S * LOOK_S]
    assert len(beyond) <= 8, "it slows down within some looks after what is empty has ended"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_little_is_written_at_the_end(is_data: list[bool]) -> None:
    """Whatever came before, between the last looks no more than the last part's speed lets through."""
    _, looks = copied(is_data)
    total = len(is_data) * 64 * MIB
    if total > 4 * copy_pace.LAST_BYTES:
        assert looks[-1][1] <= 2 * copy_pace.LAST_BYTES_A_S * LOOK_S


def test_what_is_not_known_changes_nothing() -> None:
    for now in (DiskCopySample(0.0, 5 * MIB, MIB), DiskCopySample(1.0)):
        assert next_speed(7, DiskCopySample(0.0), now) == 7
