"""What becomes of a host's report: written once when it says something new, never when it says the same again."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from droveway.control.liveness.inbox import CHANGED_MAX
from droveway.control.liveness.reports import ACCEPTED, OLD, OLD_S
from droveway.domain.metrics import TaskMetrics
from droveway.domain.model import Guest, GuestState, Resources, of_host
from droveway.domain.placement import NumaCell
from droveway.domain.resources import GuestUse, HostUsage, unusable
from droveway.ports.bus import (
    PROTOCOL_VERSION,
    UPGRADE_RETRY_S,
    AgentDisconnected,
    GuestChanged,
    Hello,
    MalformedMessage,
    Report,
    Welcome,
)
from droveway.store.fleet import host_reports, hosts
from droveway.store.work import events
from tests.control.hall import COMPUTE, DetectorHarness, play

HAS = Resources("KVM", 7002022, "h1", 8, 16384, 12000, 500, 400, cells=(NumaCell(0, tuple(range(8)), 16384),))
SECOND_US = 1_000_000
NEWER = PROTOCOL_VERSION + 1


def said(generation: int, resources: Resources | None = HAS, **values: Any) -> Report:
    return replace(Report("h1", "boot", 1, True, "", resources, (), True, generation=generation), **values)


async def report(hall: DetectorHarness, one: Report) -> Any:
    """It arrives; the host's row after that."""
    hall.observer.on_notice(one)
    await hall.verdicts._once(hall.detector)
    return await hall.store.read(hosts.get, "h1")


def pass_time(hall: DetectorHarness, seconds: float) -> None:
    """The failure detector's time runs no faster than it is asked for."""
    for _ in range(round(seconds * 2)):
        hall.clock.at_s += 0.5
        hall.observer.now_s()


async def reasons(hall: DetectorHarness) -> list[str]:
    return [
        one["body"]["reason"]
        for one in await hall.store.read(events.of_subject, of_host("h1"))
        if one["kind"] == "host"
    ]


def test_only_news_is_written_and_counts_as_a_change() -> None:
    async def story(hall: DetectorHarness) -> None:
        first = await report(hall, said(10))
        assert (first["generation"], first["resources"]["vcpus"], first["refused"]) == (10, 8, "")
        await hall.step(60, writes=False)
        again = await report(hall, said(10, measured=HostUsage(5, (1.0, 1.0, 1.0), guests=(GuestUse("i", 1),))))
        assert again["reported_at_us"] == first["reported_at_us"] and again["claims"] == first["claims"]
        last_report = hall.observer.inbox.last_report("h1")
        assert last_report is not None and last_report.at_us >= first["reported_at_us"] + 60 * SECOND_US
        assert last_report.measured is not None and last_report.measured.guests == (GuestUse("i", 1),)
        grown = await report(hall, said(11, replace(HAS, vcpus=16)))
        assert (grown["generation"], grown["resources"]["vcpus"]) == (11, 16)
        assert grown["claims"] == first["claims"] + 1
        kept = hall.observer.inbox.last_report("h1")
        assert kept is not None and kept.measured is not None
        assert kept.measured.uptime_s == 5  # a short report measures nothing: the last word stands

    play(story, "h1")


def test_a_connected_host_that_reports_no_more_takes_no_new_guests() -> None:
    async def story(hall: DetectorHarness) -> None:
        reports = hall.verdicts.reports
        await report(hall, said(10))
        await reports.mark_old(is_active=True)
        await report(hall, said(10))
        pass_time(hall, OLD_S - 1)
        await reports.mark_old(is_active=True)
        assert (await hall.store.read(hosts.get, "h1"))["refused"] == ""
        pass_time(hall, 2)
        await reports.mark_old(is_active=False)
        assert (await hall.store.read(hosts.get, "h1"))["refused"] == ""
        for _ in range(2):
            await reports.mark_old(is_active=True)
        assert (await hall.store.read(hosts.get, "h1"))["refused"] == OLD
        (facts,) = await hall.store.read(hosts.facts_of_all)
        assert [one.word for one in unusable(facts, (16384, 8, 500))] == ["refused"]
        assert (await report(hall, said(10)))["refused"] == ""
        assert (await reasons(hall))[-2:] == [f"its report was refused: {OLD}", ACCEPTED]
        # A mark of the failure detector before is lifted by the next report that this control hears.
        await hall.store.run(host_reports.refuse, "h1", OLD)
        assert (await report(hall, said(10)))["refused"] == OLD
        await reports.mark_old(is_active=False)
        await reports.mark_old(is_active=True)
        assert (await report(hall, said(10)))["refused"] == ""

    play(story, "h1")


