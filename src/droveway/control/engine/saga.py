"""A saga: a tuple of steps that ends either all done or all undone, whatever crashes; and the runner of all of them.

Law 3. The undo stands beside the do and exactly one step is the pivot: before it a step is undoable or harmless,
after it there is only forward. A step either asks hosts (`do`) or writes facts (`write`, in the very transaction that
moves the cursor). The generation of the row rises with every save and fences every command that is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from droveway.domain.faults import StepFailed, Unreachable
from droveway.domain.model import Guest, GuestSpec, SagaKind
from droveway.domain.placement import PlacementSettings
from droveway.ports.bus import Answer
from droveway.store.engine.transaction import Store, Tx

if TYPE_CHECKING:
    from droveway.control.scheduling.placer import Decision, Placer


class NotYet(Exception):
    """Nothing is wrong: come back at the latest after `after_s`, or when a nudge says so. `sentence`: what it waits
    for, shown once that takes long."""

    def __init__(self, after_s: float, sentence: str) -> None:
        super().__init__(after_s)
        self.after_s, self.sentence = after_s, sentence


class TicketNeeded(NotYet):
    """The host is to be asked again with a ticket for the image that it fetches. `challenge` names the host in it."""

    def __init__(self, after_s: float, sentence: str, challenge: str) -> None:
        super().__init__(after_s, sentence)
        self.challenge = challenge


class Undecided(Unreachable):
    """Nobody who can be asked may say how it goes on: the sentence names what may end the wait."""


class TooLate(Exception):
    """An undo found that the pivot has already happened: the saga turns forward again."""


class NoRoom(StepFailed):
    """No host was found. A request that may wait for one stands still until there is; otherwise the step has failed."""

    def __init__(self, decision: Decision, sentence: str = "", *, may_wait: bool) -> None:
        super().__init__(sentence or decision.sentence)
        self.decision, self.may_wait = decision, may_wait


class ControlSettings(msgspec.Struct, frozen=True):
    """What the sagas and loops need to know of the configuration."""

    images_path: str  # where every host sees the images; empty: hosts fetch them
    api_urls: tuple[str, ...] = ()  # as hosts reach the APIs
    ticket_key_s: float = 300.0  # how long a key signs tickets, which are good for two to three times that
    placement: PlacementSettings = PlacementSettings()
    boot_tries: int = 3  # hosts on which a guest is tried, one after the other, when the one before refused
    refresh_s: float = 1.0  # how often the placer looks for what other controls have claimed
    stop_grace_s: float = 20.0
    kept_s: float = 7 * 24 * 3600.0  # how long rows of what was deleted or has ended stay
    command_timeout_s: float = 5.0
    long_command_timeout_s: float = 60.0
    owed_patience_s: float = 5.0  # for a step that the guests loop can do later
    start_again_pause_s: float = 600.0  # until a guest that should run, and whose start failed, is started again
    settle_s: float = 10.0  # what is paused on both ends of a move that long is not about to be resumed by itself
    patience_s: float = (
        30.0  # how long an unreachable host is asked again before the saga unwinds or says it is blocked
    )
    retry_s: float = 1.0
    retry_max_s: float = 5.0


@dataclass
class Context:
    """What a step sees. `notes` is the saga's own struct, saved with the cursor."""

    id: str
    kind: SagaKind
    instance_id: str
    project_id: str
    generation: int
    params: dict[str, Any]
    notes: Any
    settings: ControlSettings
    store: Store
    placer: Placer
    send: Callable[[str, str, int, Any, float], Awaitable[Answer]]
    error: str = ""
    host_failed: bool = False  # the step failed because its host refused, or did not answer
    decision: Decision | None = None  # the choice made in the transaction under way, or the one that found no host
    same_since_s: tuple[Any, float] = (None, 0.0)  # what the hosts last said, and since when they say so
    progress_saved_s: float = field(default=-1e9)
    asked: str = ""  # the host that was asked last
    waits_for: str = ""  # what that host says, or that it says nothing: for a story's `blocked`

    async def ask(self, host: str, verb: Any, timeout_s: float | None = None) -> Answer:
        """Command that host about this saga's instance. Raises StepFailed (refused), Unreachable, Stale."""
        timeout_s = timeout_s or self.settings.command_timeout_s
        self.asked = host
        return await self.send(host, self.instance_id, self.generation, verb, timeout_s)


Do = Callable[[Context], Awaitable[None]]
Did = Callable[[Any], bool]
Write = Callable[[Tx, Context], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the story. Exactly one of `do` and `write`; at most one of `undo` and `unwrite`, with `did`: whether
    the notes record that there may be anything to undo. It is recorded before the deed, and read before the undoing:
    what was not done is not undone."""

    name: str
    do: Do | None = None
    write: Write | None = None
    undo: Do | None = None
    unwrite: Write | None = None
    did: Did | None = None
    pivot: bool = False
    harmless: bool = False  # changes nothing outside: needs no undo
    # It only cleans up, and the guests loop finds what it leaves and does it when that host reports again: so a host
    # that is gone for good does not hold the saga, and with it a guest that runs well elsewhere.
    owed: bool = False

    def may_have_done(self, notes: Any) -> bool:
        return self.did is not None and self.did(notes)


@dataclass(frozen=True)
class Saga:
    """The story. `failed` is written with the turn to backward, `undone` with its end (the instance rests again).
    `blocked` is written when patience has ended with a host that does not answer, or refuses what it owes, and nothing
    but asking again is left: what its user is to see meanwhile. Whatever the saga does next takes it back."""

    kind: SagaKind
    notes: type[msgspec.Struct]
    steps: tuple[Step, ...]
    failed: Write
    undone: Write
    blocked: Write | None = None

    def __post_init__(self) -> None:
        pivots = [i for i, step in enumerate(self.steps) if step.pivot]
        assert len(pivots) == 1, f"{self.kind}: exactly one point of no return"
        for i, step in enumerate(self.steps):
            assert (step.do is None) != (step.write is None), f"{step.name}: do or write"
            undoable = step.undo is not None or step.unwrite is not None
            assert undoable == (step.did is not None), f"{step.name}: an undo reads what its step recorded"
            if i < pivots[0]:
                assert undoable or step.harmless, f"{step.name}: before the pivot a step is undoable or harmless"
            else:
                assert not undoable, f"{step.name}: after the pivot nothing is undone"

    @property
    def pivot(self) -> int:
        return next(i for i, step in enumerate(self.steps) if step.pivot)

    def position_of(self, name: str) -> int:
        return next(i for i, step in enumerate(self.steps) if step.name == name)


def guest_of(answer: Answer) -> Guest:
    """The guest in an answer that must carry one."""
    assert answer.guest is not None, "a host answers every verb with the guest as it stands"
    return answer.guest


def must(condition: bool, sentence: str) -> None:
    """Fail the step with that sentence unless `condition` holds."""
    if not condition:
        raise StepFailed(sentence)


class SpecNotes(msgspec.Struct):
    """Notes of a saga that works on one host."""

    host: str = ""
    spec: GuestSpec | None = None
    boot_id: str = ""  # of the host, when the guest was seen to run there
    tries_again: bool = False  # on another host, once it has been undone
    is_left: bool = False  # what is on that host, and the claim with it, for the deletion that comes next
