"""A failure detector without input concludes nothing, whatever the cause; nor from a witness that is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from droveway.control.liveness.duty import LEASE_TTL_S
from droveway.control.liveness.input_check import RENEWED_AFTER, InputCheck
from droveway.domain.faults import Stale
from droveway.domain.liveness import State
from droveway.ports.bus import AgentDisconnected
from droveway.store.work import leases
from tests.control.hall import COMPUTE, SETTINGS, DetectorHarness, HandClock, play


@pytest.mark.parametrize("hosts", [("h1",), ("h1", "h2"), tuple(f"h{n}" for n in range(1, 11))], ids=len)
def test_without_its_own_echo_nothing_is_concluded(hosts: tuple[str, ...]) -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.bus.echoes = False
        hall.silence(*hosts, gone=True)
        await hall.step(600)
        assert {hall.state(host) for host in hosts} <= {State.ALIVE, State.SUSPECT, State.HELD}
        assert hall.duty.epoch_to_renew is not None and hall.duty.epoch_to_renew is None  # others may take over
        told = await hall.why("h1", COMPUTE)
        assert any("what this control sends itself does not come back" in one["reason"] for one in told["evidence"])
        assert "subscribe" in told["advice"][0]
        hall.bus.echoes = True
        hall.hello(*hosts[1:])
        await hall.step(SETTINGS.service_down_time_s)
        assert {await hall.row(host) for host in hosts} == {(True, "alive")}
        await hall.step(SETTINGS.service_down_time_s + 0.5)
        assert not (await hall.row("h1"))[0]
        assert all([await hall.row(host) == (True, "alive") for host in hosts[1:]])

    play(story, *hosts)


def test_a_second_loss_of_input_is_another_one() -> None:
    """However short the time between, and however much of a hold was spent in the first."""

    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        for _ in range(20):
            hall.bus.echoes = False
            hall.silence(*hosts, gone=True)
            await hall.step(17)
            hall.bus.echoes = True
            await hall.step(0.25)
        assert {await hall.row(host) for host in hosts} == {(True, "alive")}

    play(story, "h1", "h2", "h3", "h4")


def test_after_a_long_loss_who_was_silent_before_it_may_have_come_back() -> None:
    """However long ago it was heard: nothing is concluded of it before it had its time with input."""

    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        for _ in range(25):
            hall.bus.trouble = "the broker is away"
            await hall.step(SETTINGS.service_down_time_s + 1)
            hall.bus.trouble = ""
            await hall.step(2)
            assert hall.state("h1") in {State.SUSPECT, State.ALIVE}
        await hall.step(SETTINGS.service_down_time_s * 2)
        assert await hall.row("h1") == (False, "host gone")

    play(story, "h1", "h2", "h3")


def test_a_pause_too_short_to_be_called_a_loss_is_no_silence() -> None:
    """What a host sent in it may be lost with the echoes."""

    async def story(hall: DetectorHarness) -> None:
        hall.bus.echoes = False
        hall.silence("h1", gone=True)
        await hall.step(1.25)
        hall.bus.echoes = True
        await hall.step(2)
        assert hall.detector.no_input is None
        assert hall.state("h1") is State.SUSPECT, "4 s without a heartbeat, less than 2.7 of them with input"
        await hall.step(1)
        assert await hall.row("h1") == (False, "host gone")
        for _ in range(20):  # one that has a verdict is not heard again by it
            hall.bus.echoes = False
            await hall.step(1.25)
            hall.bus.echoes = True
            await hall.step(0.25)
            assert not hall.observer.is_heard("h1")

    play(story, "h1", "h2", "h3")


def test_a_heartbeat_that_was_lost_before_a_short_stop_is_no_silence() -> None:
    """What h1 sent while its control was stopped would have been the next: one interval of its silence counts less."""

    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        await hall.step(0.5)
        hall.clock.at_s += 1.5  # stopped
        await hall.step(1.75)
        assert hall.state("h1") is State.SUSPECT, "not yet gone: one heartbeat may have been lost"
        await hall.step(1.75)
        assert await hall.row("h1") == (False, "host gone")

    play(story, "h1", "h2", "h3")


def test_without_any_heartbeat_nothing_is_concluded_and_no_lease_taken() -> None:
    """Another prefix, another account: the echo comes back, and no host's heartbeat will."""

    async def story(hall: DetectorHarness) -> None:
        other = await DetectorHarness(hall.clock, hall.store, "two").open()
        for _ in range(10):
            await other.step(LEASE_TTL_S / 2)  # while the first stands still
            await other.duty.look(await hall.store.read(leases.listing))
            assert not other.detector.is_active
        told = await other.why("h1", COMPUTE)
        assert any("no host has been heard since this control started" in one["reason"] for one in told["evidence"])
        assert "prefix" in told["advice"][0]
        other.hello("h2")
        await other.step(1)
        await other.duty.look(await hall.store.read(leases.listing))
        assert other.detector.is_active
        await other.step(SETTINGS.service_down_time_s * 2 + 1)
        assert [await other.row(host) for host in ("h1", "h2")] == [(False, "not reporting"), (True, "alive")]

    play(story, "h1", "h2")


