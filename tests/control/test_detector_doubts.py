"""False positives avoided: storms, a bus without input, the detector's own sleep, its lease; and its bounds."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from droveway.control.liveness.duty import LEASE_TTL_S
from droveway.control.liveness.observer import HELLOS_PER_S
from droveway.domain import service_kinds
from droveway.domain.liveness import State
from droveway.domain.service_kinds import Kind
from droveway.ports.bus import AgentDisconnected, Beat, Hello, Report
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, services
from droveway.store.work import leases
from tests.control.hall import COMPUTE, SETTINGS, DetectorHarness, play


def test_a_storm_is_held_and_the_hold_ends_with_the_beats() -> None:
    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        hall.silence(*hosts, gone=True)
        await hall.step(10)
        assert {hall.state(host) for host in hosts} == {State.HELD}
        assert hall.detector.holds.begun == 1
        assert "10 of 10 hosts" in (await hall.why("h1", COMPUTE))["evidence"][1]["reason"]
        hall.hello(*hosts)
        await hall.step(2)
        assert not hall.detector.holds
        assert {hall.state(host) for host in hosts} == {State.ALIVE}

    play(story, *(f"h{n}" for n in range(10)))


def test_a_hold_ends_after_its_time_and_by_then_every_host_was_asked() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", "h2", "h3", "h4", gone=True)
        hall.bus.answering.add("h4")
        await hall.step(29)
        assert all([await hall.row(host) == (True, "alive") for host in ("h1", "h2", "h3", "h4")])
        await hall.step(6)
        assert [await hall.row(host) for host in ("h1", "h2", "h3")] == [(False, "host gone")] * 3
        assert await hall.row("h4") == (True, "alive")
        assert await hall.row("h5") == (True, "alive")
        assert not hall.detector.holds

    play(story, *(f"h{n}" for n in range(1, 11)))


def test_two_that_die_together_are_no_storm() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", "h2", gone=True)
        await hall.step(4)
        assert [await hall.row(host) for host in ("h1", "h2")] == [(False, "host gone")] * 2

    play(story, "h1", "h2", "h3", "h4")


def test_what_was_asked_without_input_does_not_count() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", "h2", gone=True)
        await hall.step(1.75)
        assert hall.observation("h1").services["nova-compute"].no_answer
        hall.bus.answering.add("h1")  # the ear is well again, and the other one happens to beat first
        hall.hello("h2")
        hall.beat("h2")
        await hall.step(1)
        assert await hall.row("h1") == (True, "alive")
        hall.silence("h1", gone=True)
        await hall.step(4 + SETTINGS.service_down_time_s)  # there was a silence of all
        assert await hall.row("h1") == (False, "host gone")

    play(story, "h1", "h2")


def test_ends_of_processes_that_the_kernel_reported_are_no_storm() -> None:
    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        for host in hosts:
            hall.observer.on_notice(AgentDisconnected(host, "its agent's connection ended"))
        await hall.step(1)
        assert not hall.detector.holds
        assert {await hall.row(host) for host in hosts} == {(False, "dead")}

    play(story, *(f"h{n}" for n in range(10)))


def test_an_observer_that_was_stopped_gives_the_time_back() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.clock.at_s += 3600.0  # and nobody was heard meanwhile: the beats wait in the sockets
        hall.detector.look()
        hall.detector.look()
        await hall.step(1)
        assert {hall.state(host) for host in hall.beating} == {State.ALIVE}
        assert hall.detector.tally.asks == hall.detector.holds.begun == 0

    play(story, "h1", "h2", "h3", "h4")


def test_after_it_was_stopped_a_host_that_was_silent_before_has_a_service_down_time() -> None:
    """What it sent meanwhile may have been dropped."""

    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        await hall.step(1)
        hall.clock.at_s += 8.0
        await hall.step(3)
        assert hall.state("h1") is State.ALIVE
        await hall.step(3)
        assert hall.state("h1") is State.HOST_GONE

    play(story, "h1", "h2", "h3", "h4")


def test_nothing_is_concluded_while_the_broker_is_away_nor_before_a_grace() -> None:
    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        hall.silence(*hosts, gone=True)
        hall.bus.trouble = "the connection to the broker was lost"
        await hall.step(600)
        assert {hall.state(host) for host in hosts} == {State.ALIVE}
        told = await hall.why("h1", COMPUTE)
        assert any(one["about"] == "broker" and "600 s" in one["reason"] for one in told["evidence"])
        hall.bus.trouble = ""
        await hall.step(4)
        assert {hall.state(host) for host in hosts} == {State.ALIVE}
        hall.hello(*hosts)
        await hall.step(2)
        assert {hall.state(host) for host in hosts} == {State.ALIVE}

    play(story, "h1", "h2")


def test_a_detector_that_begins_grants_one_service_down_time_of_grace() -> None:
    async def story(hall: DetectorHarness) -> None:
        fresh = await DetectorHarness(hall.clock, hall.store, "one").open()
        await fresh.duty.look(await hall.store.read(leases.listing))
        assert fresh.detector.is_active
        fresh.bus.is_direct = True  # whom it has not heard it cannot have missed
        fresh.bus.reachable.clear()
        await fresh.step(4.5)
        assert await fresh.row("h1") == (True, "alive")
        await fresh.step(2.5 + SETTINGS.storm_hold_time_s)  # both at once
        assert [await fresh.row(host) for host in ("h1", "h2")] == [(False, "not reporting")] * 2

    play(story, "h1", "h2")


def test_what_was_down_before_the_detector_began_stays_down_until_it_is_heard() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        await hall.step(4)
        fresh = await DetectorHarness(hall.clock, hall.store, "one").open()
        await fresh.duty.look(await hall.store.read(leases.listing))
        await fresh.step(1)
        assert await fresh.row("h1") == (False, "host gone")
        fresh.hello("h1")
        await fresh.step(1)
        assert await fresh.row("h1") == (True, "alive")

    play(story, "h1", "h2")


def test_another_takes_over_when_the_lease_stands_still() -> None:
    async def story(hall: DetectorHarness) -> None:
        other = await DetectorHarness(hall.clock, hall.store, "two").open()
        other.hello("h1", "h2")

        async def turn(moves: bool) -> None:
            other.beat("h2")  # it hears somebody
            if moves:
                assert hall.verdicts.epoch is not None
                await hall.store.run(leases.renew, leases.DETECTOR, hall.verdicts.epoch)
            await other.duty.look(await hall.store.read(leases.listing))

        for _ in range(10):
            await turn(moves=True)
            hall.clock.at_s += 5.0
        assert not other.detector.is_active
        told = await other.why("h1", COMPUTE)
        assert any(one["reason"].startswith("failure detector: one") and not one["is_bad"] for one in told["evidence"])
        for _ in range(5):
            await turn(moves=False)
            hall.clock.at_s += LEASE_TTL_S / 4
        assert other.detector.is_active
        # The first one does not know yet. What it says is not written, and it stands down.
        hall.silence("h1", gone=True)
        await hall.step(7, writes=False)  # it did not look while the other one did, so h1 has a grace first
        with pytest.raises(Exception, match="taken over by two"):
            await hall.verdicts._once(hall.detector)
        assert await hall.row("h1") == (True, "alive")
        await hall.duty.look(await hall.store.read(leases.listing))
        assert not hall.detector.is_active

    play(story, "h1", "h2")


def test_without_a_failure_detector_why_says_since_when() -> None:
    async def story(hall: DetectorHarness) -> None:
        def bury(tx: Tx) -> None:
            assert hall.verdicts.epoch is not None
            leases.release(tx, leases.DETECTOR, hall.verdicts.epoch)

        other = await DetectorHarness(hall.clock, hall.store, "two").open()
        await other.duty.look(await hall.store.read(leases.listing))
        hall.clock.at_s += 60.0
        told = await other.why("h1", COMPUTE)
        assert any("no failure detector has run for 60 s (last: one)" in one["reason"] for one in told["evidence"])

    play(story, "h1", "h2")


def test_at_rest_nothing_is_written_but_the_snapshot() -> None:
    async def story(hall: DetectorHarness) -> None:
        asked: dict[str, list[str]] = {"run": [], "read": []}

        def noted(way: str, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
            return lambda fn, *args: asked[way].append(fn.__name__) or call(fn, *args)  # type: ignore[func-returns-value]

        for way in asked:
            setattr(hall.store, way, noted(way, getattr(hall.store, way)))
        for _ in range(120):
            await hall.step(1)
        assert asked["run"] == ["snapshot"] * 2
        # Which reports the failure detector before this one found too old, once; and the services.
        assert asked["read"] == ["refused_because", "on_hosts", "on_hosts"]

    play(story, "h1", "h2")


def test_a_report_that_says_the_same_again_is_remembered_and_not_written() -> None:
    async def story(hall: DetectorHarness) -> None:
        async def reported(reason: str) -> tuple[int, str]:
            said = Report("h1", "boot", 1, False, reason, None, (), is_complete=False)
            await hall.step(1)
            hall.observer.on_notice(said)
            await hall.verdicts._once(hall.detector)
            row = await hall.store.read(hosts.health, "h1")
            assert row is not None
            return row["reported_at_us"], row["reason"]

        first_us, _ = await reported("libvirtd is dead")
        assert await reported("libvirtd is dead") == (first_us, "libvirtd is dead")
        later_us, said = await reported("libvirtd hangs")
        assert later_us > first_us and said == "libvirtd hangs"
        assert await reported("libvirtd hangs") == (later_us, said)
        for _ in range(60):
            await hall.step(1)
        assert await reported("libvirtd hangs") == (later_us, said)
        last_report = hall.observer.inbox.last_report("h1")
        assert last_report is not None and last_report.at_us > later_us + 60_000_000
        told = await hall.why("h1", COMPUTE)
        assert any("its agent reported 0.0 s ago" in one["reason"] for one in told["evidence"])

    play(story, "h1", "h2")


def test_a_host_that_fails_beside_its_broker_is_found_when_the_broker_is_back() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        await hall.step(1.75)
        assert hall.state("h1") is State.SUSPECT
        hall.bus.trouble = "the connection to the broker was lost"
        await hall.step(5)
        hall.bus.trouble = ""
        await hall.step(3)
        assert hall.state("h1") in {State.ALIVE, State.SUSPECT}
        await hall.step(5)
        assert await hall.row("h1") == (False, "host gone")

    play(story, "h1", "h2")


def test_one_lost_ping_is_not_the_last_word() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1")
        await hall.step(10)
        for _ in range(20):
            hall.bus.answering.discard("h1")
            await hall.step(1.5)  # one question is lost, the next one answered
            hall.bus.answering.add("h1")
            await hall.step(1.5)
            assert await hall.row("h1") == (True, "alive")

    play(story, "h1", "h2")


def test_what_is_down_by_silence_is_asked_now_and_then() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        hall.bus.reachable.add("h1")
        await hall.step(5)
        assert await hall.row("h1") == (False, "not reporting")
        hall.bus.reachable.clear()
        await hall.step(40)
        assert await hall.row("h1") == (False, "host gone")
        hall.bus.answering.add("h1")
        await hall.step(40)
        assert await hall.row("h1") == (True, "alive")

    play(story, "h1", "h2")


def test_a_takeover_in_the_middle_of_a_storm_holds_it_too() -> None:
    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        hall.silence(*hosts, gone=True)
        await hall.step(5)
        fresh = await DetectorHarness(hall.clock, hall.store, "one").open()
        fresh.bus.is_direct = True
        await fresh.duty.look(await hall.store.read(leases.listing))
        await fresh.step(20)
        assert {fresh.state(host) for host in hosts} == {State.HELD}
        fresh.hello(*hosts)
        await fresh.step(2)
        assert {await fresh.row(host) for host in hosts} == {(True, "alive")}

    play(story, *(f"h{n}" for n in range(10)))


def test_a_control_without_input_leaves_the_lease_to_another() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.bus.trouble = "the connection to the broker was lost"
        assert hall.duty.epoch_to_renew is not None
        await hall.step(10)
        assert hall.duty.epoch_to_renew is None
        deaf = await DetectorHarness(hall.clock, hall.store, "two").open()
        deaf.bus.trouble = "the connection to the broker was lost"
        for _ in range(10):
            await deaf.step(2.5)
            await deaf.duty.look(await hall.store.read(leases.listing))
        assert not deaf.detector.is_active
        deaf.bus.trouble = ""
        deaf.hello("h1")
        await deaf.step(1)
        await deaf.duty.look(await hall.store.read(leases.listing))
        assert deaf.detector.is_active

    play(story, "h1", "h2")


def test_of_many_dead_each_has_a_verdict_in_a_bounded_time() -> None:
    async def story(hall: DetectorHarness) -> None:
        hosts = tuple(hall.beating)
        hall.silence(*hosts[:1500], gone=True)
        await hall.step(45)
        pinged = {host for host, verb in hall.bus.asked if verb == "Ping"}
        assert pinged == set(hosts[:1500])
        assert {hall.state(host) for host in hosts[:1500]} == {State.HOST_GONE}
        looked_s = []
        for _ in range(20):
            began_s = time.process_time()
            hall.clock.at_s += 0.25
            hall.detector.look()
            looked_s.append(time.process_time() - began_s)
        assert sorted(looked_s)[10] < 0.01  # who is down costs nothing but a question now and then

    play(story, *(f"h{n}" for n in range(1510)))


def test_a_verdict_on_its_way_is_not_forgotten_by_a_reading_of_the_rows() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended"))
        hall.detector.look()  # dead, and waiting for the store
        await hall.verdicts.learn(hall.detector)
        hall.hello("h1")
        await hall.step(1)
        assert await hall.row("h1") == (True, "alive")

    play(story, "h1", "h2")


def test_a_host_may_not_fill_the_table_nor_speak_for_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(service_kinds.KINDS, "cinder-volume", Kind("volume", has_backends=True))

    async def story(hall: DetectorHarness) -> None:
        hall.observer.on_notice(Beat("h1", "boot", 9_999, 1, ("nova-computer", "a b"), (1, 1), (0, 0)))
        assert set(hall.observation("h1").services) == {"nova-compute"}  # of no kind that there is
        for number in range(40):
            names = tuple(f"cinder-volume@b{number}-{one}" for one in range(200))
            hall.observer.on_notice(
                Beat("h1", "boot", 10_000 + number, 1, (*names, "nova-scheduler"), (number,) * 201, (0,) * 201)
            )
        await hall.step(0.25)
        rows = [row for row in await hall.store.read(services.on_hosts) if row["host"].partition("@")[0] == "h1"]
        assert len(rows) == 255
        assert {row["host"] for row in rows if row["binary"] == "cinder-volume"} >= {"h1@b0-0", "h1@b0-199"}
        assert not {row["binary"] for row in rows} & set(services.CONTROL)
        welcome = hall.observer.on_notice(Hello("h\0st", "boot", "here"))
        assert welcome is not None and not welcome.accepted and "must be 1 to 64" in welcome.reason
        welcome = hall.observer.on_notice(Hello("h1", "boot", "here"))
        assert welcome is not None and welcome.accepted
        hosts = len(hall.observer.expected())
        assert welcome.spread_s == hosts / HELLOS_PER_S < 0.01  # a small cloud waits for nothing

    play(story, "h1", "h2")
