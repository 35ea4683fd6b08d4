"""Questions of ports/control.py, here and in another process: a new one is a method of the protocol and of the control,
and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
import pytest

from droveway.control.answers import ControlAnswers
from droveway.control.questions import Questions
from droveway.domain import faults
from droveway.domain.consoles import ConsoleKind
from droveway.domain.faults import Conflict, NotFound, Unreachable
from droveway.domain.liveness import State
from droveway.ports.asking import Recipient, declared, proxy, question
from droveway.ports.control import ControlQueries, DryRunRequest, MoveRequest
from droveway.ports.peer_bus import Question, Reply
from droveway.process.remote_control import JOURNEY_S, LocalControl, RemoteControl
from droveway.store.compute import flavors
from droveway.store.engine.transaction import Store
from droveway.store.fleet import aggregates
from droveway.store.work import leases
from tests.control.hall import HandClock
from tests.control.world import world
from tests.store import databases

SUMS = "sums"


class Sum(msgspec.Struct, frozen=True):
    total: int
    state: State


class Wider(ControlQueries):
    """What this control is asked, and one question more, of which the program has never heard."""

    @question(SUMS, within_s=0.5, recipient=Recipient.NAMED)
    async def add(self, name: str, first: Sum, *numbers: int) -> dict[str, Sum]: ...


class Adding(Wider, ControlAnswers):
    def __init__(self) -> None:
        super().__init__(*[None] * 12)  # it is asked for nothing that needs a part of the control

    async def add(self, name: str, first: Sum, *numbers: int) -> dict[str, Sum]:
        if name == "nobody":
            raise NoAdder("nobody adds")
        return {name: Sum(first.total + sum(numbers), first.state)}


class NoAdder(NotFound):
    """A type that only this process knows."""


class Loopback:
    """A PeerBus without a broker: what is said goes through bytes, as it would."""

    def __init__(self) -> None:
        self.controls: dict[str, Callable[[Question], Awaitable[Reply]]] = {}
        self.asked: list[tuple[str, str, float]] = []

    async def serve(
        self,
        name: str,
        on_nudge: Callable[[str], None],
        on_question: Callable[[Question], Awaitable[Reply]] | None = None,
    ) -> None:
        if on_question is not None:
            self.controls[name] = on_question

    async def ask(self, control: str, question: Question, timeout_s: float) -> Reply:
        self.asked.append((control, question.about, timeout_s))
        if control not in self.controls:
            raise Unreachable(f"no control named {control} is connected")
        arrived = msgspec.json.decode(msgspec.json.encode(question), type=Question)
        return msgspec.json.decode(msgspec.json.encode(await self.controls[control](arrived)), type=Reply)

    def nudge(self, topic: str) -> None:
        """Nobody else hears it."""

    async def close(self) -> None:
        self.controls.clear()


@contextlib.asynccontextmanager
async def told() -> AsyncIterator[tuple[Store, Loopback]]:
    store = databases.store(HandClock())
    for name in ("one", "two"):
        await store.run(leases.regain, leases.CONTROLS + name, name)
    try:
        yield (store, Loopback())
    finally:
        await store.close()


def silent(x: Any) -> None:
    pass


# -- a question that nobody has heard of ------------------------------------------------------------------------------
async def test_a_new_question_is_answered_here_and_from_elsewhere() -> None:
    async with told() as (store, peers):
        here = Adding()
        await peers.serve("two", silent, Questions(here, Wider))
        far = RemoteControl(store, peers)
        expected = {"two": Sum(6, State.ALIVE)}
        for asked in (here, proxy(Wider, far.ask), proxy(Wider, LocalControl(here, "one", Nobody(), far).ask)):
            assert await asked.add("two", Sum(1, State.ALIVE), 2, 3) == expected
            assert await asked.add("two", Sum(6, State.ALIVE)) == expected
        assert peers.asked == [("two", SUMS, 0.5 + JOURNEY_S)] * 2  # named first; and nobody else's time for it


class Nobody:
    owner = ""


async def test_a_fault_arrives_as_its_type_and_one_unknown_elsewhere_as_what_it_is_one_of() -> None:
    async with told() as (store, peers):
        await peers.serve("two", silent, Questions(Adding(), Wider))
        with pytest.raises(NotFound, match=r"^nobody adds$") as caught:
            await proxy(Wider, RemoteControl(store, peers).ask).add("nobody", Sum(1, State.ALIVE))
        assert type(caught.value) is NotFound
    for kind in faults.Fault.__subclasses__():
        if kind.__module__ == faults.__name__:
            back = faults.of_name(faults.shared_name(kind("because")), "because")
            assert (type(back), back.reason) == (kind, "because")
    assert type(faults.of_name("FromTheFuture", "x")) is Conflict


async def test_what_does_not_fit_is_refused_with_what_to_do() -> None:
    async with told() as (store, peers):
        serving = Questions(Adding(), Wider)
        for arguments, says in (
            ((), "does not take 0"),
            (("a",), "does not take 1"),
            (("a", {"total": "x", "state": "alive"}), "cannot be read here"),
            (("a", {"total": 1, "state": "alive"}, 2, "x"), "cannot be read here"),
        ):
            reply = await serving(Question(SUMS, arguments))
            assert (reply.fault, says in reply.reason, "be of one version" in reply.reason) == (
                "BadRequest",
                True,
                True,
            ), reply.reason
        reply = await serving(Question("audit", (1,)))
        assert (reply.fault, "does not take 1" in reply.reason) == ("BadRequest", True)
        reply = await serving(Question("colour"))
        assert (reply.fault, "upgrade it" in reply.reason) == ("NotFound", True)

        async def garbled(_: Question) -> Reply:
            return Reply({"two": "six"})

        await peers.serve("two", silent, garbled)
        with pytest.raises(Conflict, match="cannot be read"):
            await proxy(Wider, RemoteControl(store, peers).ask).add("two", Sum(1, State.ALIVE))


def test_a_control_that_forgets_a_question_does_not_start() -> None:
    class Forgetful(Wider, ControlAnswers):
        pass

    with pytest.raises(AssertionError, match="Forgetful does not answer add"):
        Questions(Forgetful(*[None] * 12), Wider)


# -- whom it is put to ------------------------------------------------------------------------------------------------
class Three(Protocol):
    """A question of each way to choose a control."""

    @question("detected", recipient=Recipient.DETECTOR)
    async def detected(self) -> str: ...

    @question("named", recipient=Recipient.NAMED)
    async def named(self, name: str) -> str: ...

    @question("any")
    async def any_of_them(self) -> str: ...


class Control(Three):
    """Says who it is."""

    def __init__(self, name: str, *, finds: bool = True) -> None:
        self._name, self._finds = name, finds

    async def detected(self) -> str:
        return self._name

    async def named(self, name: str) -> str:
        if not self._finds:
            raise NotFound(f"not at {self._name}")
        return self._name

    async def any_of_them(self) -> str:
        return self._name


async def test_beside_a_control_only_the_failure_detector_and_a_named_one_are_asked() -> None:
    async with told() as (store, peers):
        duty = Nobody()
        local = LocalControl(Control("one", finds=False), "one", duty, RemoteControl(store, peers))
        asked = proxy(Three, local.ask)
        await peers.serve("two", silent, Questions(Control("two"), Three))
        assert await asked.detected() == "one"  # there is no failure detector
        duty.owner = "two"
        assert await asked.detected() == "two"
        duty.owner = "gone"
        assert await asked.detected() == "one"  # the failure detector does not answer
        duty.owner = "one"
        assert await asked.detected() == "one"
        assert await asked.any_of_them() == "one"
        assert await asked.named("two") == "two"  # not found here
        with pytest.raises(NotFound, match="not at one"):
            await asked.named("one")  # its own name: nobody knows more
        assert [name for name, *_ in peers.asked] == ["two", "gone", "two"]


async def test_without_one_beside_it_the_failure_detector_is_asked_first() -> None:
    async with told() as (store, peers):
        asked = proxy(Three, RemoteControl(store, peers).ask)
        with pytest.raises(Unreachable, match=r"No control answers \(no control named two is connected\)"):
            await asked.any_of_them()
        peers.asked.clear()
        await peers.serve("one", silent, Questions(Control("one"), Three))
        await store.run(leases.regain, leases.DETECTOR, "two")
        assert await asked.any_of_them() == "one"
        assert [name for name, *_ in peers.asked] == ["two", "one"]


# -- the real control -------------------------------------------------------------------------------------------------
async def test_every_answer_of_a_control_survives_the_way() -> None:
    """Each question that a control can answer without a bad day, from here and from elsewhere: the same."""
    async with world(backends=("h1@fast",)) as w:
        assert w._control is not None
        await w.store.run(flavors.seed)
        rack = await w.store.run(aggregates.create, "rack-1", None)
        await w.store.run(aggregates.add_host, rack["id"], "h1")
        answers = w._control.answers
        peers = Loopback()
        await peers.serve(w._control.name, silent, Questions(answers))
        elsewhere = proxy(ControlQueries, RemoteControl(w.store, peers).ask)
        calls: dict[str, tuple[Any, ...]] = {
            "why": ("h1", "nova-compute"),
            "list_tasks": ("h1",),
            "list_stored_volumes": ("h1@fast",),
            "liveness_metrics": (),
            "last_reports": ("h1", "h2"),
            "audit": (),
            "repair": (["gone"],),
            "try_placement": (DryRunRequest(flavor="tiny"),),
            "move_matrix": (None,),
            "cpu_baseline": ("rack-1",),
        }
        refused: dict[str, tuple[tuple[Any, ...], type[faults.Fault]]] = {
            "replay_placement": (("nothing",), NotFound),
            "plan_move": ((MoveRequest("nothing"),), NotFound),
            "read_console": (("h1", "nothing", None), Unreachable),
            "read_diagnostics": (("h1", "nothing"), Unreachable),
            "open_console": (("h1", "nothing", ConsoleKind.SERIAL, "unix:", "secret"), Unreachable),
        }
        assert {one.method for one in declared(ControlQueries)} == {*calls, *refused}
        for method, arguments in calls.items():
            here = await getattr(answers, method)(*arguments)
            there = await getattr(elsewhere, method)(*arguments)
            assert type(here) is type(there) or method in {"list_tasks", "list_stored_volumes"}, method
            if method not in {"why", "audit", "liveness_metrics", "try_placement"}:  # these tell the time, or draw
                assert msgspec.to_builtins(here) == msgspec.to_builtins(there), method
        w.trouble = "it was pulled out"
        for method, (arguments, kind) in refused.items():
            for asked in (answers, elsewhere):
                with pytest.raises(kind):
                    await getattr(asked, method)(*arguments)
