"""A beat's bytes: what goes in comes out, and nothing else is taken for one. And the bytes of a connection."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.agents.heart import heart_bytes
from droveway.domain.liveness import DIED, LATENESS_MAX_MS, LEFT
from droveway.drivers.bus import beats
from droveway.drivers.bus.nats_wire import NatsWire
from droveway.ports.bus import MAX_MESSAGE_BYTES, Beat

NOTES_MAX_CHARACTERS = 80  # of at most four bytes: twelve of these fit
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
numbers = st.integers(0, (1 << 64) - 1)


@st.composite
def some_beats(draw: st.DrawFn) -> Beat:
    services = draw(st.lists(names, max_size=12))
    progress = [draw(st.integers(0, beats.PROGRESS_MAX)) for _ in services]
    lateness = [draw(st.integers(0, beats.LATENESS_MAX)) for _ in services]
    words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=NOTES_MAX_CHARACTERS)
    notes = tuple(draw(words) for _ in services) if draw(st.booleans()) else ()
    return Beat(
        draw(names),
        draw(names),
        draw(numbers),
        draw(numbers),
        tuple(services),
        tuple(progress),
        tuple(lateness),
        draw(numbers),
        notes if any(notes) else (),
    )


@given(some_beats())
def test_both_ways_of_reading_give_back_what_was_sent(beat: Beat) -> None:
    payload, reader = beats.encode(beat), beats.BeatReader()
    assert beats.decode(payload) == beat
    assert reader.read(b"there", payload) is None
    reader.know(b"there", payload)
    assert reader.read(b"there", payload) == beat
    assert reader.read(b"elsewhere", payload) is None
    reader.forget(b"there")
    assert reader.read(b"there", payload) is None


@given(some_beats())
def test_a_heart_makes_the_same_bytes(beat: Beat) -> None:
    front = heart_bytes.front(beat.host, beat.boot_id, beat.services)
    payload = heart_bytes.beat(
        front,
        beat.generation,
        beat.counter,
        beat.wall_us,
        list(beat.progress),
        list(beat.lateness_ms),
        list(beat.notes),
    )
    assert payload == beats.encode(beat)
    assert beats.identity(payload) == front


def test_a_heart_and_its_readers_mean_the_same() -> None:
    assert (heart_bytes.FORMAT, heart_bytes.SERVICES_MAX) == (beats.FORMAT, beats.SERVICES_MAX)
    assert (heart_bytes.LATENESS_MAX_MS, heart_bytes.LEFT, heart_bytes.DIED) == (LATENESS_MAX_MS, LEFT, DIED)
    assert heart_bytes.NOTES_MAX_BYTES == beats.NOTES_MAX_BYTES


def test_notes_that_find_no_room_are_left_out() -> None:
    front = heart_bytes.front("h", "b", ("a", "b", "c"))
    beat = beats.decode(heart_bytes.beat(front, 1, 2, 3, [0] * 3, [0] * 3, ["x" * 3000, "y" * 3000, "z\0z"]))
    assert beat.notes == ("x" * 3000, "", "z z")
    with pytest.raises(ValueError, match="do not fit"):
        beats.encode(Beat("h", "b", 1, 1, ("a",), (0,), (0,), 0, ("x" * 5000,)))


@pytest.mark.parametrize("behind", [b"x" * 5000, b"\xff", b"a\0b\0c"])
def test_wrong_notes_are_no_beat(behind: bytes) -> None:
    payload, reader = beats.encode(Beat("h", "b", 1, 1, ("a",), (0,), (0,))), beats.BeatReader()
    reader.know(b"there", payload)
    with pytest.raises(ValueError):
        beats.decode(payload + behind)
    assert reader.read(b"there", payload + behind) is None
    assert reader.read(b"there", payload + b"a note") == beats.decode(payload + b"a note")


@given(st.binary(max_size=200), some_beats(), st.integers(0, 100), st.integers(0, 255))
def test_anything_else_is_refused_by_one_error(junk: bytes, beat: Beat, at: int, byte: int) -> None:
    payload, reader = beats.encode(beat), beats.BeatReader()
    reader.know(b"there", payload)
    spoilt = bytearray(payload)
    spoilt[at % len(payload)] = byte
    for one in (junk, payload[: at % len(payload)], payload + junk, bytes(spoilt)):
        with contextlib.suppress(ValueError):
            beats.decode(one)
        reader.read(b"there", one)


def test_out_of_bounds_numbers_are_brought_into_them() -> None:
    beat = beats.decode(beats.encode(Beat("h", "b", 1 << 64, 0, ("a", "b"), (1 << 32, 7), (-5, 1 << 20))))
    assert (beat.counter, beat.progress, beat.lateness_ms) == (0, (0, 7), (0, beats.LATENESS_MAX))


def test_a_connection_is_understood_however_it_is_cut() -> None:
    heard: list[tuple[bytes, bytes, bytes | None]] = []
    too_large = MAX_MESSAGE_BYTES + 1
    stream = (
        b"+OK\r\nMSG a.b 1 5\r\nhello\r\nMSG a.b 1 reply 0\r\n\r\nPING\r\nMSG a 9 2\r\n\r\n\r\n"
        b"HMSG a.b 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\nHMSG a.b 1 re 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
        b"MSG big 1 %d\r\n%b\r\nMSG last 1 2\r\n\r\n\r\n" % (too_large, bytes(too_large))
    )
    expected = [
        (b"a.b", b"", b"hello"),
        (b"a.b", b"reply", b""),
        (b"a.b", b"", None),
        (b"a.b", b"re", b"hi"),
        (b"last", b"", b"\r\n"),
    ]

    async def story(cut: int, until: int) -> None:
        wire = NatsWire({b"1": lambda *message: heard.append(message)}, lambda _: None)
        for at in range(0, until, cut):
            wire.data_received(stream[at : min(at + cut, until)])
        wire.data_received(stream[until:])
        assert not wire._rest
        assert not wire._skip

    for cut, until in ((1, 230), (7, 230), (1000, 4000), (1 << 20, len(stream)), (len(stream), len(stream))):
        heard.clear()
        asyncio.run(story(cut, until))
        assert heard == expected, (cut, until)