def test_a_host_whose_store_hangs_is_not_usable() -> None:
    async def story(hall: DetectorHarness) -> None:
        await report(hall, said(10))
        await report(hall, said(11, replace(HAS, store_trouble="the instance store at /i does not answer")))
        (facts,) = await hall.store.read(hosts.facts_of_all)
        (why,) = unusable(facts, (16384, 8, 500))
        assert (why.word, why.reason) == ("store", "the instance store at /i does not answer")
        health = await hall.store.read(hosts.health, "h1")
        assert health is not None and health["resources"]["store_trouble"] == why.reason

    play(story, "h1")


def test_much_less_free_is_written_and_is_no_change_for_the_scheduler() -> None:
    async def story(hall: DetectorHarness) -> None:
        first = await report(hall, said(10))
        near = await report(hall, said(10, replace(HAS, memory_free_mb=11_500)))
        assert near["resources"]["memory_free_mb"] == 12000
        far = await report(hall, said(10, replace(HAS, memory_free_mb=2_000)))
        assert far["resources"]["memory_free_mb"] == 2000
        assert far["claims"] == first["claims"]

    play(story, "h1")


def test_an_older_report_is_late_for_every_control() -> None:
    async def story(hall: DetectorHarness) -> None:
        await report(hall, said(10, replace(HAS, vcpus=4, cells=())))
        late = await report(hall, said(9))
        assert (late["generation"], late["resources"]["vcpus"], hall.verdicts.reports.late) == (10, 4, 1)
        other = await DetectorHarness(hall.clock, hall.store, "two").open()
        before = await hall.store.read(hosts.get, "h1")
        assert await report(other, said(9)) == before
        # It has just begun: this is no news.
        assert await report(other, said(10, replace(HAS, vcpus=4, cells=()))) == before
        assert (await report(other, said(11)))["resources"]["vcpus"] == 8
        assert (await report(hall, said(11)))["claims"] == before["claims"] + 1  # the other was faster

    play(story, "h1")


@pytest.mark.parametrize("generation", [9, 0])  # its files were lost and its clock went back; an agent of long ago
def test_a_host_that_is_always_late_is_marked_until_it_is_not(generation: int) -> None:
    async def story(hall: DetectorHarness) -> None:
        await report(hall, said(10))
        for control in (
            hall,
            await DetectorHarness(hall.clock, hall.store, "two").open(),
        ):  # the other knows only the row
            for number in range(4):
                row = await report(control, said(generation, replace(HAS, vcpus=16)))
                assert (row["generation"], row["resources"]["vcpus"]) == (10, 8)
                assert ("numbered lower" in row["refused"]) == (number >= 2)
            row = await report(control, said(10))
            assert row["refused"] == "" and row["resources"]["vcpus"] == 8
        assert (await reasons(hall))[-1] == ACCEPTED

    play(story, "h1")


def test_what_cannot_be_true_is_refused_said_and_forgiven_by_the_next_good_one() -> None:
    async def story(hall: DetectorHarness) -> None:
        good = await report(hall, said(10))
        for number in range(3):  # said once, however often it comes
            bad = await report(hall, said(11 + number, replace(HAS, vcpus=0)))
        assert bad["refused"] == "it says 0 vcpus; 1 to 65536 can be"
        assert (bad["generation"], bad["resources"], bad["claims"]) == (10, good["resources"], good["claims"] + 1)
        (facts,) = await hall.store.read(hosts.facts_of_all)
        assert facts.refused == bad["refused"]
        told = await hall.why("h1", COMPUTE)
        assert any("0 vcpus" in one["reason"] and one["is_bad"] for one in told["evidence"])
        assert "look at what that host says of itself: droveway host show h1" in told["advice"]
        forgiven = await report(hall, said(14))
        assert (forgiven["refused"], forgiven["claims"]) == ("", bad["claims"] + 1)
        assert await reasons(hall) == [
            "its report was refused: it says 0 vcpus; 1 to 65536 can be",
            "its reports are accepted again",
        ]

    play(story, "h1")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"generation": 2**63}, "generation"),  # no column holds it
        ({"generation": 2**63 - 1}, "generation"),  # nothing could come after it
        ({"reason": "a\0b", "resources": None, "hypervisor_up": False}, "nul"),
        ({"guests": (Guest("a\0b", GuestState.RUNNING),)}, "names a guest"),
        ({"admitted": ("a\0b",)}, "names a guest"),
    ],
)
def test_what_no_database_takes_stops_no_other_report(values: dict[str, Any], words: str) -> None:
    async def story(hall: DetectorHarness) -> None:
        await report(hall, said(10))
        row = await report(hall, said(11, **values) if "generation" not in values else said(**values))
        assert words in row["refused"] and row["generation"] == 10
        good = await report(hall, said(12))
        assert (good["generation"], good["refused"]) == (12, "")

    play(story, "h1")


