"""A saga: a tuple of steps that ends either all done or all undone, whatever crashes; and the runner of all of them.

Law 3. The undo stands beside the do and exactly one step is the pivot: before it a step is undoable or harmless,
after it there is only forward. A step either asks hosts (`do`) or writes facts (`write`, in the very transaction that
moves the cursor). The generation of the row rises with every save and fences every command that is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from droveway.domain.faults import StepFailed, Unreachable
from droveway.domain.migration_ladder import CopyTarget
from droveway.domain.model import END, START, GuestSpec, SagaKind, Subject, SubjectKind
from droveway.domain.network.quota import NO_NETWORK_LIMITS, NetworkQuotas
from droveway.domain.placement import PlacementSettings
from droveway.domain.service_kinds import COMPUTE
from droveway.ports.verb import VerbWithReply
from droveway.store.engine.transaction import Store, Tx
from droveway.store.volume.attachments import HeldVolume
from droveway.store.work import sagas

if TYPE_CHECKING:
    from droveway.control.engine.pools_seen import PoolsSeen
    from droveway.control.scheduling.placer import Decision, Placer


NOTHING_LEFT = START  # to undo


R = TypeVar("R")


class NotYet(Exception):
    """Nothing is wrong: come back at the latest after `after_s`, or when a nudge says so. `sentence`: what it waits
    for, shown once that takes long. `topic`: what nudges it besides its own saga."""

    def __init__(self, after_s: float, reason: str, topic: str = "") -> None:
        super().__init__(after_s)
        self.after_s, self.reason, self.topic = after_s, reason, topic


class TicketNeeded(NotYet):
    """The host is to be asked again with a ticket for the image that it fetches. `challenge` names the host in it."""

    def __init__(self, after_s: float, reason: str, challenge: str) -> None:
        super().__init__(after_s, reason)
        self.challenge = challenge


class Undecided(Unreachable):
    """No host that answers can say how it goes on: the reason names what may end the wait."""


class TooLate(Exception):
    """An undo found that the pivot has already happened: the saga turns forward again."""


class UnknownStep(Exception):
    """A story has no step of that name, and never had one."""


class NoValidHost(StepFailed):
    """No host was found. A request that may wait for one stands still until there is; otherwise the step has failed."""

    def __init__(self, decision: Decision, reason: str = "", *, may_wait: bool) -> None:
        super().__init__(reason or decision.reason)
        self.decision, self.may_wait = decision, may_wait


class ControlSettings(msgspec.Struct, frozen=True):
    """What the sagas and loops need to know of the configuration."""

    images_path: str  # where every host sees the images; empty: hosts fetch them
    api_urls: tuple[str, ...] = ()  # as hosts reach the APIs
    ticket_key_s: float = 300.0  # how long a key signs tickets, which are good for two to three times that
    placement: PlacementSettings = PlacementSettings()
    copy: CopyTarget = CopyTarget()  # of a live migration, where its server says nothing else
    copies_at_once: int = 4  # away from one host
    boot_tries: int = 3  # hosts on which a guest is tried, one after the other, when the one before refused
    refresh_s: float = 1.0  # how often the placer looks for what other controls have claimed
    network_quotas: NetworkQuotas = NO_NETWORK_LIMITS
    network_patience_s: float = 30.0  # for a host to put a port in force
    stop_grace_s: float = 20.0
    unplug_patience_s: float = 20.0  # for a guest to let go of an interface
    shelved_offload_s: float = 0.0  # until a shelved server leaves its host; 0: at once; below: only when asked
    reclaim_s: float = 0.0  # how long what was deleted can be restored; 0: not at all
    resize_confirm_s: float = 0.0  # until a resize of which nobody says a word is confirmed; 0: it waits
    kept_s: float = 7 * 24 * 3600.0  # how long rows of what was deleted or has ended stay
    command_timeout_s: float = 5.0
    long_command_timeout_s: float = 60.0
    deferred_cleanup_patience_s: float = 5.0  # for a step that the guests loop can do later
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
    subject: Subject
    project_id: str
    generation: int
    params: dict[str, Any]
    notes: Any
    settings: ControlSettings
    store: Store
    placer: Placer
    send: Callable[[str, Subject, int, Any, float, str], Awaitable[Any]]  # commands.py
    pools: PoolsSeen | None = None  # None: nothing is known
    error: str = ""
    host_failed: bool = False  # the step failed because its host refused, or did not answer
    decision: Decision | None = None  # the choice made in the transaction under way, or the one that found no host
    same_since_s: tuple[Any, float] = (None, 0.0)  # what is waited for, or what hosts said; and since when
    watched: Any = None  # what this process has seen of a copy that goes on (control/sagas/copy_phase.py)
    asked: str = ""  # the host that was asked last
    waits_for: str = ""  # what that host says, or that it says nothing: for a story's `blocked`

    above: int = 0  # the fence of what was taken in the transaction under way: its save is above it

    @property
    def instance_id(self) -> str:
        """Of a saga about an instance."""
        assert self.subject.kind is SubjectKind.INSTANCE, f"{self.kind} is about the {self.subject.kind.value}"
        return self.subject.id

    def hold(self, tx: Tx, subject: Subject) -> None:
        """Take one subject more, until this saga has ended: in a `write` step. Raises Conflict when it is in use."""
        self.above = max(self.above, sagas.hold(tx, self.id, subject))

    async def ask(
        self,
        host: str,
        verb: VerbWithReply[R],
        timeout_s: float | None = None,
        about: Subject | None = None,
        service: str = COMPUTE,
    ) -> R:
        """Command that service of that host about this saga's subject, or about one that it holds. Raises StepFailed
        (refused), Unreachable, Stale."""
        timeout_s = timeout_s or self.settings.command_timeout_s
        self.asked = host
        reply: R = await self.send(host, about or self.subject, self.generation, verb, timeout_s, service)
        return reply


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
    needed: Did | None = None  # whether the notes say that there is anything to do; without, there always is
    pivot: bool = False
    harmless: bool = False  # changes nothing outside: needs no undo
    # It only cleans up, and the guests loop finds what it leaves and does it when that host reports again: so a host
    # that is gone for good does not hold the saga, and with it a guest that runs well elsewhere.
    deferred_cleanup: bool = False

    def may_have_done(self, notes: Any) -> bool:
        return self.did is not None and self.did(notes)


@dataclass(frozen=True, slots=True)
class FormerStep:
    """What the name of a step of an older release means now: the step with which a stored saga that stands there goes
    on, or END; and the one that it undoes next, or NOTHING_LEFT."""

    forward: str
    backward: str


def renamed(now: str) -> FormerStep:
    """The same step under another name."""
    return FormerStep(now, now)


@dataclass(frozen=True)
class Saga:
    """The story. `failed` is written with the turn to backward, `undone` with its end (the instance rests again).
    `blocked` is written when a host has not answered, or has refused what must be done, for `patience_s`, and only
    retries are left: what its user is to see meanwhile. The next progress of the saga clears it."""

    kind: SagaKind
    notes: type[msgspec.Struct]
    steps: tuple[Step, ...]
    failed: Write
    undone: Write
    blocked: Write | None = None
    # Stored sagas outlive releases, and a row names the step at which its saga stands. Who renames or drops a step says
    # here what its name means now. A new step needs nothing: a saga that has passed it goes on behind it, and its undo
    # finds in the notes that it was not done. Where the point of no return moves to a later step, the steps between
    # the two are renamed: a row of before that stands at one of them has passed it.
    older: Mapping[str, FormerStep] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pivots = [i for i, step in enumerate(self.steps) if step.pivot]
        assert len(pivots) == 1, f"{self.kind}: exactly one point of no return"
        for i, step in enumerate(self.steps):
            assert (step.do is None) != (step.write is None), f"{step.name}: do or write"
            assert step.needed is None or (step.do is not None and not step.pivot), (
                f"{step.name}: what may be passed over"
            )
            undoable = step.undo is not None or step.unwrite is not None
            assert undoable == (step.did is not None), f"{step.name}: an undo reads what its step recorded"
            if i < pivots[0]:
                assert undoable or step.harmless, f"{step.name}: before the pivot a step is undoable or harmless"
            else:
                assert not undoable, f"{step.name}: after the pivot nothing is undone"
        names = [step.name for step in self.steps]
        assert len(set(names)) == len(names), f"{self.kind}: a name is one step's"
        assert not {START, END} & set(names), f"{self.kind}: a word of the cursor is no step's name"
        for name, now in self.older.items():
            assert name not in names, f"{self.kind}: {name} is a step of now and an older name"
            assert now.forward in {*names, END}, f"{self.kind}: {name} goes on with no step"
            assert now.backward in {*names, NOTHING_LEFT}, f"{self.kind}: {name} is undone from no step"

    @property
    def pivot(self) -> int:
        return next(i for i, step in enumerate(self.steps) if step.pivot)

    def position_of(self, name: str, *, backward: bool = False) -> int:
        """Where among the steps a row that names this one stands: 0 at the START, past the last step at the END, -1
        where nothing is left to undo. Raises UnknownStep."""
        now = self.older.get(name)
        if now is not None:
            name = now.backward if backward else now.forward
        if name == START:
            return -1 if backward else 0
        if name == END:
            return len(self.steps)
        for i, step in enumerate(self.steps):
            if step.name == name:
                return i
        raise UnknownStep(name)

    def name_of(self, position: int) -> str:
        """The cursor that is stored for it."""
        if position < 0:
            return NOTHING_LEFT
        return self.steps[position].name if position < len(self.steps) else END


def require(condition: bool, reason: str) -> None:
    """Fail the step with that sentence unless `condition` holds."""
    if not condition:
        raise StepFailed(reason)


class SpecNotes(msgspec.Struct):
    """Notes of a saga that works on one host."""

    host: str = ""
    spec: GuestSpec | None = None
    has_ports: bool = False  # they were made, or taken
    network_revision: int = 0  # that has them bound to the host; 0: they are not
    boot_id: str = ""  # of the host, when the guest was seen to run there
    immovable: str = ""  # why its guest could move to no other host, as it was placed
    tries_again: bool = False  # on another host, once it has been undone
    is_left: bool = False  # what is on that host, and the claim with it, for the deletion that comes next
    volumes: tuple[HeldVolume, ...] = ()  # of the server
    root_pool: str = ""  # where its root disk lies, that goes with it
