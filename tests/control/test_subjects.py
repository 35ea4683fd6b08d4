"""A saga about one thing commands hosts about another that it holds."""

from __future__ import annotations

from droveway.control.engine.saga import Context, Saga, SpecNotes, Step
from droveway.control.sagas import STORIES
from droveway.domain.model import GuestState, SagaKind, Subject, SubjectKind, of_host, of_instance
from droveway.ports.bus import Command, Inspect, Stop
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.work import sagas, subjects
from tests.control.world import World, world


def clearing(instance_id: str) -> Saga:
    """About a host: it stops a guest there."""
    guest = of_instance(instance_id)

    def take(tx: Tx, ctx: Context) -> None:
        ctx.hold(tx, guest)

    async def stop(ctx: Context) -> None:
        await ctx.ask(ctx.subject.id, Stop(0.0), about=guest)

    def nothing(tx: Tx, ctx: Context) -> None:
        pass

    steps = (Step("take", write=take, harmless=True), Step("stop", do=stop, pivot=True), Step("leave", write=nothing))
    return Saga(SagaKind.HARD_REBOOT, SpecNotes, steps, failed=nothing, undone=nothing)


async def test_a_saga_about_a_host_commands_a_guest_that_it_holds() -> None:
    async with world() as w:
        instance_id = await w.create()
        for kind in (SagaKind.STOP, SagaKind.START, SagaKind.STOP, SagaKind.START):
            await w.do(instance_id, kind)  # its fence is far beyond the host's
        place = (await w.store.read(instances.get, instance_id))["host"]
        before = await w.store.read(subjects.fence, [of_instance(instance_id)])
        w.control.runner._stories = STORIES | {SagaKind.HARD_REBOOT: clearing(instance_id)}  # type: ignore[union-attr]

        def begin(tx: Tx) -> str:
            return sagas.enqueue(tx, SagaKind.HARD_REBOOT, of_host(place), "p", {}, request_id="")

        saga_id = await w.store.run(begin)
        await w.quiet()
        assert (await w.store.read(sagas.get, saga_id))["status"] == "done"
        assert w.fleet.hosts[place].domains[instance_id].state is GuestState.SHUTOFF
        obeyed = w.agents[place]._fences.read(of_instance(instance_id))
        assert obeyed.verb == "Stop" and obeyed.generation > before
        assert w.agents[place]._fences.read(of_host(place)).generation == 0
        assert await w.store.read(subjects.fence, [of_instance(instance_id)]) >= obeyed.generation
        await w.do(instance_id, SagaKind.STOP)  # as its row says, it runs
        assert await w.do(instance_id, SagaKind.START) == "done"
        await w.check(instance_id)


async def test_what_is_done_to_a_guest_is_done_to_nothing_else() -> None:
    async def play(w: World) -> None:
        instance_id = await w.create()
        agent = w.agents["h1"]
        for verb in (Stop(0.0), Inspect()):
            answer = await agent.handle(Command(Subject(SubjectKind.VOLUME, instance_id), 1 << 20, verb))
            assert "is done to an instance, not to volume:" in answer.reason
        assert len(await w.runs_on(instance_id)) == 1

    async with world() as w:
        await play(w)
