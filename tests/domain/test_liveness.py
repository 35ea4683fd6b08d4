"""The judge's table, its clock, and what it makes of what was heard."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.domain.liveness import (
    DIED,
    LEFT,
    TABLE,
    UP,
    HostObservation,
    Service,
    Signal,
    State,
    Timing,
    accept,
    diagram,
    grant,
    new_boot,
    next_state,
    note_progress,
    read,
    storm_threshold,
)
from droveway.domain.observer_clock import ObserverClock

TIMING = Timing()
DOWN = frozenset(State) - UP
NAMES = ("a", "b")


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_row_and_only_news_of_life_or_an_answer_lifts_what_is_down(state: State) -> None:
    for signal in Signal:
        end = next_state(state, signal)
        if state in DOWN and end in UP:
            assert signal in {Signal.BEATS, Signal.ANSWERED}


def test_silence_alone_makes_nobody_down() -> None:
    for state in UP:
        for signal in (Signal.SILENT, Signal.STORM, Signal.WAIT, Signal.ANSWERED):
            assert next_state(state, signal) in UP


def test_every_state_can_be_left_by_a_beat_and_every_state_but_the_first_is_reached() -> None:
    assert all(next_state(state, Signal.BEATS) is State.ALIVE for state in State)
    assert {end for ways in TABLE.values() for end in ways.values()} == set(State) - {State.EXPECTED}


def test_the_diagram_in_the_docs_is_the_table() -> None:
    docs = Path(__file__).parents[2] / "docs" / "liveness.md"
    assert diagram() in docs.read_text()


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=50))
def test_the_fair_clock_never_goes_back_and_never_leaps(gaps_s: list[float]) -> None:
    clock, monotonic_s, before_s = ObserverClock(0.5), 1000.0, 0.0
    for number, gap_s in enumerate(gaps_s):
        monotonic_s += gap_s
        now_s = clock.now_s(monotonic_s)
        assert number == 0 or -1e-6 <= now_s - before_s <= 0.5 + 1e-6
        before_s = now_s


def test_a_storm_is_two_of_a_hundred_and_never_less_than_three() -> None:
    assert [storm_threshold(hosts) for hosts in (1, 100, 150, 10_000)] == [3, 3, 3, 200]


def seen_alive(*names: str) -> HostObservation:
    seen = HostObservation("h", 0.0, services={name: Service(State.ALIVE) for name in names})
    assert accept(seen, "boot", 1, 10.0, 2.0)
    note_progress(seen, names, tuple(range(len(names))), (3,) * len(names), 10.0)
    return seen


def test_a_beat_counts_when_its_number_rises_and_its_boot_is_the_youngest() -> None:
    seen = seen_alive("a")
    assert not accept(seen, "boot", 1, 11.0, 2.0)
    assert not accept(seen, "boot", 0, 11.0, 2.0)
    assert accept(seen, "boot", 2, 11.0, 2.0)
    assert not accept(seen, "next", 1, 12.0, 2.0)  # the old one was heard a second ago
    assert accept(seen, "next", 1, 13.5, 2.0)
    assert not accept(seen, "boot", 3, 999.0, 2.0)
    assert (seen.beat_s, seen.beats, seen.refused) == (13.5, 3, 4)


def test_a_boot_that_says_hello_again_is_believed_again() -> None:
    seen = seen_alive("a")
    new_boot(seen, "next")
    new_boot(seen, "boot")
    assert seen.older_boots == ("next",)
    assert accept(seen, "boot", 1, 11.0, 2.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_who_stands_still_is_known_with_the_time_since(moves: list[tuple[bool, bool]]) -> None:
    seen = seen_alive(*NAMES)
    at = {"a": 0, "b": 1}
    since: dict[str, float] = {}
    names = NAMES
    for number, moved in enumerate(moves):
        now_s = 11.0 + number
        for name, has_moved in zip(NAMES, moved, strict=True):
            at[name] = (at[name] + has_moved) % 2**32
            if has_moved:
                since.pop(name, None)
            else:
                since.setdefault(name, now_s)
        if number % 7 == 6:
            names = tuple(sorted(NAMES))  # equal, and not the same
        note_progress(seen, names, (at["a"], at["b"]), (3, 3), now_s)
        assert seen.stalled_since_s == since


@pytest.mark.parametrize(("code", "signal"), [(DIED, Signal.DIED), (LEFT, Signal.LEFT)])
def test_one_of_several_services_ends(code: int, signal: Signal) -> None:
    seen = seen_alive(*NAMES)
    note_progress(seen, NAMES, (5, 1), (3, code), 11.0)
    assert read(seen, "a", 11.0, TIMING)[0] is Signal.BEATS
    assert read(seen, "b", 11.0, TIMING)[0] is signal


def test_a_process_that_said_hello_and_ended_before_it_joined_is_dead_and_not_hung() -> None:
    seen = seen_alive(*NAMES)
    note_progress(seen, NAMES, (5, 1), (3, DIED), 11.0)
    seen.ended.pop("b")  # another process of it says hello, and ends as well: the host reports one end or the other
    for number in range(2, 20):
        accept(seen, "boot", number, 10.0 + number, 2.0)
        note_progress(seen, NAMES, (5 + number, 7), (3, DIED), 10.0 + number)
        assert read(seen, "b", 10.0 + number, TIMING)[0] is (Signal.BEATS if number <= 5 else Signal.DIED)
    note_progress(seen, NAMES, (30, 7), (3, 3), 30.0)  # its successor, which happens to have the same count
    assert read(seen, "b", 30.0, TIMING)[0] is Signal.BEATS


def test_a_service_that_its_heart_does_not_name_has_a_while_to_join() -> None:
    seen = seen_alive(*NAMES)
    note_progress(seen, (), (), (), 11.0)
    for number in range(2, 8):
        accept(seen, "boot", number, 10.0 + number, 2.0)
        note_progress(seen, (), (), (), 10.0 + number)
        signal, reason = read(seen, "a", 10.0 + number, TIMING)
        assert signal is (Signal.WAIT if number <= 4 else Signal.DIED)
    assert "no process of it has joined them for 6 s" in reason


def test_nobody_can_join_a_heart_that_is_away() -> None:
    seen = seen_alive("a")
    note_progress(seen, (), (), (), 11.0)
    accept(seen, "boot", 2, 19.0, 2.0)  # the first of another heart
    note_progress(seen, (), (), (), 19.0)
    assert read(seen, "a", 19.0, TIMING)[0] is Signal.WAIT


def test_the_reading_of_silence() -> None:
    seen = seen_alive("a")

    def signal(now_s: float) -> Signal:
        return read(seen, "a", now_s, TIMING)[0]

    assert signal(12.0) is Signal.BEATS
    assert signal(12.1) is Signal.SILENT
    assert signal(13.1) is Signal.SILENT  # nobody was asked yet
    seen.services["a"].no_answer = "the agent of h did not answer"
    assert signal(13.1) is Signal.UNHEARD
    seen.is_reachable = False
    assert signal(13.1) is Signal.GONE
    seen.services["a"].answered_s = 12.5
    assert signal(13.1) is Signal.ANSWERED
    assert signal(15.6) is Signal.GONE
    seen.held_since_s = 15.6
    assert signal(16.0) is Signal.STORM
    seen.services["a"].disconnect_reason = "its agent's connection ended"
    assert signal(16.0) is Signal.DIED_EARLIER
    seen.held_since_s = None
    assert signal(16.0) is Signal.GONE  # not only its agent
    seen.services["a"].disconnected_cleanly = True
    assert signal(16.0) is Signal.LEFT


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("signal", Signal)
def test_the_same_facts_read_twice_change_nothing(state: State, signal: Signal) -> None:
    assert next_state(next_state(state, signal), signal) is next_state(state, signal)


def test_timing_leaves_room_for_a_second_opinion() -> None:
    for interval_s, down_s in ((1.0, 3.0), (0.25, 0.75), (10.0, 60.0)):
        timing = Timing(interval_s, down_s)
        assert timing.suspect_after_s + timing.ask_timeout_s < timing.conclude_after_s < down_s
        assert timing.suspect_after_s >= interval_s * 2


def test_whoever_is_in_a_grace_and_silent_is_not_hung() -> None:
    seen = seen_alive("a")
    note_progress(seen, ("a",), (0,), (3,), 10.5)  # two beats in a row without a move, and none since
    seen.quiet_from_s = 40.0
    assert read(seen, "a", 39.0, TIMING)[0] is Signal.WAIT
    assert read(seen, "a", 44.0, TIMING)[0] is Signal.SILENT


def test_a_hello_of_one_service_tells_nothing_of_whether_another_one_moves() -> None:
    """Two heartbeats close together show no movement; the next ones are lost, and meanwhile the other one starts."""
    seen = HostObservation("h", 0.0, services={name: Service(State.ALIVE) for name in NAMES})
    for counter, now_s in ((1, 0.0), (2, 0.2), (3, 0.4)):
        assert accept(seen, "boot", counter, now_s, 2.0)
        note_progress(seen, NAMES, (7, 7), (0, 0), now_s)
    seen.beat_s = seen.quiet_from_s = hello_s = TIMING.service_hung_time_s
    signal, why = read(seen, "a", hello_s + 1.0, TIMING)
    assert signal is Signal.BEATS and why == "heartbeats arrive; its loop has not turned for 0.2 s"
    assert accept(seen, "boot", 4, hello_s + 1.5, 2.0)
    note_progress(seen, NAMES, (7, 8), (0, 0), hello_s + 1.5)
    assert [read(seen, name, hello_s + 1.5, TIMING)[0] for name in NAMES] == [Signal.STUCK, Signal.BEATS]


def test_time_without_heartbeats_does_not_count_as_time_without_progress() -> None:
    """A process that stood for 8 s and went on unheard: its host's heartbeats were lost, or the detector was deaf."""
    seen = HostObservation("h", 0.0, services={name: Service(State.ALIVE) for name in NAMES})
    for second in range(10):
        assert accept(seen, "boot", 1 + second, float(second), 2.0)
        note_progress(seen, NAMES, (7, second), (0, 0), float(second))
    assert read(seen, "a", 10.9, TIMING)[0] is Signal.BEATS
    assert accept(seen, "boot", 11, 11.0, 2.0)
    note_progress(seen, NAMES, (7, 11), (0, 0), 11.0)
    signal, why = read(seen, "a", 11.0, TIMING)
    assert signal is Signal.STUCK and why == "it has made no progress for 10 s"
    seen.beat_s = seen.quiet_from_s = 13.0  # the other one says hello, and no heartbeat follows
    assert read(seen, "a", 13.5, TIMING)[0] is Signal.WAIT


