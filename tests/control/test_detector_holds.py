"""How long a hold lasts for each of those that are held."""

from __future__ import annotations

from droveway.domain.liveness import State
from tests.control.hall import DetectorHarness, play


def test_a_host_that_falls_silent_in_a_later_storm_has_a_hold_of_its_own() -> None:
    async def story(hall: DetectorHarness) -> None:
        first, last = ("h1", "h2", "h3"), tuple(f"h{n}" for n in range(4, 11))
        hall.silence(*first, gone=True)
        await hall.step(20)
        hall.silence(*last, gone=True)  # and now nobody is heard at all
        await hall.step(15)
        assert {hall.state(host) for host in first} == {State.HOST_GONE}
        assert {hall.state(host) for host in last} == {State.HELD}
        assert hall.detector.holds.begun == 1
        await hall.step(14)
        assert {hall.state(host) for host in last} == {State.HELD}
        await hall.step(5)
        assert {hall.state(host) for host in last} == {State.NOT_REPORTING} and not hall.detector.holds

    play(story, *(f"h{n}" for n in range(1, 11)))


def test_a_host_that_falls_silent_alone_during_a_hold_waits_for_its_end() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", "h2", "h3", gone=True)
        await hall.step(20)
        hall.silence("h4", gone=True)
        await hall.step(4)
        assert hall.state("h4") is State.HELD
        await hall.step(10)
        assert await hall.row("h4") == (False, "host gone")

    play(story, *(f"h{n}" for n in range(1, 11)))
