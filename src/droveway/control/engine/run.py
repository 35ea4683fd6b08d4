"""One saga that a process runs, and what is recorded of its placements."""

from __future__ import annotations

from droveway.control.engine.saga import Context, Saga, Step
from droveway.control.scheduling.placer import Decision
from droveway.domain.model import SagaKind, SagaStatus
from droveway.domain.placement import PlacementSettings
from droveway.ports.clock import Clock
from droveway.store.compute import placements
from droveway.store.engine.transaction import Tx
from droveway.store.rows import SagaRow

CANCEL_LOOK_S = 2.0


class Run:
    """One saga that this process runs: the row as it was last seen, and the context of its steps."""

    def __init__(self, row: SagaRow, story: Saga, context: Context) -> None:
        self.id = str(row["id"])
        self.subject = context.subject
        self.project_id = str(row["project_id"])
        self.request_id = str(row["request_id"])
        self.generation = int(row["generation"])
        self.status = SagaStatus(row["status"])
        going = row["broken_while"] if self.status is SagaStatus.BROKEN else self.status
        self.position = story.position_of(row["step"], backward=going == SagaStatus.BACKWARD)
        self.cancel: str | None = row["cancel"]
        self.blocked: str | None = row["blocked"]
        self.story = story
        self.context = context
        self.asked_at_us = int(row["params"].get("asked_at_us", row["created_at_us"]))
        self.silent_since_s: float | None = None  # since when a host has not answered
        self.waits_since_s: float | None = None  # since when a step says that it is not done yet
        self.blocked_by = ""  # the kind of wait that `blocked` tells of
        self.gives_up_s: float | None = None  # when it stops waiting for capacity
        self.was_woken = False  # because there seemed to be capacity for it
        self.retries = 0
        self.caught_up: set[str] = set()  # hosts whose generation the row was lifted above
        self.began_s = 0.0
        self.cancel_looked_s = -CANCEL_LOOK_S

    @property
    def log_keys(self) -> dict[str, str]:
        """What log lines about it are filtered by, such as `saga=`, `instance=` and `request_id=`."""
        keys = {"saga": self.id, self.subject.kind.value: self.subject.id}
        return keys | {"request_id": self.request_id} if self.request_id else keys

    @property
    def step(self) -> Step:
        return self.story.steps[self.position]

    @property
    def at(self) -> str:
        """The cursor of its row."""
        return self.story.name_of(self.position)

    @property
    def undoes(self) -> bool:
        """There is something to ask a host for at the step to undo. There always is, but where an older release has
        left it."""
        return self.position >= 0 and self.step.undo is not None and self.step.may_have_done(self.context.notes)

    @property
    def writes_once(self) -> bool:
        """This step writes, and no other can be merged with it."""
        after = self.story.steps[self.position + 1 :]
        return self.step.write is not None and (not after or after[0].write is None)

    def left_to_wait_s(self, wait_s: float, clock: Clock) -> float:
        """How much longer a request that may wait `wait_s` for room waits. It may have begun to in a process before
        this one, whose clock may be another: so never longer than that from here on."""
        now_s = clock.monotonic_s()
        if self.gives_up_s is None:
            waited_s = (clock.now_us() - self.asked_at_us) / 1e6
            self.gives_up_s = now_s + min(max(wait_s - waited_s, 0.0), wait_s)
        return self.gives_up_s - now_s


def record(tx: Tx, run: Run, decision: Decision, settings: PlacementSettings) -> None:
    """Why that host, or why none: in the transaction of the claim, or of the failure."""
    is_first = run.story.kind is SagaKind.BOOT and run.blocked is None and "failed" not in run.context.params
    body = decision.body(run.story.kind.value, settings)
    placements.record(tx, run.context.instance_id, run.id, run.project_id, decision.host, body, is_first=is_first)