def test_a_host_that_sends_no_message_is_marked_until_the_next_report() -> None:
    async def story(hall: DetectorHarness) -> None:
        first = await report(hall, said(10))
        for host in ("h1", "h1", "nobody"):
            hall.observer.on_notice(MalformedMessage(host, "it is no message (Expected `int`)"))
        await hall.verdicts._once(hall.detector)
        row = await hall.store.read(hosts.get, "h1")
        assert (row["refused"], row["protocol"]) == ("it is no message (Expected `int`)", PROTOCOL_VERSION)
        assert row["claims"] == first["claims"] + 1 and not hall.observer.inbox.refused()
        assert await reasons(hall) == ["its report was refused: it is no message (Expected `int`)"]
        assert (await report(hall, said(10)))["refused"] == ""

    play(story, "h1")


EVIL = "qemu+ext://10.0.0.1/system?command=/tmp/x"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"peer_uri": EVIL}, "without user, query or other path"),
        ({"peer_uri": "qemu+tls://10.0.0.2/system"}, "names the address of host h2"),
        ({"peer_uri": "qemu+tls://h2/system"}, "names the address of host h2"),
        ({"host_ip": "10.0.0.1/x"}, "is no host name and no IP address"),
        ({"cpu_xml": "<!DOCTYPE x><cpu/>"}, "holds a declaration"),
        ({"cpu_xml": "<cpu><numa/></cpu>"}, "holds <numa>"),
    ],
)
def test_what_other_hosts_would_be_handed_is_data_or_refused(values: dict[str, Any], words: str) -> None:
    async def story(hall: DetectorHarness) -> None:
        there = replace(HAS, peer_uri="qemu+tls://10.0.0.2/system", hypervisor_hostname="h2")
        hall.observer.on_notice(replace(said(1, there), host="h2"))
        good = await report(hall, said(1, replace(HAS, peer_uri="qemu+tls://10.0.0.1/system")))
        assert not good["refused"]
        for generation in (2, 3, 4):
            row = await report(hall, said(generation, replace(HAS, **values)))
            assert words in row["refused"] and row["resources"]["peer_uri"] == "qemu+tls://10.0.0.1/system"
        assert len([one for one in await reasons(hall) if words in one]) == 1  # said once
        assert hall.observer.inbox.peer_uri("h1") == "qemu+tls://10.0.0.1/system"
        assert not (await hall.store.read(hosts.get, "h2"))["refused"]
        assert not (await report(hall, said(5)))["refused"]

    play(story, "h1", "h2")


def test_what_a_stranger_says_is_not_kept_and_what_waits_is_bounded() -> None:
    async def story(hall: DetectorHarness) -> None:
        observer = hall.observer
        observer.on_notice(replace(said(10), host="nobody", tasks=(TaskMetrics("nobody", "look"),)))
        await hall.verdicts._once(hall.detector)
        inbox = observer.inbox
        assert not inbox.tasks() and not inbox.hosts_with_reports() and inbox.last_report("nobody") is None
        for number in range(CHANGED_MAX + 5):
            observer.on_notice(GuestChanged("h1", "boot", Guest(f"i{number}", GuestState.RUNNING)))
        observer.on_notice(GuestChanged("h1", "boot", Guest("i\0", GuestState.RUNNING)))
        assert len(inbox.take_changed()) == CHANGED_MAX and observer.numbers.refused == 6

    play(story, "h1")


def test_guests_of_a_refused_report_are_not_looked_at() -> None:
    async def story(hall: DetectorHarness) -> None:
        guests = (Guest("i", GuestState.RUNNING),)
        await report(hall, said(10, replace(HAS, memory_mb=-5), guests=guests))
        assert not hall.observer.inbox.has_complete
        await report(hall, said(10, guests=guests))
        assert hall.observer.inbox.complete()["h1"].guests == guests

    play(story, "h1")


def test_the_report_of_a_host_that_has_shrunk_is_accepted_and_logged() -> None:
    async def story(hall: DetectorHarness) -> None:
        await report(hall, said(10))
        row = await report(hall, said(11, replace(HAS, memory_mb=4096, memory_free_mb=1, cells=())))
        assert (row["resources"]["memory_mb"], row["refused"]) == (4096, "")
        assert await reasons(hall) == ["it has shrunk from 16384 to 4096 MiB of memory"]

    play(story, "h1")