def test_a_missing_answer_does_not_count_where_the_question_could_not_arrive() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1")
        hall.bus.reachable.discard("h1")
        hall.bus.answering.discard("h1")
        for _ in range(20):
            hall.bus.echoes = False
            await hall.step(1.25)  # not for long enough to be found out
            hall.bus.echoes = True
            await hall.detector.input.confirm()
        assert not hall.observation("h1").services["nova-compute"].no_answer
        assert await hall.row("h1") == (True, "alive")
        await hall.step(3)
        assert await hall.row("h1") == (False, "host gone")

    play(story, "h1", "h2")


def test_a_witness_that_reaches_no_host_does_not_count() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        hall.bus.reachable.clear()
        await hall.step(4)
        assert await hall.row("h1") == (False, "not reporting")
        hall.bus.reachable.update(("h2", "h3"))
        await hall.step(40)
        assert await hall.row("h1") == (False, "host gone")
        hall.bus.reachable.clear()
        await hall.step(40)
        assert await hall.row("h1") == (False, "host gone")

    play(story, "h1", "h2", "h3")


@pytest.mark.parametrize("ended", [True, False])
def test_a_host_that_is_off_is_called_so_once(ended: bool) -> None:
    """231 verdicts in a minute were counted: its agent's connection had ended, and it was not reached."""

    async def story(hall: DetectorHarness) -> None:
        if ended:
            hall.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended"))
        hall.silence("h1", gone=True)
        await hall.step(5)
        assert await hall.row("h1") == (False, "host gone")
        said = hall.detector.tally.entered.copy()
        await hall.step(60)
        hall.bus.echoes = False
        await hall.step(5)
        hall.bus.echoes = True
        await hall.step(60)
        assert hall.detector.tally.entered == said
        assert said["dead"] == ended and said["host gone"] == 1

    play(story, "h1", "h2", "h3")


class QuickClock(HandClock):
    """Whoever sleeps puts it forward."""

    async def sleep(self, seconds: float) -> None:
        self.at_s += seconds
        await asyncio.sleep(0)


def test_a_connection_that_stays_without_an_echo_is_made_anew() -> None:
    async def story(hall: DetectorHarness) -> None:
        clock = QuickClock()
        check = asyncio.create_task(InputCheck(hall.bus, hall.observer, clock, hall.detector.timing).run())
        began_s, hall.bus.echoes = clock.at_s, False
        while clock.at_s < began_s + (4 * RENEWED_AFTER + 1) * SETTINGS.report_interval_s / 4:
            await asyncio.sleep(0)
        assert hall.bus.renewed == 4
        hall.bus.echoes = True
        while clock.at_s < began_s + 100:
            await asyncio.sleep(0)
        hall.bus.echoes, hall.bus.trouble = False, "the connection to the broker was lost"  # it knows that already
        while clock.at_s < began_s + 200:
            await asyncio.sleep(0)
        assert hall.bus.renewed == 4
        check.cancel()

    play(story, "h1", "h2")


