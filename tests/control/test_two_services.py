"""Several services on one host: what befalls one of them is told of that one alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from droveway.domain import service_kinds
from droveway.domain.faults import Conflict
from droveway.domain.liveness import DIED, LEFT, Opinion, State
from droveway.domain.service_kinds import COMPUTE, SCRIPTS, Kind, ListedBy
from droveway.ports.bus import UPGRADE_RETRY_S, AgentDisconnected, Beat, Hello, ServiceReport, Welcome
from droveway.store.fleet import declared, hosts, services
from tests.control.hall import DetectorHarness, HandClock, new_store

OTHER = {COMPUTE: SCRIPTS, SCRIPTS: COMPUTE}


class Pair(DetectorHarness):
    """Its hosts carry two services, or those that `carried` names."""

    carried: tuple[str, ...] = (COMPUTE, SCRIPTS)

    def begin(self, *names: str) -> None:
        self.endings: dict[str, int] = {}
        self.stuck: set[str] = set()
        self.turns = 0
        for host in names:
            for service in self.carried:
                self.say_hello(host, service)
            self.beating[host] = "boot"
            self.bus.answering.add(host)
            self.bus.reachable.add(host)

    def say_hello(self, host: str, service: str) -> Welcome:
        welcome = self.observer.on_notice(Hello(host, "boot", "here", service=service))
        self.observer.inbox.put_peer_uris({host: f"sim://{host}"})
        assert welcome is not None
        return welcome

    def beat(self, host: str, *, lateness_ms: int = 3, note: str = "", wall_us: int = 0) -> None:
        self.turns += 1
        late = tuple(self.endings.get(service, lateness_ms) for service in self.carried)
        moved = tuple(1 if service in self.stuck else self.turns for service in self.carried)
        self.observer.on_notice(Beat(host, "boot", self.turns, 1, self.carried, moved, late))

    async def states(self, host: str = "h1") -> dict[str, str]:
        rows = await self.store.read(services.on_hosts)
        found = {service_kinds.address_of(row["host"], row["binary"]): row["state"] for row in rows}
        return {service: state for (name, service), state in found.items() if name == host}


@contextlib.asynccontextmanager
async def play(*names: str, carried: tuple[str, ...] = (COMPUTE, SCRIPTS)) -> AsyncIterator[Pair]:
    clock = HandClock()
    store = new_store(clock)
    pair = Pair(clock, store)
    pair.carried = carried
    await pair.open()
    pair.begin(*names)
    await pair.step(2)
    assert await pair.states() == dict.fromkeys(carried, "alive")
    yield pair
    await store.close()


@pytest.mark.parametrize("service", [COMPUTE, SCRIPTS])
async def test_the_end_of_one_connection_is_the_end_of_one_service(service: str) -> None:
    async with play("h1", "h2") as pair:
        other = OTHER[service]
        pair.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended", service=service))
        await pair.step(1)
        assert await pair.states() == {service: "dead", other: "alive"}
        (told, well) = [await pair.why("h1", one) for one in (service, other)]
        assert {"about": "process", "reason": "its agent's connection ended", "is_bad": True} in told["evidence"]
        assert not [one for one in well["evidence"] if one["is_bad"]]
        pair.say_hello("h1", service)
        await pair.step(1)
        assert await pair.states() == {service: "alive", other: "alive"}
        pair.observer.on_notice(AgentDisconnected("h1", "it ended in good order", in_order=True, service=service))
        await pair.step(1)
        assert await pair.states() == {service: "stopped", other: "alive"}


@pytest.mark.parametrize("service", [COMPUTE, SCRIPTS])
async def test_the_end_of_one_process_is_about_one_service(service: str) -> None:
    async with play("h1", "h2") as pair:
        for ending, state in ((DIED, "dead"), (3, "alive"), (LEFT, "stopped")):
            pair.endings[service] = ending
            await pair.step(1.25)
            assert await pair.states() == {service: state, OTHER[service]: "alive"}
        pair.endings.clear()
        pair.stuck.add(service)
        await pair.step(12)
        assert await pair.states() == {service: "hung", OTHER[service]: "alive"}


@pytest.mark.parametrize("service", [COMPUTE, SCRIPTS])
async def test_where_the_heart_is_silent_each_is_asked_and_the_one_that_answers_is_there(service: str) -> None:
    async with play("h1", "h2", "h3") as pair:
        pair.bus.quiet.add(("h1", service))
        pair.bus.reachable.discard("h1")  # its hypervisor's port is cut off
        pair.silence("h1")
        await pair.step(8)
        assert await pair.states() == {service: "not reporting", OTHER[service]: "alive"}
        assert pair.observation("h1").services[OTHER[service]].state is State.SUSPECT
        pair.bus.quiet.add(("h1", OTHER[service]))
        await pair.step(8)
        assert await pair.states() == {service: "host gone", OTHER[service]: "host gone"}


@pytest.mark.parametrize("service", [COMPUTE, SCRIPTS])
async def test_one_that_was_deleted_stays_away_while_its_heart_says_how_it_ended(service: str) -> None:
    async with play("h1", "h2") as pair:
        pair.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended", service=service))
        pair.endings[service] = DIED
        await pair.step(1)
        await _delete(pair, service)
        await pair.step(3)
        assert await pair.states() == {OTHER[service]: "alive"}
        pair.endings.clear()
        pair.say_hello("h1", service)
        await pair.step(2)
        assert await pair.states() == {service: "alive", OTHER[service]: "alive"}
        assert pair.observation("h1").is_connected(service)


@pytest.mark.parametrize("service", [COMPUTE, SCRIPTS])
async def test_one_that_was_deleted_while_it_hung_is_back_when_it_moves(service: str) -> None:
    async with play("h1", "h2") as pair:
        pair.stuck.add(service)
        await pair.step(12)
        assert (await pair.states())[service] == "hung"
        await _delete(pair, service)
        pair.stuck.clear()
        await pair.step(3)
        assert await pair.states() == {service: "alive", OTHER[service]: "alive"}
        assert pair.observation("h1").is_connected(service)  # its connection has lasted


async def _delete(pair: Pair, service: str) -> None:
    (row,) = await pair.store.read(services.list_all, "h1", service)
    await pair.store.run(services.remove, row["uuid"])
    await pair.verdicts.learn(pair.detector)


async def test_a_backend_is_a_service_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(service_kinds.KINDS, "cinder-volume", Kind("volume", ListedBy.VOLUME, has_backends=True))
    fast, slow = "cinder-volume@fast", "cinder-volume@slow"
    async with play("h1", "h2", carried=(COMPUTE, fast, slow)) as pair:
        pair.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended", service=fast))
        await pair.step(1)
        assert await pair.states() == {COMPUTE: "alive", fast: "dead", slow: "alive"}
        there = await pair.store.read(services.of_host, "h1")
        assert sorted(there) == [("h1", COMPUTE), ("h1@fast", "cinder-volume"), ("h1@slow", "cinder-volume")]
        assert await pair.store.read(services.of_host, "h1@fast") == [("h1@fast", "cinder-volume")]
        assert (await pair.store.read(services.list_all, "h1@fast"))[0]["topic"] == "volume"
        told = [(await pair.why(*one))["verdict"] for one in sorted(there)]
        assert [(one["host"], one["binary"], one["word"]) for one in told] == [
            ("h1", COMPUTE, "up"),
            ("h1@fast", "cinder-volume", "down"),
            ("h1@slow", "cinder-volume", "up"),
        ]


async def test_a_service_of_unknown_kind_is_refused_and_a_control_is_none_of_a_host() -> None:
    async with play("h1") as pair:
        for name in ("nova-computer", "nova-scheduler", "nova-compute@fast"):
            refused = pair.say_hello("h1", name)
            assert (refused.accepted, refused.retry_after_s) == (False, UPGRADE_RETRY_S)
            assert repr(name) in refused.reason and "upgrade control" in refused.reason
        await pair.step(1)
        assert await pair.states() == {COMPUTE: "alive", SCRIPTS: "alive"}


async def test_a_host_whose_other_service_is_up_is_not_declared_gone() -> None:
    async with play("h1", "h2", "h3") as pair:
        pair.observer.on_notice(AgentDisconnected("h1", "its agent's connection ended"))
        await pair.step(1)
        with pytest.raises(Conflict, match="its droveway-scripts is up"):
            await pair.store.run(declared.declare_gone, "h1", "it burns")
        pair.silence("h1", gone=True)
        await pair.step(8)
        await pair.store.run(declared.declare_gone, "h1", "it burns")
        told = [await pair.why("h1", service) for service in (COMPUTE, SCRIPTS)]
        assert all("declared gone: it burns" in str(one["evidence"]) for one in told)  # it is the host's


async def test_a_host_without_a_hypervisor_is_none_of_the_hosts_that_guests_are_placed_on() -> None:
    async with play("h1", carried=(SCRIPTS,)) as pair:
        assert await pair.store.read(hosts.facts_of_all) == []
        assert pair.observer.expected() == set()  # nobody waits for its guests
        pair.observer.on_notice(ServiceReport("h1", SCRIPTS, "boot", False, "1 of 1 script failed"))
        told = await pair.why("h1", SCRIPTS)
        assert {"about": "report", "reason": "0.0 s ago: 1 of 1 script failed", "is_bad": True} in told["evidence"]


async def test_another_machine_of_that_name_takes_no_service_of_it() -> None:
    """Its boot would be believed, and every beat of the first machine refused as one of an older boot."""
    async with play("h1") as pair:
        await pair.step(3)
        pair.observer.on_notice(AgentDisconnected("h1", "its process has ended", service=SCRIPTS))
        told = pair.observer.on_notice(Hello("h1", "another boot", "there", service=SCRIPTS))
        assert told is not None and not told.accepted
        assert "its nova-compute is there, at here, and its heartbeats arrive" in told.reason
        await pair.step(5)
        assert (await pair.states())[COMPUTE] == "alive"
        pair.beating.clear()  # and it is let in once the first one is silent, as after a start of the machine
        await pair.step(2)
        told = pair.observer.on_notice(Hello("h1", "another boot", "there", service=SCRIPTS))
        assert told is not None and told.accepted


async def test_a_membership_driver_has_a_verdict_on_each() -> None:
    async with play("h1") as pair:
        up, down = Opinion(True, "it is a member"), Opinion(False, "its session has ended")
        pair.observer.take_presences({("h1", COMPUTE): up, ("h1", SCRIPTS): down})
        await pair.step(1)
        assert await pair.states() == {COMPUTE: "alive", SCRIPTS: "not reporting"}


async def test_updated_at_of_one_that_has_ended_stands_still() -> None:
    async with play("h1") as pair:
        pair.endings[SCRIPTS] = DIED
        await pair.step(1)
        (before,) = await pair.store.read(services.list_all, "h1", SCRIPTS)
        await pair.step(70)
        rows = {row["binary"]: row for row in await pair.store.read(services.list_all, "h1")}
        assert rows[SCRIPTS]["updated_at_us"] == before["updated_at_us"] < rows[COMPUTE]["updated_at_us"]


async def test_updated_at_of_a_whole_host_is_one_statement_and_touches_nothing_of_a_control() -> None:
    async with play("h1") as pair:
        await pair.store.run(services.register, "h1", "nova-conductor", "nova")  # a control may have its host's name
        written: list[tuple[Any, ...]] = []
        run = pair.store.run

        async def noted(fn: Callable[..., Any], *args: Any) -> Any:
            if fn is services.snapshot:
                written.append(args)
            return await run(fn, *args)

        pair.store.run = noted  # type: ignore[method-assign, assignment]
        await pair.step(70)
        assert [(rows, [host for host, _, _ in whole]) for rows, whole in written] == [([], ["h1"])]
        rows = {row["binary"]: row for row in await pair.store.read(services.list_all, "h1")}
        assert rows[SCRIPTS]["updated_at_us"] == rows[COMPUTE]["updated_at_us"] is not None
        assert rows[SCRIPTS]["report_count"] == rows[COMPUTE]["report_count"] > 0
        assert rows["nova-conductor"]["updated_at_us"] is None
