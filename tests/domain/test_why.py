"""Why a service is up or down: each cause has its evidence and its advice, and the two words agree with the lists."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from droveway.domain.liveness import UP, HostObservation, Service, State, Timing
from droveway.domain.why import CloudFacts, Explanation, ServiceFacts, explain

NOW = CloudFacts(
    now_us=2_000_000_000,
    now_s=100.0,
    timing=Timing(),
    driver="nats",
    detector="c1",
    detector_age_s=1.0,
    detector_ttl_s=15.0,
    listened_s=90.0,
)
ROW = ServiceFacts(
    "h1",
    "nova-compute",
    State.ALIVE,
    "heartbeats arrive",
    1_000,
    1_999_000_000,
    False,
    None,
    False,
    True,
    "",
    1_998_000_000,
)


def seen(state: State = State.ALIVE, **values: Any) -> HostObservation:
    one = HostObservation(
        "h1",
        10.0,
        beat_s=99.5,
        beats=90,
        names=("nova-compute",),
        progress=(4,),
        lateness_ms=3,
        heard_us=1_999_500_000,
        wall_us=1_999_500_100,
    )
    of_service = {name: values.pop(name) for name in list(values) if name in Service.__struct_fields__}
    one = replace(one, **values)
    one.services = {"nova-compute": replace(Service(state, "because", 1_500, connected=True), **of_service)}
    return one


def bad(told: Explanation) -> dict[str, str]:
    return {one.about: one.reason for one in told.evidence if one.is_bad}


def test_of_a_service_that_is_well_nothing_speaks_against_it() -> None:
    told = explain(ROW, seen(), NOW)
    assert (told.verdict["word"], bad(told), told.advice) == ("up", {}, [])
    reasons = {one.about: one.reason for one in told.evidence}
    assert reasons["beat"] == "last heartbeat 0.5 s ago over the nats bus, 90 so far, one each 1 s"
    assert reasons["loop"] == "its loop turns, late by 3 ms at worst"
    assert "agrees" in reasons["clock"]


def test_an_old_report_and_a_store_that_hangs_are_causes() -> None:
    old = replace(ROW, reported_at_us=1_800_000_000, store_trouble="the instance store at /i does not answer")
    told = explain(old, seen(), replace(NOW, listened_s=500.0))
    assert bad(told) == {
        "report": "its agent last reported 200.0 s ago, and should each minute",
        "store": "the instance store at /i does not answer; no new guest is placed there",
    }
    assert told.advice == ["look at that host's instance store and its server: df, mount, dmesg"]
    assert "report" not in bad(explain(old, seen(), replace(NOW, listened_s=20.0)))


@pytest.mark.parametrize("state", [state for state in State if state is not State.ALIVE])
def test_every_other_state_has_advice_and_openstacks_word(state: State) -> None:
    told = explain(ROW, seen(state), NOW)
    assert told.verdict["word"] == ("up" if state in UP else "down")
    assert told.advice and all("{" not in line for line in told.advice)


@pytest.mark.parametrize(
    ("values", "about", "words"),
    [
        ({"beat_s": 92.0}, "beat", "8.0 s ago over the nats bus, 90 so far, one each 1 s: 8 missed"),
        ({"beat_s": None}, "beat", "no heartbeat since this control began to listen, 90 s ago"),
        ({"heart_lost": "the heart's connection ended"}, "beat", "the heart's connection ended"),
        (
            {"disconnect_reason": "its agent's connection ended", "connected": False},
            "process",
            "its agent's connection ended",
        ),
        ({"ended": {"nova-compute": False}}, "process", "the kernel of its host says"),
        ({"stalled_since_s": {"nova-compute": 70.0}, "progress_s": 99.0}, "loop", "its loop has not turned for 29.0 s"),
        ({"stalled_since_s": {"nova-compute": 70.0}, "names": ()}, "loop", "no process of it has joined"),
        ({"no_answer": "it did not answer within 1 s"}, "network", "its agent does not answer when asked"),
        ({"is_reachable": False, "reach_reason": "h2 does not reach it"}, "network", "h2 does not reach it"),
    ],
)
def test_each_cause_is_told(values: dict[str, Any], about: str, words: str) -> None:
    assert words in bad(explain(ROW, seen(State.NOT_REPORTING, **values), NOW))[about]


def test_what_an_operator_said_is_told_and_lies_over_the_judge() -> None:
    forced = explain(replace(ROW, forced_down=True), seen(), NOW)
    assert (forced.verdict["word"], forced.verdict["state"]) == ("down", "forced down")
    assert "service set --up h1 nova-compute" in forced.advice[0]
    disabled = explain(replace(ROW, disabled=True, disabled_reason="a new disk"), seen(), NOW)
    assert disabled.verdict["word"] == "up"
    assert any(one.reason.endswith("nothing new is placed there: a new disk") for one in disabled.evidence)


def test_a_hypervisor_that_does_not_answer_is_no_dead_service() -> None:
    told = explain(replace(ROW, hypervisor_up=False, hypervisor_reason="libvirtd is away"), seen(), NOW)
    assert told.verdict["word"] == "up"
    assert "libvirtd is away" in bad(told)["hypervisor"]
    assert any("start libvirtd" in line for line in told.advice)


@pytest.mark.parametrize(("offset_us", "way"), [(86_400_000_000, "ahead of"), (-86_400_000_000, "behind")])
def test_a_clock_that_is_off_is_told_and_never_bad(offset_us: int, way: str) -> None:
    told = explain(ROW, seen(wall_us=1_999_500_000 + offset_us), NOW)
    (clock,) = [one for one in told.evidence if one.about == "clock"]
    assert f"86400.0 s {way} control's" in clock.reason and not clock.is_bad
    assert any("NTP" in line for line in told.advice)


@pytest.mark.parametrize(
    ("now", "about"),
    [
        (replace(NOW, detector_age_s=60.0), "detector"),
        (replace(NOW, no_input_s=5.0, no_input_reason="the broker is away"), "broker"),
        (replace(NOW, stalled_s=12.0, stalled_reason="locked"), "database"),
        (replace(NOW, hold="8 of 10 hosts fell silent"), "detector"),
    ],
)
def test_what_holds_for_everybody_is_told_of_each(now: CloudFacts, about: str) -> None:
    assert about in bad(explain(ROW, seen(), now))
    assert about in bad(explain(ROW, None, now))


def test_where_nothing_was_heard_here_the_row_speaks() -> None:
    told = explain(replace(ROW, state=State.DEAD, reason="it was killed"), None, NOW)
    assert told.verdict | {"word": "down", "reason": "it was killed", "since_us": 1_000} == told.verdict


def test_under_an_old_name_nobody_is_told_to_start_its_agent() -> None:
    told = explain(replace(ROW, state=State.HOST_GONE, renamed_to="h9"), seen(State.HOST_GONE), NOW)
    assert bad(told)["machine"] == "the machine that reported under this name now reports as h9"
    assert told.advice == [
        "see what is left under this name: droveway host show h1; if its machine is to keep the new "
        "one and nothing is, delete this compute service"
    ]


def test_two_hypervisors_of_one_name_are_told_and_speak_against_nobody() -> None:
    told = explain(replace(ROW, warning="its hypervisor calls itself x, and so does that of h2"), seen(), NOW)
    assert (told.verdict["word"], bad(told), told.advice) == ("up", {}, [])
    assert any("calls itself x" in one.reason for one in told.evidence if one.about == "hypervisor")
