"""The failure detector on a clock in the test's hands: every state, and every way in and out of it."""

from __future__ import annotations

import pytest

from droveway.domain.liveness import DIED, LEFT, State
from droveway.ports.bus import AgentDisconnected, Beat, HeartDisconnected, Hello
from droveway.store.fleet import services
from tests.control.hall import COMPUTE, SETTINGS, DetectorHarness, play


def test_a_host_that_is_gone_is_suspect_first_and_then_down() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        await hall.step(1.25)  # the last beat was 0.75 s before
        assert hall.state("h1") is State.ALIVE
        await hall.step(0.5)
        assert hall.state("h1") is State.SUSPECT
        assert await hall.row("h1") == (True, "alive")
        await hall.step(0.75)
        assert await hall.row("h1") == (False, "host gone")
        assert hall.bus.asked[:2] == [("h1", "Ping"), ("h2", "Reach")]

    play(story, "h1", "h2")


def test_a_host_whose_hypervisor_is_reached_is_there_and_does_not_report() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        hall.bus.reachable.add("h1")
        await hall.step(4)
        assert await hall.row("h1") == (False, "not reporting")
        told = await hall.why("h1", COMPUTE)
        assert any("h2 reaches its hypervisor" in one["reason"] for one in told["evidence"])

    play(story, "h1", "h2")


def test_a_service_that_answers_a_ping_is_not_down_however_long_its_heart_is_silent() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1")
        for _ in range(20):
            await hall.step(3)
            assert (hall.state("h1"), await hall.row("h1")) == (State.SUSPECT, (True, "alive"))
        hall.bus.answering.clear()
        hall.bus.reachable.clear()
        await hall.step(5)
        assert await hall.row("h1") == (False, "host gone")
        hall.hello("h1")
        await hall.step(1)
        assert await hall.row("h1") == (True, "alive")
        assert hall.detector.tally.flaps == 1

    play(story, "h1", "h2")


@pytest.mark.parametrize(("code", "state"), [(DIED, "dead"), (LEFT, "stopped")])
def test_what_the_kernel_says_counts_at_once(code: int, state: str) -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.beat("h1", lateness_ms=code)
        hall.silence("h1")
        hall.detector.look()
        assert hall.state("h1").value == state
        await hall.step(0.25)
        assert await hall.row("h1") == (False, state)

    play(story, "h1", "h2")


def test_a_new_process_that_says_hello_is_alive_although_the_heart_still_reports_the_ended_one() -> None:
    async def story(hall: DetectorHarness) -> None:
        boot = hall.beating["h1"]
        hall.silence("h1")
        hall.beating["h1"] = boot
        hall.beat("h1", lateness_ms=DIED)
        hall.detector.look()
        assert hall.state("h1") is State.DEAD
        hall.observer.on_notice(Hello("h1", boot, "here"))
        hall.beat("h1", lateness_ms=DIED)
        hall.detector.look()
        assert hall.state("h1") is State.ALIVE
        hall.beat("h1")
        hall.beat("h1", lateness_ms=DIED)
        hall.detector.look()
        assert hall.state("h1") is State.DEAD

    play(story, "h1", "h2")


def test_the_end_of_an_agents_connection_is_its_end_and_a_hello_its_return() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended"))
        await hall.step(1)
        assert await hall.row("h1") == (False, "dead")
        hall.hello("h1")
        await hall.step(0.25)
        assert await hall.row("h1") == (True, "alive")
        hall.observer.on_notice(AgentDisconnected("h1", "its agent has ended in good order", in_order=True))
        await hall.step(30)
        assert await hall.row("h1") == (False, "stopped")

    play(story, "h1", "h2")


def test_a_service_without_progress_is_hung_and_the_reason_names_where() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.still.add("h1")
        await hall.step(9)
        assert await hall.row("h1") == (True, "alive")
        hall.beat("h1", note="its loop is in task 'report' (compute.py:142)")
        await hall.step(2)
        assert await hall.row("h1") == (False, "hung")
        hall.beat("h1", note="its loop is in task 'report' (compute.py:142)")
        told = await hall.why("h1", COMPUTE)
        assert {"about": "loop", "reason": "its loop is in task 'report' (compute.py:142)", "is_bad": True} in told[
            "evidence"
        ]
        hall.still.clear()
        await hall.step(1)
        assert await hall.row("h1") == (True, "alive")

    play(story, "h1", "h2")


