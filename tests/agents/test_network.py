"""The network agent of a host: fenced by revision, starts from what it kept, mends, and says how it is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from droveway.agents import network as agents
from droveway.agents.kept_plan import FileKeptPlan, KeptPlan, MemoryKeptPlan
from droveway.agents.metadata.kept import FileKeptGuests, KeptGuests, MemoryKeptGuests
from droveway.agents.metadata.server import NotServed
from droveway.agents.network import HostFacts, NetworkAgent
from droveway.domain.guest_data import GuestData, GuestFacts
from droveway.domain.model import of_host
from droveway.domain.network_plan import HostNetworks, NotInForce, PlannedPort, PlannedRouter
from droveway.domain.service_kinds import NETWORK
from droveway.drivers.clock import SystemClock
from droveway.drivers.network.simulated import SimulatedNetwork, SimulatedPlace
from droveway.ports.bus import (
    ApplyNetworks,
    Command,
    Hello,
    Inspect,
    ListTasks,
    Notice,
    Ping,
    ReadNetworks,
    RestoreConnections,
    SaveConnections,
    SendGuestData,
    ServiceReport,
    Verb,
    Welcome,
)
from droveway.ports.replies import (
    Answer,
    Connections,
    ConnectionsRestored,
    NetworksApplied,
    PingResult,
    Refused,
    StaleFence,
    Tasks,
    Unavailable,
    Working,
)
from tests.drivers import network_worlds as w

FACTS = HostFacts("192.0.2.1", ("physnet1",))


class Bus:
    """Begins to listen when the agent does, and keeps what it tells."""

    def __init__(self) -> None:
        self.told: list[ServiceReport] = []
        self.hellos: list[Hello] = []
        self.ended = asyncio.Event()

    async def run(self, hello: object, on_welcome: object, on_command: object) -> None:
        self.hellos.append(hello())  # type: ignore[operator]
        on_welcome(Welcome(1.0))  # type: ignore[operator]
        await self.ended.wait()

    def notify(self, notice: Notice) -> None:
        assert isinstance(notice, ServiceReport)
        self.told.append(notice)

    async def close(self) -> None:
        pass


class Scene:
    def __init__(self, kept: KeptPlan | None = None, guests: KeptGuests | None = None) -> None:
        self.place, self.bus = SimulatedPlace("h1", ("physnet1",)), Bus()
        self.kept = kept or MemoryKeptPlan()
        self.guests = guests or MemoryKeptGuests()
        self.agent = NetworkAgent(
            "h1",
            "boot",
            "here",
            SimulatedNetwork(self.place),
            self.bus,
            self.kept,
            SystemClock(),
            FACTS,
            _at_once,
            guests=self.guests,
        )

    async def ask(self, verb: Verb, generation: int = 0) -> Answer:
        return await self.agent.handle(Command(of_host("h1"), generation, verb))

    async def apply(self, plan: HostNetworks) -> Answer:
        return await self.ask(ApplyNetworks(plan), plan.revision)


async def _at_once(call: object) -> None:
    call()  # type: ignore[operator]


@contextlib.asynccontextmanager
async def running(kept: KeptPlan | None = None, guests: KeptGuests | None = None) -> AsyncIterator[Scene]:
    scene = Scene(kept, guests)
    task = asyncio.create_task(scene.agent.run())
    try:
        async with asyncio.timeout(10):
            while not scene.bus.hellos:
                await asyncio.sleep(0)
            yield scene
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def plan(revision: int, *ports: PlannedPort) -> HostNetworks:
    return HostNetworks(revision, "192.0.2.1", (), (w.planned_network(),), ports, (w.group(1),))


FACTS_OF = (FACTS.tunnel_address, FACTS.physical_networks)


def answer(revision: int, *failed: NotInForce) -> NetworksApplied:
    return NetworksApplied(revision, failed, *FACTS_OF, "boot", takes_changes=True)


def as_kept(told: HostNetworks, boot: str = "boot") -> HostNetworks:
    return msgspec.structs.replace(told, told_in_boot=boot)


ONE, TWO = w.port(11, groups=(w.identity(1),)), w.port(12, groups=(w.identity(1),))


async def test_a_plan_is_made_and_an_older_one_refused() -> None:
    async with running() as it:
        assert await it.ask(ReadNetworks()) == answer(-1)
        assert await it.apply(plan(5, ONE)) == answer(5)
        assert it.place.plan == plan(5, ONE)
        assert it.kept.read() == as_kept(plan(5, ONE))
        assert await it.apply(plan(4)) == StaleFence("revision 4 of the networks is older than 5", 5)
        assert it.place.plan == plan(5, ONE)
        made = it.place.applied
        assert isinstance(await it.apply(plan(5, ONE)), NetworksApplied)  # the same again is compared again
        assert it.place.applied == made + 1


async def test_it_starts_from_what_it_kept_before_control_is_heard(tmp_path: Path) -> None:
    kept = FileKeptPlan(tmp_path / "deep" / "networks.json")
    kept.write(plan(7, ONE, TWO))
    async with running(FileKeptPlan(tmp_path / "deep" / "networks.json")) as it:
        assert it.bus.hellos[0] == Hello("h1", "boot", "here", service=NETWORK)
        assert it.place.plan == plan(7, ONE, TWO)
        assert (await it.ask(ReadNetworks())).revision == 7  # type: ignore[union-attr]
        assert isinstance(await it.apply(plan(6)), StaleFence)


@pytest.mark.parametrize("boot", ["boot", "an earlier one"])
async def test_routers_of_an_earlier_boot_wait_for_control(boot: str) -> None:
    """They may be on another host by now; networks and ports may not."""
    routed = msgspec.structs.replace(plan(7, ONE), routers=(PlannedRouter(w.identity(40)),))
    kept = MemoryKeptPlan()
    kept.write(as_kept(routed, boot))
    async with running(kept) as it:
        is_same = boot == "boot"
        assert it.place.plan == (routed if is_same else plan(7, ONE))
        assert (await it.ask(ReadNetworks())).revision == (7 if is_same else -1)  # type: ignore[union-attr]
        assert it.agent.health()[1].endswith("all in force" if is_same else "routers wait for control")
        assert isinstance(await it.apply(plan(6)), StaleFence)
        assert (await it.apply(routed)).revision == 7  # type: ignore[union-attr]
        assert it.place.plan == routed
        assert kept.read() == as_kept(routed)
        assert it.agent.health()[1] == "1 network, 1 port, 1 router, all in force"


async def test_without_a_plan_it_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "networks.json").write_bytes(b'{"revision": 7, "tunnel')  # torn: control sends it again
    async with running(FileKeptPlan(tmp_path / "networks.json")) as it:
        assert it.place.applied == 0
        assert it.agent.health() == (True, "control has not said yet which networks it is to have")
        assert isinstance(await it.apply(plan(1, ONE)), NetworksApplied)
    assert FileKeptPlan(tmp_path / "networks.json").read() == as_kept(plan(1, ONE))


async def test_what_is_not_in_force_is_named_and_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "AGAIN_S", 0.02)
    async with running() as it:
        it.place.troubles["port", ONE.id] = "no room"
        given = await it.apply(plan(1, ONE, TWO))
        assert given == answer(1, NotInForce("port", ONE.id, "no room"))
        assert it.agent.health() == (False, f"of 1 network, 2 ports not in force: port {ONE.id} (no room)")
        del it.place.troubles["port", ONE.id]
        while (await it.ask(ReadNetworks())).failed:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        assert it.agent.health() == (True, "1 network, 2 ports, all in force")
        while it.bus.told[-1].reason != "1 network, 2 ports, all in force":
            await asyncio.sleep(0.01)


async def test_a_host_that_cannot_do_it_says_why_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "AGAIN_S", 0.02)
    async with running() as it:
        it.place.cannot = "dnsmasq not found: install dnsmasq-base"
        assert await it.apply(plan(1, ONE)) == Unavailable(it.place.cannot)
        assert it.agent.health() == (False, it.place.cannot)
        assert it.kept.read() == as_kept(plan(1, ONE))
        it.place.cannot = ""
        while it.place.plan != plan(1, ONE):
            await asyncio.sleep(0.01)
        assert (await it.ask(ReadNetworks())).revision == 1  # type: ignore[union-attr]


async def test_a_host_that_cannot_do_it_at_its_start_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "AGAIN_S", 0.02)
    scene = Scene()
    scene.place.cannot = "it must be root"
    task = asyncio.create_task(scene.agent.run())
    while not scene.bus.told:
        await asyncio.sleep(0)
    assert (scene.bus.told[0].is_well, scene.bus.told[0].reason) == (False, "it must be root")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_one_that_takes_long_is_worked_on_and_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "ANSWER_S", 0.02)
    async with running() as it:
        it.place.hangs.clear()
        assert await it.apply(plan(1, ONE)) == Working("the networks of revision 1 are being made")
        assert isinstance(await it.apply(plan(1, ONE)), Working)
        assert isinstance(await it.ask(Ping()), PingResult)
        it.place.hangs.set()
        answers = [await it.apply(plan(1, ONE)) for _ in range(3)]
        assert isinstance(answers[-1], NetworksApplied)


async def test_a_newer_plan_that_comes_meanwhile_is_the_last_one() -> None:
    async with running() as it:
        it.place.hangs.clear()
        asks = [asyncio.create_task(it.apply(plan(number, ONE))) for number in (1, 3, 2)]
        await asyncio.sleep(0.05)
        it.place.hangs.set()
        first, newest, late = await asyncio.gather(*asks)
        assert isinstance(newest, NetworksApplied) and newest.revision == 3
        assert isinstance(first, NetworksApplied)
        assert isinstance(late, (StaleFence, Unavailable))
        assert it.place.plan.revision == 3


async def test_its_other_answers() -> None:
    async with running() as it:
        await it.apply(plan(1, ONE))
        assert await it.ask(ListTasks()) == Tasks()
        assert await it.ask(RestoreConnections(ONE.id, "saved")) == ConnectionsRestored()
        assert await it.ask(SaveConnections(ONE.id)) == Connections("saved")
        assert await it.ask(SaveConnections(TWO.id)) == Refused(f"port {TWO.id} is not on host h1")
        assert await it.ask(Inspect()) == Refused(f"{NETWORK} on h1 makes networks and has no guests")


def of(instance_id: str, data_digest: str = "d1", number: int = 11) -> PlannedPort:
    return w.port(number, groups=(w.identity(1),), instance_id=instance_id, data_digest=data_digest)


def told(instance_id: str, digest: str = "d1", name: str = "g") -> GuestData:
    facts = GuestFacts(instance_id, 1, name, name, "p", "nova", "tiny", "r", user_data=b"secret")
    return GuestData(digest, facts)


async def wants(scene: Scene) -> tuple[str, ...]:
    answer = await scene.ask(ReadNetworks())
    assert isinstance(answer, NetworksApplied)
    return answer.wants


async def test_it_wants_what_its_guests_are_told_and_keeps_it(tmp_path: Path) -> None:
    plans, place = MemoryKeptPlan(), tmp_path / "guests"
    async with running(plans, FileKeptGuests(place)) as it:
        answer = await it.apply(plan(1, of("vm-1"), of("vm-2", number=12), w.port(13)))
        assert isinstance(answer, NetworksApplied) and answer.wants == ("vm-1", "vm-2")
        answer = await it.ask(SendGuestData((told("vm-1"), told("vm-3"), told("vm-2", "old"))))
        assert isinstance(answer, NetworksApplied) and answer.wants == ("vm-2",)  # what is old is passed over
        assert [one.name for one in place.iterdir()] == ["vm-1.json"]
        assert stat.S_IMODE((place / "vm-1.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        # It has changed: what is there is told until the new one has come.
        await it.apply(plan(2, of("vm-1", "d2")))
        assert await wants(it) == ("vm-1",) and it.agent._guests["vm-1"] == told("vm-1")
        await it.ask(SendGuestData((told("vm-1", "d2", "renamed"),)))
        assert await wants(it) == ()
    (place / "vm-9.json").write_bytes(b'{"digest": "d')  # torn
    async with running(plans, FileKeptGuests(place)) as it:
        assert await wants(it) == () and it.agent._guests["vm-1"].facts.name == "renamed"
        await it.apply(plan(3))  # it has left the host, and so has what it was told
        assert it.agent._guests == {} and not (place / "vm-1.json").exists()
        assert await wants(it) == ()


class Served:
    """What a metadata server is asked to serve; `trouble`: why it does not."""

    def __init__(self) -> None:
        self.brought: list[tuple[HostNetworks, dict[str, GuestData]]] = []
        self.trouble, self.lost = "", lambda: None
        self.calls: list[str] = []

    async def bring(self, plan: HostNetworks, guests: Mapping[str, GuestData]) -> None:
        if self.trouble:
            raise NotServed(self.trouble)
        self.brought.append((plan, dict(guests)))

    async def withdraw(self, plan: HostNetworks) -> None:
        self.calls.append(f"withdraw {plan.revision}")

    def settle(self) -> None:
        self.calls.append("settle")

    def close(self) -> None:
        pass


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):  # less than a look that nobody asked for would take
        while not is_so():
            await asyncio.sleep(0.005)


async def test_metadata_follows_the_plan_and_the_data_and_is_brought_again_when_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agents, "AGAIN_S", 0.05)
    scene = Scene()
    served = scene.agent._metadata = Served()  # type: ignore[assignment]
    apply = scene.agent._network.apply

    async def made(plan: HostNetworks) -> tuple[NotInForce, ...]:
        served.calls.append(f"made {plan.revision}")
        return await apply(plan)

    monkeypatch.setattr(scene.agent._network, "apply", made)
    task = asyncio.create_task(scene.agent.run())
    await until(lambda: bool(scene.bus.hellos))
    await scene.apply(plan(1, of("vm-1")))
    await until(lambda: served.brought[-1:] == [(plan(1, of("vm-1")), {})])
    await scene.ask(SendGuestData((told("vm-1"),)))
    await until(lambda: served.brought[-1][1] == {"vm-1": told("vm-1")})
    count = len(served.brought)
    served.lost()
    await until(lambda: len(served.brought) > count)
    assert served.calls == ["withdraw 1", "made 1", "settle"]
    served.trouble = "metadata is not served: it is lost"
    served.lost()
    await until(lambda: scene.agent.health() == (False, served.trouble))
    await until(lambda: scene.bus.told[-1].reason == served.trouble)
    served.trouble = ""
    await until(lambda: scene.agent.health()[0])
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_a_guest_is_told_and_cannot_be_kept_is_wanted_on() -> None:
    class FullDisk(MemoryKeptGuests):
        def write(self, guest: GuestData) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    async with running(None, FullDisk()) as it:
        await it.apply(plan(1, of("vm-1")))
        reason = "guest metadata cannot be stored: No space left on device"
        assert await it.ask(SendGuestData((told("vm-1"),))) == Unavailable(reason)
        assert await wants(it) == ("vm-1",)


async def test_a_plan_is_decoded_by_its_types_or_not_at_all() -> None:
    good = msgspec.json.encode(plan(1, msgspec.structs.replace(ONE, hostname="web-1")))
    assert msgspec.json.decode(good, type=HostNetworks).ports[0].hostname == "web-1"
    for before, after in (
        (b'"web-1"', b'"web\\n1"'),
        (b'"web-1"', b'"web,1"'),
        (b'"52:54:00:00:00:0b"', b'"52:54:00:00:00:0b,x"'),
        (b'"10.0.0.11"', b'"10.0.0.11\\n"'),
        (b'"10.0.0.0/24"', b'"10.0.0.0/24,static"'),
        (b'"10.0.0.1"', b'"10.0.0.1 drop"'),
    ):
        assert before in good
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(good.replace(before, after), type=HostNetworks)