def test_a_host_that_beats_too_slowly_does_not_keep_another_one_up_for_ever() -> None:
    """Of two hosts one is off, and each beat of the other ends a silence of all."""

    async def story(hall: DetectorHarness) -> None:
        boot = hall.beating["h2"]
        hall.silence("h1", "h2")
        hall.bus.answering.discard("h1")
        hall.bus.reachable.discard("h1")
        hall.beating["h2"] = boot
        beats = hall.beating.copy()
        for _ in range(50):  # one each 1.75 s
            hall.beating = {}
            await hall.step(1.5)
            hall.beating = beats
            await hall.step(0.25)
        assert [await hall.row(host) for host in ("h1", "h2")] == [(False, "host gone"), (True, "alive")]

    play(story, "h1", "h2")


def test_a_verdict_is_written_under_the_lease_it_was_found_with_or_not_at_all() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        await hall.step(4, writes=False)
        assert hall.state("h1") is State.HOST_GONE and hall.verdicts.waiting
        epoch = hall.verdicts.epoch
        assert epoch is not None and await hall.store.run(leases.take, leases.DETECTOR, "two", epoch) is not None
        with pytest.raises(Stale):
            await hall.verdicts._once(hall.detector)
        assert await hall.row("h1") == (True, "alive")

    play(story, "h1", "h2", "h3")


async def side_by_side(hall: DetectorHarness, other: DetectorHarness, seconds: int) -> AsyncIterator[None]:
    """Two controls on one clock; each second is over for both, and their leases are looked after every five."""
    for second in range(seconds):
        before_s = hall.clock.at_s
        await hall.step(1)
        hall.clock.at_s = before_s
        await other.step(1)
        if second % 5 == 0:
            for one in (hall, other):
                if (epoch := one.duty.epoch_to_renew) is not None:
                    await hall.store.run(leases.renew, leases.DETECTOR, epoch)
                await one.duty.look(await hall.store.read(leases.listing))
        yield


def test_a_detector_without_heartbeats_hands_over_before_it_calls_hosts_down() -> None:
    """Its part of the broker carries its echo, and no host is on that side."""

    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        other = await DetectorHarness(hall.clock, hall.store, "two").open()
        other.hello(*hosts)
        hall.silence(*hosts, gone=True)
        async for _ in side_by_side(hall, other, 60):
            assert {(await hall.row(host))[0] for host in hosts} == {True}
        assert (hall.detector.is_active, other.detector.is_active) == (False, True)

    play(story, "h1", "h2", "h3")


def test_where_two_have_no_input_the_holder_of_the_lease_goes_on() -> None:
    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        other = await DetectorHarness(hall.clock, hall.store, "two").open()
        other.hello(*hosts)
        await other.step(1)
        for one in (hall, other):
            one.silence(*hosts, gone=True)
        async for _ in side_by_side(hall, other, 60):
            pass
        assert hall.detector.is_active
        assert not any([(await hall.row(host))[0] for host in hosts])

    play(story, "h1", "h2", "h3")


def test_a_host_that_is_off_is_found_down_though_the_broker_stalls_repeatedly() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        for _ in range(20):
            hall.bus.echoes = False
            await hall.step(2)
            hall.bus.echoes = True
            await hall.step(3)
        assert [await hall.row(host) for host in ("h1", "h2", "h3")] == [
            (False, "host gone"),
            (True, "alive"),
            (True, "alive"),
        ]

    play(story, "h1", "h2", "h3")