def test_a_heart_that_ends_is_asked_about_at_once_and_no_service_is_called_dead() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1")
        hall.observer.on_notice(HeartDisconnected("h1", "the connection of its heart ended"))
        await hall.step(0.25)
        assert hall.state("h1") is State.SUSPECT
        assert ("h1", "Ping") in hall.bus.asked
        await hall.step(10)
        assert await hall.row("h1") == (True, "alive")

    play(story, "h1", "h2")


@pytest.mark.parametrize(
    ("beat", "because"),
    [
        (Beat("h1", "boot", 1, 1, (COMPUTE,), (1,), (0,)), "replayed"),
        (Beat("h1", "other", 10**9, 1, (COMPUTE,), (1,), (0,)), "another machine"),
    ],
)
def test_a_beat_that_is_no_sign_of_life_is_refused_and_counted(beat: Beat, because: str) -> None:
    async def story(hall: DetectorHarness) -> None:
        before = hall.observer.numbers.beats
        hall.observer.on_notice(beat)
        assert (hall.observer.numbers.beats, hall.observer.numbers.refused) == (before, 1)
        assert any(because in one["reason"] for one in (await hall.why("h1", COMPUTE))["evidence"])

    play(story, "h1", "h2")


def test_a_beat_of_an_older_boot_is_refused_for_ever() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.hello("h1", boot="second")
        await hall.step(2)
        hall.observer.on_notice(Beat("h1", "boot", 10**9, 1, (COMPUTE,), (1,), (0,)))
        hall.clock.at_s += 3600.0
        hall.observer.on_notice(Beat("h1", "boot", 10**9 + 1, 1, (COMPUTE,), (2,), (0,)))
        assert hall.observer.numbers.refused == 2
        assert hall.observation("h1").boot_id == "second"

    play(story, "h1", "h2")


def test_a_clock_that_is_a_day_off_stays_up_and_is_reported() -> None:
    async def story(hall: DetectorHarness) -> None:
        for way, hours in (("ahead of", 24), ("behind", -24)):
            hall.beat("h1", wall_us=hall.clock.now_us() + hours * 3600 * 1_000_000)
            told = await hall.why("h1", COMPUTE)
            assert told["verdict"]["word"] == "up"
            assert any(f"86400.0 s {way} control's" in one["reason"] for one in told["evidence"])

    play(story, "h1", "h2")


def test_a_service_deleted_while_its_agent_hangs_is_there_again_when_it_beats() -> None:
    async def story(hall: DetectorHarness) -> None:
        boot = hall.beating["h1"]
        hall.silence("h1", gone=True)
        await hall.step(4)
        (row,) = await hall.store.read(services.list_all, "h1")
        await hall.store.run(services.remove, row["uuid"])
        await hall.verdicts.learn(hall.detector)
        assert not hall.observer.is_known("h1")
        hall.beating["h1"] = boot
        await hall.step(2)
        assert await hall.row("h1") == (True, "alive")

    play(story, "h1", "h2")


def test_a_heart_without_its_agent_is_no_agent() -> None:
    async def story(hall: DetectorHarness) -> None:
        hall.silence("h1", gone=True)
        await hall.step(5)
        for number in range(1, 8):
            hall.observer.on_notice(Beat("h1", "next boot", number, 1))
            await hall.step(1)
        assert await hall.row("h1") == (False, "dead")
        hall.hello("h1", boot="next boot")
        hall.silence("h1", gone=True)
        for number in range(8, 16):
            hall.observer.on_notice(Beat("h1", "next boot", number, 1))
            await hall.step(1)
        assert await hall.row("h1") == (False, "dead")

    play(story, "h1", "h2")


def test_a_host_with_a_grace_hides_no_silence_of_those_that_were_heard_after_it() -> None:
    async def story(hall: DetectorHarness) -> None:
        rows = list(await hall.store.read(services.on_hosts))
        hall.observer.learn([*rows, {**rows[0], "host": "h9"}])  # one that joins, and of which nothing is heard yet
        await hall.step(0.5)
        hall.silence("h1", gone=True)
        await hall.step(SETTINGS.service_down_time_s)
        assert await hall.row("h1") == (False, "host gone")
        assert hall.state("h9") is State.ALIVE  # as its row says, and its time is not over

    play(story, "h1", "h2", "h3", "h4")
