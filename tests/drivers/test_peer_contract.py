"""The guarantees of ports/bus.py between controls and APIs, over real brokers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from droveway.domain.faults import BadRequest, Unreachable
from droveway.drivers.bus import broker_peers
from droveway.drivers.bus.broker_peers import BrokerPeerBus
from droveway.ports.peer_bus import Question, Reply
from lab.servers import Server
from tests.drivers.bus_worlds import Broker, BrokerWorld, Rabbit, broker, ready

pytestmark = pytest.mark.servers
Answer = Callable[[Question], Awaitable[Reply]]
SOON_S = 30.0


@pytest.fixture(scope="module", params=["nats", "rabbitmq"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | Rabbit]:
    if request.param == "nats":
        with broker(tmp_path_factory.mktemp("broker") / "nats") as one:
            yield one
    else:
        yield ready(request.getfixturevalue("rabbit_that_stays"))


class Peers:
    """Ends of one cloud, and what each has heard."""

    def __init__(self, world: BrokerWorld) -> None:
        self.world = world
        self.ends: list[BrokerPeerBus] = []
        self.heard: dict[BrokerPeerBus, list[str]] = {}

    async def add(self, name: str = "", answer: Answer | None = None) -> BrokerPeerBus:
        made = self.world.peer()
        self.ends.append(made)
        self.heard[made] = []
        await made.serve(name, self.heard[made].append, answer)
        return made

    async def meet(self) -> None:
        """Each has heard each other."""
        async with asyncio.timeout(SOON_S):
            while not all(len(set(heard)) >= len(self.ends) - 1 for heard in self.heard.values()):
                for number, end in enumerate(self.ends):
                    end.nudge(f"met {number}")
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)
        for heard in self.heard.values():
            heard.clear()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def told(request: pytest.FixtureRequest, shared: Broker | Rabbit) -> AsyncIterator[Peers]:
    peers = Peers(shared.world(prefix=f"t{abs(hash(request.node.name)) % 10**8}"))
    try:
        yield peers
    finally:
        await asyncio.gather(*(end.close() for end in peers.ends))


async def echo(question: Question) -> Reply:
    return Reply([question.about, *question.arguments])


async def test_a_question_reaches_the_control_of_that_name(
    request: pytest.FixtureRequest, shared: Broker | Rabbit
) -> None:
    async def other(question: Question) -> Reply:
        return Reply(fault="NotFound", reason="not here")

    async with told(request, shared) as peers:
        api = await peers.add()
        await peers.add("control a.b", echo)  # a name may hold what means something to a broker
        await peers.add("two", other)
        await peers.meet()
        replies = await asyncio.gather(*(api.ask("control a.b", Question("n", (n, None, "x")), 5) for n in range(50)))
        assert [one.value for one in replies] == [["n", n, None, "x"] for n in range(50)]
        assert await api.ask("two", Question("why"), 5) == Reply(None, "NotFound", "not here")
        assert (await peers.ends[2].ask("control a.b", Question("x"), 5)).value == ["x"]  # a control asks, too


async def test_nobody_of_that_name_is_told_at_once(request: pytest.FixtureRequest, shared: Broker | Rabbit) -> None:
    async with told(request, shared) as peers:
        api = await peers.add()
        await peers.add()
        await peers.meet()
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(Unreachable, match="no control named gone is connected"):
            await api.ask("gone", Question("why"), 30)
        assert asyncio.get_running_loop().time() - began_s < 5


async def test_a_control_that_does_not_answer_is_unreachable_at_the_deadline(
    request: pytest.FixtureRequest, shared: Broker | Rabbit
) -> None:
    async def never(_: Question) -> Reply:
        await asyncio.sleep(60)
        return Reply()

    async with told(request, shared) as peers:
        api = await peers.add()
        await peers.add("slow", never)
        await peers.meet()
        with pytest.raises(Unreachable, match=r"control slow did not answer within 0\.2 s"):
            await api.ask("slow", Question("why"), 0.2)


async def test_nudges_reach_all_others_and_each_topic_once(
    request: pytest.FixtureRequest, shared: Broker | Rabbit
) -> None:
    async with told(request, shared) as peers:
        first = await peers.add("a", echo)
        others = [await peers.add("b", echo), await peers.add()]
        await peers.meet()
        for _ in range(100):
            first.nudge("sagas")
        first.nudge("saga:1")
        await until(lambda: all(len(peers.heard[one]) >= 2 for one in others))
        await asyncio.sleep(0.1)
        assert [peers.heard[one] for one in others] == [["sagas", "saga:1"]] * 2
        assert peers.heard[first] == []


async def test_topics_are_bounded(request: pytest.FixtureRequest, shared: Broker | Rabbit) -> None:
    async with told(request, shared) as peers:
        first, other = await peers.add("a", echo), await peers.add()
        await peers.meet()
        before = first.dropped
        for number in range(broker_peers.TOPICS_MAX + 10):
            first.nudge(f"saga:{number}")
        first.nudge("x" * (broker_peers.TOPIC_MAX + 1))
        await until(lambda: len(peers.heard[other]) >= broker_peers.TOPICS_MAX)
        assert first.dropped - before == 11


async def test_an_answer_over_the_brokers_bound_says_so(
    request: pytest.FixtureRequest, shared: Broker | Rabbit
) -> None:
    async def long(_: Question) -> Reply:
        return Reply("x" * (5 << 20))

    async with told(request, shared) as peers:
        api = await peers.add()
        await peers.add("a", long)
        await peers.meet()
        reply = await api.ask("a", Question("audit"), 5)
        assert reply.fault == "Busy"
        assert "the answer about audit is" in reply.reason


async def test_too_many_questions_are_refused_not_queued(
    request: pytest.FixtureRequest, shared: Broker | Rabbit
) -> None:
    async def slow(_: Question) -> Reply:
        await asyncio.sleep(1.0)
        return Reply("done")

    async with told(request, shared) as peers:
        api = await peers.add()
        control = await peers.add("a", slow)
        await peers.meet()
        before, count = control.dropped, broker_peers.ANSWERING_MAX + 20
        replies = await asyncio.gather(*(api.ask("a", Question("q"), 8) for _ in range(count)))
        assert sorted(one.fault for one in replies) == [""] * broker_peers.ANSWERING_MAX + ["Busy"] * 20
        assert control.dropped - before == 20


async def test_a_broker_that_is_away_ends_what_waits_and_all_goes_on_behind_it(
    request: pytest.FixtureRequest, shared: Broker | Rabbit
) -> None:
    started = asyncio.Event()

    async def slow(question: Question) -> Reply:
        if question.about == "slow":
            started.set()
            await asyncio.sleep(60)
        return Reply("here")

    async with told(request, shared) as peers:
        server: Server = shared
        api = await peers.add()
        await peers.add("a", slow)
        await peers.meet()
        waiting = asyncio.create_task(api.ask("a", Question("slow"), 60))
        await started.wait()
        await asyncio.to_thread(server.kill)
        with pytest.raises(Unreachable, match="control a was not reached"):
            await waiting
        with pytest.raises(Unreachable, match="was not asked"):
            await api.ask("a", Question("q"), 5)
        api.nudge("lost")
        await asyncio.sleep(0)
        server.start()
        await peers.meet()
        assert (await api.ask("a", Question("q"), 5)).value == "here"


@pytest.mark.parametrize("odd", [10**40, "x" * 9_000_000], ids=["a huge number", "a huge text"])
async def test_what_cannot_be_asked_is_the_askers_fault(
    request: pytest.FixtureRequest, shared: Broker | Rabbit, odd: object
) -> None:
    async with told(request, shared) as peers:
        api, _ = await peers.add(), await peers.add("c1", echo)
        await peers.meet()
        with pytest.raises(BadRequest, match="cannot be asked that"):
            await api.ask("c1", Question("try", ({"count": odd},)), SOON_S)
