"""Topics: who listens, and for how long. And that the hello of a host wakes what waits for it."""

from __future__ import annotations

from droveway.control.engine.nudges import Nudges, wait
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.drivers.clock import SystemClock
from droveway.ports.bus import Hello


def test_one_event_for_a_while_set_by_another_topic_too() -> None:
    nudges = Nudges()
    with nudges.listen("one") as event:
        with nudges.listen("other", event=event) as same:
            assert same is event
            nudges.call("other")
            assert event.is_set()
            event.clear()
        nudges.call("other")
        assert not event.is_set()
        nudges.call("one")
        assert event.is_set()


async def test_the_hello_of_a_host_wakes_what_waits_for_it() -> None:
    nudges = Nudges()
    observer = Observer(SystemClock(), nudges, LivenessSettings())
    with nudges.listen("host:h1") as woken:
        observer.on_notice(Hello("h2", "boot", "here"))
        assert not await wait(woken, 0.0)
        observer.on_notice(Hello("h1", "boot", "here"))
        assert await wait(woken, 0.0)