def test_what_was_reported_before_a_grace_is_no_verdict_after_it() -> None:
    """The detector's time stood still while it was deaf: a process may have gone on, or have been started again."""
    seen = HostObservation("h", 0.0, services={name: Service(State.ALIVE, connected=True) for name in (*NAMES, "c")})
    for second in range(12):
        assert accept(seen, "boot", 1 + second, float(second), 2.0)
        note_progress(seen, NAMES, (7, 1), (0, DIED), float(second))
    expected = {"a": Signal.STUCK, "b": Signal.DIED, "c": Signal.DIED}  # c has not joined
    assert {name: read(seen, name, 11.0, TIMING)[0] for name in expected} == expected
    grant(seen, 14.0)
    for name in expected:
        signal, reason = read(seen, name, 11.1, TIMING)
        assert signal is Signal.WAIT and reason.startswith("no heartbeat has reported on it since")
    assert accept(seen, "boot", 13, 12.0, 2.0)
    note_progress(seen, NAMES, (7, 1), (0, DIED), 12.0)
    assert {name: read(seen, name, 12.0, TIMING)[0] for name in expected} == expected
    grant(seen, 15.0)
    assert accept(seen, "boot", 14, 13.0, 2.0)
    note_progress(seen, (*NAMES, "c"), (8, 2, 1), (0, 0, 0), 13.0)
    assert {read(seen, name, 13.0, TIMING)[0] for name in expected} == {Signal.BEATS}


def test_a_connection_that_ended_needs_no_heartbeat_after_a_grace() -> None:
    seen = seen_alive("a")
    grant(seen, 13.0)
    seen.services["a"].disconnect_reason = "its agent's connection ended"
    assert read(seen, "a", 10.5, TIMING)[0] is Signal.DIED
