"""Control tells every host its networks: at once when they change, again when it did not answer, and no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
import pytest

from droveway.agents.kept_plan import MemoryKeptPlan
from droveway.agents.network import HostFacts, NetworkAgent
from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.loops import networks as loop
from droveway.control.loops.networks import NetworksLoop
from droveway.control.loops.plans import WholePlans
from droveway.domain.faults import Unreachable
from droveway.domain.guest_data import GuestData, GuestFacts
from droveway.domain.model import of_host
from droveway.domain.network_plan import HostNetworks, NotInForce, PlannedPort
from droveway.domain.service_kinds import NETWORK
from droveway.drivers.clock import SystemClock
from droveway.drivers.network.simulated import SimulatedNetwork, SimulatedPlace
from droveway.ports.bus import ApplyNetworks, ChangeNetworks, Command, Hello, SendGuestData
from droveway.ports.replies import Answer, Working
from droveway.store.engine.transaction import Tx
from droveway.store.network import changes, in_force
from tests.control.hosts import memory_store
from tests.control.world import NoBus
from tests.drivers import network_worlds as w


class Cloud:
    """Hosts with agents, and a bus straight to them. `ports`: of each host, by numbers; what the plan is made of."""

    is_direct, trouble = True, ""

    def __init__(self, *hosts: str) -> None:
        self.store, self.nudges, clock = memory_store(), Nudges(), SystemClock()
        self.store.on_commit(self.nudges.call)
        self.observer = Observer(clock, self.nudges, LivenessSettings())
        self.places = {host: SimulatedPlace(host) for host in hosts}
        self.kept = {host: MemoryKeptPlan() for host in hosts}
        self.agents: dict[str, NetworkAgent] = {}
        self.ports: dict[str, list[int]] = {host: [] for host in hosts}
        self.digests: dict[int, str] = {}  # by port: of what its guest is told
        self.unreachable: set[str] = set()
        self.commands: list[tuple[str, Command]] = []
        self.works = 0  # answers that say that it takes longer
        self.loop = NetworksLoop(
            self.store, self, self.observer, self.nudges, clock, WholePlans(self.store, self.plan_of)
        )  # type: ignore[arg-type]

    def plan_of(self, tx: Tx, host: str, tunnels: Mapping[str, str]) -> HostNetworks:
        others = tuple(sorted(address for name, address in tunnels.items() if name != host))
        ports = tuple(self.port(number) for number in self.ports[host])
        return HostNetworks(changes.revision(tx), tunnels.get(host, ""), others, (w.planned_network(),), ports)

    def port(self, number: int) -> PlannedPort:
        digest = self.digests.get(number, "")
        return w.port(number, instance_id=f"vm-{number}" if digest else "", data_digest=digest)

    def told(self, host: str) -> int:
        return sum(isinstance(one.verb, SendGuestData) for name, one in self.commands if name == host)

    async def start(self, host: str, pid: int = 1) -> None:
        facts = HostFacts(f"192.0.2.{host[1:]}", ("physnet1",))
        network = SimulatedNetwork(self.places[host])
        self.agents[host] = agent = NetworkAgent(
            host, "boot", f"pid {pid}", network, NoBus(), self.kept[host], SystemClock(), facts, _at_once
        )
        agent._plan = self.kept[host].read()
        await agent._make()
        self.observer.on_notice(Hello(host, "boot", f"pid {pid}", service=NETWORK))

    async def command(self, host: str, command: Command, timeout_s: float, service: str) -> Answer:
        assert service == NETWORK
        self.commands.append((host, command))
        if host in self.unreachable:
            raise Unreachable(f"the network agent of {host} does not answer")
        if self.works and isinstance(command.verb, ApplyNetworks | ChangeNetworks):
            self.works -= 1
            return Working("they are being made")
        return await self.agents[host].handle(command)

    def applied(self, host: str) -> int:
        return sum(isinstance(one.verb, ApplyNetworks | ChangeNetworks) for name, one in self.commands if name == host)

    async def change(self, host: str, *numbers: int) -> int:
        self.ports[host] = list(numbers)
        await self.store.run(changes.changed)
        return await self.store.read(changes.revision)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():
                await asyncio.sleep(0.005)

    async def until_in_force(self, host: str, revision: int) -> None:
        async with asyncio.timeout(5):
            while (row := await self.store.read(in_force.of, host)) is None or row["revision"] < revision:
                await asyncio.sleep(0.005)

    def has(self, host: str) -> list[int]:
        return [int(port.id[:8], 16) for port in self.places[host].plan.ports]


def told(instance_id: str, digest: str) -> GuestData:
    return GuestData(digest, GuestFacts(instance_id, 1, "g", "g", "p", "nova", "tiny", "r"))


async def _at_once(call: Callable[[], None]) -> None:
    call()


@contextlib.asynccontextmanager
async def cloud(*hosts: str) -> AsyncIterator[Cloud]:
    made = Cloud(*hosts)
    task = asyncio.create_task(made.loop.run())
    try:
        yield made
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await made.store.close()


async def test_a_host_that_comes_is_asked_what_it_has_and_told_what_it_is_to_have() -> None:
    async with cloud("h1", "h2") as it:
        it.ports["h1"] = [11]
        await it.start("h1")
        await it.until(lambda: it.has("h1") == [11])
        await it.start("h2")  # whose tunnel address the other is told
        await it.until(lambda: it.places["h1"].plan.known_hosts == ("192.0.2.2",))
        await it.until(lambda: it.places["h2"].plan.known_hosts == ("192.0.2.1",))
        rows = await it.store.read(in_force.every)
        assert {host: (row["tunnel_address"], row["physical_networks"]) for host, row in rows.items()} == {
            "h1": ("192.0.2.1", ["physnet1"]),
            "h2": ("192.0.2.2", ["physnet1"]),
        }


async def test_a_change_is_in_force_at_once_and_told_only_to_whom_it_concerns() -> None:
    async with cloud("h1", "h2") as it:
        await it.start("h1")
        await it.start("h2")
        revision = await it.change("h1", 11)
        await it.until_in_force("h1", revision)
        await it.until_in_force("h2", revision)
        told = it.applied("h2")
        began = asyncio.get_running_loop().time()
        revision = await it.change("h1", 11, 12)
        await it.until_in_force("h1", revision)
        assert asyncio.get_running_loop().time() - began < 1.0
        assert it.has("h1") == [11, 12]
        await it.until_in_force("h2", revision)  # written down, and nobody was asked
        assert it.applied("h2") == told
        port, network = w.port(12).id, w.identity(1)
        assert await it.store.read(in_force.why_not, "h1", revision, port, network) == ""
        assert await it.store.read(in_force.why_not, "h1", revision + 1, port, network) is None
        assert await it.store.read(in_force.why_not, "h9", revision, port, network) is None


async def test_what_is_not_in_force_is_written_down_and_so_is_its_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FAILED_LOOK_S", 0.05)
    async with cloud("h1") as it:
        await it.start("h1")
        it.places["h1"].troubles["network", w.identity(1)] = "no such device"
        revision = await it.change("h1", 11)
        await it.until_in_force("h1", revision)
        ask = (in_force.why_not, "h1", revision, w.port(11).id, w.identity(1))
        assert await it.store.read(*ask) == f"network {w.identity(1)}: no such device"
        it.places["h1"].troubles.clear()
        await it.agents["h1"]._make()  # as its agent does by itself
        async with asyncio.timeout(5):
            while await it.store.read(*ask) != "":
                await asyncio.sleep(0.01)


async def test_one_that_does_not_answer_is_asked_again_and_keeps_no_other_waiting() -> None:
    async with cloud("h1", "h2") as it:
        await it.start("h1")
        await it.start("h2")
        await it.until_in_force("h1", 2)
        await it.until_in_force("h2", 2)
        it.unreachable.add("h1")
        await it.change("h1", 11)
        revision = await it.change("h2", 12)
        await it.until_in_force("h2", revision)
        await asyncio.sleep(0.5)
        asked = it.applied("h1")
        assert 2 <= asked <= 8  # more and more rarely
        assert it.has("h1") == []
        it.unreachable.clear()
        await it.until(lambda: it.has("h1") == [11])


async def test_one_that_needs_longer_is_waited_for() -> None:
    async with cloud("h1") as it:
        await it.start("h1")
        it.works = 2
        revision = await it.change("h1", 11)
        await it.until_in_force("h1", revision)
        assert it.has("h1") == [11] and it.works == 0


async def test_an_agent_that_lost_its_plan_gets_it_again() -> None:
    async with cloud("h1") as it:
        await it.start("h1")
        await it.until_in_force("h1", await it.change("h1", 11))
        it.kept["h1"], it.places["h1"] = MemoryKeptPlan(), SimulatedPlace("h1")
        await it.start("h1", pid=2)
        await it.until(lambda: it.has("h1") == [11])


async def test_a_change_is_told_as_a_change_and_whole_to_whom_has_another_plan() -> None:
    async with cloud("h1") as it:
        await it.start("h1")
        await it.until_in_force("h1", await it.change("h1", 11, 12))
        await it.until_in_force("h1", await it.change("h1", 11, 12, 13))
        (told,) = (one.verb for _, one in it.commands[-1:])
        assert isinstance(told, ChangeNetworks) and [port.id for port in told.change.new.ports] == [w.port(13).id]
        assert it.has("h1") == [11, 12, 13]
        kept = it.agents["h1"]._plan
        it.agents["h1"]._plan = msgspec.structs.replace(kept, revision=kept.revision - 1, ports=())  # type: ignore[union-attr]
        await it.until_in_force("h1", await it.change("h1", 11, 13))
        assert [type(one.verb) for _, one in it.commands[-2:]] == [ChangeNetworks, ApplyNetworks]
        assert it.has("h1") == [11, 13]


async def test_an_agent_of_an_older_release_is_told_whole_plans() -> None:
    async with cloud("h1") as it:
        await it.start("h1")
        applied = it.agents["h1"]._applied
        it.agents["h1"]._applied = lambda: msgspec.structs.replace(applied(), takes_changes=False)  # type: ignore[method-assign]
        for numbers in ((11,), (11, 12), (12,)):
            await it.until_in_force("h1", await it.change("h1", *numbers))
        assert not any(isinstance(one.verb, ChangeNetworks) for _, one in it.commands)


async def test_a_database_that_was_restored_goes_on_above_what_hosts_have_seen() -> None:
    async with cloud("h1") as it:
        it.kept["h1"].write(HostNetworks(500, "192.0.2.1"))
        it.ports["h1"] = [11]
        await it.start("h1")
        await it.until(lambda: it.has("h1") == [11])
        assert it.places["h1"].plan.revision > 500


async def test_a_revision_is_in_force_when_its_guests_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []
    has: dict[str, str] = {}

    def data_at(tx: Tx, host: str, ids: tuple[str, ...]) -> tuple[GuestData, ...]:
        """One at a time."""
        asked.append((host, ids))
        return tuple(told(one, has[one]) for one in ids if one in has)[:1]

    monkeypatch.setattr(loop.guest_data, "data_at", data_at)
    async with cloud("h1") as it:
        await it.start("h1")
        it.digests |= {11: "d1", 12: "d1"}
        revision = await it.change("h1", 11, 12)
        await it.until(lambda: it.has("h1") == [11, 12] and bool(asked))
        assert asked[0] == ("h1", ("vm-11", "vm-12"))
        # Of these there are no rows: they have left, and nothing is waited for.
        await it.until_in_force("h1", revision)
        has |= {"vm-11": "d1", "vm-12": "d0"}
        it.digests[11] = "d2"
        revision = await it.change("h1", 11, 12)
        await it.until(lambda: it.told("h1") >= 2)  # both are old: it is asked again, and what is in force stays
        row = await it.store.read(in_force.of, "h1")
        assert row is not None and row["revision"] < revision
        has |= {"vm-11": "d2", "vm-12": "d1"}
        await it.until_in_force("h1", revision)
        assert it.agents["h1"]._guests == {"vm-11": told("vm-11", "d2"), "vm-12": told("vm-12", "d1")}


async def test_a_host_is_told_one_plan_at_a_time_and_the_newest_in_the_end() -> None:
    async with cloud("h1") as it:
        await it.start("h1")
        it.places["h1"].hangs.clear()
        for number in range(1, 30):
            revision = await it.change("h1", *range(1, number + 1))
        await asyncio.sleep(0.05)
        assert it.applied("h1") <= 2
        it.places["h1"].hangs.set()
        await it.until_in_force("h1", revision)
        assert it.has("h1") == list(range(1, 30)) and it.applied("h1") <= 4


async def test_without_network_agents_the_store_is_not_asked() -> None:
    async with cloud() as it:
        reads = 0
        read = it.store.read

        async def counted(*given: object) -> object:
            nonlocal reads
            reads += 1
            return await read(*given)  # type: ignore[arg-type]

        it.store.read = counted  # type: ignore[method-assign, assignment]
        it.nudges.call(changes.CHANGED)
        await asyncio.sleep(0.05)
        assert reads == 0


async def test_rows_keep_a_bounded_answer() -> None:
    store = memory_store()
    failed = [NotInForce("port", f"p{number}", "x" * 5000) for number in range(1500)]
    await store.run(in_force.record, "h1", 3, failed, "", ())
    row = await store.read(in_force.of, "h1")
    assert row is not None and len(row["failed"]) == 1000 and len(row["failed"][0]["reason"]) == 500
    await store.run(in_force.raise_to, ["h1", "h2"], 2)  # never back
    row = await store.read(in_force.of, "h1")
    assert row is not None and row["revision"] == 3
    await store.run(in_force.forget, "h1")
    assert await store.read(in_force.every) == {}
    await store.close()


def test_a_plan_fits_into_a_message() -> None:
    ports = tuple(w.port(number) for number in range(1, 1001))
    plan = HostNetworks(1, "192.0.2.1", (), (w.planned_network(),), ports)
    assert len(msgspec.json.encode(plan)) < 1024 * 1024


async def test_what_was_taken_back_while_it_was_told_is_taken_back_on_the_host() -> None:
    """Its answer was lost: what it was told before and is to have again may be what it has, or not."""
    async with cloud("h1", "h2") as it:
        await it.start("h1")
        await it.until_in_force("h1", await it.change("h1", 11))
        it.works = 1
        await it.change("h1", 11, 12)
        await it.until(lambda: it.works == 0)
        await it.agents["h1"].handle(it.commands[-1][1])  # it takes it all the same
        assert it.has("h1") == [11, 12]
        await it.change("h1", 11)
        await it.until(lambda: it.has("h1") == [11])


async def test_a_host_that_was_passed_over_is_asked_later_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another control had told it, or a message was late."""
    monkeypatch.setattr(loop, "CONFIRM_S", 0.2)
    async with cloud("h1", "h2") as it:
        await it.start("h1")
        await it.start("h2")
        revision = await it.change("h1", 11)
        await it.until_in_force("h1", revision)
        await it.until_in_force("h2", revision)
        late = HostNetworks(await it.change("h1", 11, 12), "192.0.2.2", ("192.0.2.1",), (), (w.port(13),))
        await it.until_in_force("h2", late.revision)  # which it has not been told
        told = it.applied("h2")
        await it.change("h1", 11)
        await it.agents["h2"].handle(Command(of_host("h2"), late.revision, ApplyNetworks(late)))
        assert it.has("h2") == [13]
        await it.until(lambda: it.has("h2") == [])
        await it.until_in_force("h2", await it.store.read(changes.revision))
        await it.change("h1", 11, 12)
        await asyncio.sleep(0.5)
        assert it.applied("h2") == told + 1, "one that has what it is to have is not told again"


async def test_a_host_that_did_not_answer_and_needs_nothing_any_more_is_not_looked_at_for_ever() -> None:
    async with cloud("h1", "h2") as it:
        await it.start("h1")
        await it.start("h2")
        await it.until_in_force("h1", 2)
        it.unreachable.add("h1")
        await it.change("h1", 11)
        await it.until(lambda: it.applied("h1") > 1)
        it.unreachable.clear()
        await it.until_in_force("h1", await it.store.read(changes.revision))
        looks = 0
        once = it.loop._once

        async def counted() -> float:
            nonlocal looks
            looks += 1
            return await once()

        it.loop._once = counted  # type: ignore[method-assign]
        await asyncio.sleep(0.5)
        assert looks <= 3