def test_an_agent_of_another_version_is_not_let_in_and_its_host_says_why() -> None:
    async def story(hall: DetectorHarness) -> None:
        def knock(protocol: int) -> Welcome:
            welcome = hall.observer.on_notice(Hello("h1", "boot", "here", protocol=protocol))
            assert isinstance(welcome, Welcome)
            return welcome

        await report(hall, said(10))
        assert not knock(0).accepted  # somebody else's: the agent that is connected is none the worse for it
        await hall.verdicts._once(hall.detector)
        assert (await hall.store.read(hosts.get, "h1"))["refused"] == ""
        hall.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended"))
        older, newer = knock(0), knock(NEWER)
        assert (older.accepted, older.retry_after_s) == (False, UPGRADE_RETRY_S)
        ours = f"control {PROTOCOL_VERSION}"
        assert older.reason == f"its agent speaks protocol 0, {ours}: upgrade droveway on that host"
        assert newer.reason == f"its agent speaks protocol {NEWER}, {ours}: upgrade control"
        await hall.verdicts._once(hall.detector)
        row = await hall.store.read(hosts.get, "h1")
        assert (row["refused"], row["protocol"]) == (newer.reason, NEWER)
        hall.hello("h1")
        row = await report(hall, said(11))
        assert (row["refused"], row["protocol"]) == ("", PROTOCOL_VERSION)

    play(story, "h1")


def test_a_stranger_of_another_version_leaves_nothing_behind() -> None:
    async def story(hall: DetectorHarness) -> None:
        assert hall.observer.on_notice(Hello("h9", "boot", "here", protocol=0)) is not None
        await hall.verdicts._once(hall.detector)
        assert await hall.store.read(lambda tx: [row["name"] for row in hosts.each(tx)]) == ["h1"]
        assert not hall.observer.inbox.refused() and not hall.observer.is_known("h9")

    play(story, "h1")


def test_a_fleet_of_another_version_is_marked_in_turns_and_not_one_by_one() -> None:
    async def story(hall: DetectorHarness) -> None:
        names = [f"n{number}" for number in range(1200)]
        for name in names:
            hall.observer.on_notice(Hello(name, "boot", "here"))
        await hall.verdicts._once(hall.detector)
        for name in names:
            hall.observer.on_notice(AgentDisconnected(name, "its agent's connection ended"))
            hall.observer.on_notice(Hello(name, "boot", "here", protocol=0))
        run, writes = hall.store.run, []

        async def counted(fn: Any, *args: Any, **kwargs: Any) -> Any:
            writes.append(fn)
            return await run(fn, *args, **kwargs)

        hall.store.run = counted  # type: ignore[method-assign]
        turns = 0
        inbox = hall.observer.inbox
        while inbox.refused():
            await hall.verdicts._once(hall.detector)
            turns += 1
            assert inbox.to_write.is_set() or not inbox.refused()
        refused = await hall.store.read(lambda tx: sum(bool(one.refused) for one in hosts.facts_of_all(tx)))
        assert (turns, refused) == (3, 1200) and len(writes) <= 10

    play(story, "h1")


def test_a_storm_of_reports_is_taken_in_turns() -> None:
    async def story(hall: DetectorHarness) -> None:
        names = [f"n{number}" for number in range(4500)]
        for name in names:
            hall.observer.on_notice(Hello(name, "boot", "here"))
            hall.observer.on_notice(replace(said(10), host=name))
        taken, inbox = [], hall.observer.inbox
        while inbox.hosts_with_reports():
            await hall.verdicts._once(hall.detector)
            taken.append(len(inbox.last_reports()))
            assert inbox.to_write.is_set() or not inbox.hosts_with_reports()
        assert taken == [2000, 4000, 4500]

    play(story, "h1")


def test_at_rest_ten_thousand_reports_write_nothing() -> None:
    async def story(hall: DetectorHarness) -> None:
        names = [f"n{number}" for number in range(1000)]
        for name in names:
            hall.observer.on_notice(Hello(name, "boot", "here"))
            hall.observer.on_notice(replace(said(10), host=name))
        await hall.verdicts._once(hall.detector)
        assert len(hall.observer.inbox.last_reports()) == 1000
        writes = 0
        run = hall.store.run

        async def counted(*args: Any) -> Any:
            nonlocal writes
            writes += 1
            return await run(*args)

        hall.store.run = counted  # type: ignore[method-assign, assignment]
        for _ in range(10):
            for name in names:
                hall.observer.on_notice(replace(said(10), host=name))
            await hall.verdicts._once(hall.detector)
        assert writes == 0

    play(story, "h1")
