"""A service that obeys fenced commands: about one subject one after the other, each once.

A newer generation waits for the older call in flight and goes on from what it left; an older one is refused; the same
one again is answered from memory. What each service does, and how it answers again, is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from droveway.agents.fences import Fence, Fences
from droveway.domain.model import Subject
from droveway.ports.bus import READ_ONLY, Command, Verb
from droveway.ports.clock import Clock
from droveway.ports.replies import FAILURES, Answer, Refused, StaleFence, Unavailable, Working

ANSWER_S = 3.0  # a command that takes longer is answered with `working`
WORKS_MAX_S = 3600.0  # one that takes longer is as good as unanswered: an image is copied in that time
OffLoop = Callable[[Callable[[], None]], Awaitable[None]]


async def in_thread(call: Callable[[], None]) -> None:
    await asyncio.to_thread(call)


class FencedAgent:
    """`off_loop` runs a short blocking call (an fsync) where it does not stall the loop."""

    LOOKS: tuple[type, ...] = ()  # a repeated one of these is carried out again: its answer carries what it saw
    ENDS: tuple[type, ...] = ()  # once one of these is answered its subject may be made elsewhere under the same name
    NOUN = "subject"
    WORKS_MAX_S = WORKS_MAX_S

    def __init__(self, fences: Fences, clock: Clock, off_loop: OffLoop = in_thread) -> None:
        self._fences, self._clock, self._off_loop = fences, clock, off_loop
        self._turns: dict[Subject, _SubjectLock] = {}
        # Commands being carried out, by subject, and since when.
        self._working: dict[Subject, tuple[asyncio.Task[Answer], float]] = {}

    # -- of each service ----------------------------------------------------------------------------------------------
    async def _act(self, command: Command) -> Answer:
        raise NotImplementedError

    async def _answer_again(self, command: Command, fence: Fence) -> Answer:
        """What was done by that very command already."""
        raise NotImplementedError

    def _trouble(self) -> str:
        """Why nothing that is under way may end; empty while that is not so."""
        return ""

    def _progress(self, verb: Verb) -> str:
        """What it is at, of a verb that may take long; empty of one that is waited for."""
        return ""

    def _named(self, verb: Verb) -> str:
        """What tells a command from others of its generation about the same subject."""
        return type(verb).__name__

    def end_work(self) -> None:
        for task, _ in self._working.values():
            task.cancel()

    # -- of all -------------------------------------------------------------------------------------------------------
    async def execute(self, command: Command) -> Answer:
        """Carry the command out, once. Always answers."""
        if isinstance(command.verb, READ_ONLY):
            return await self._act(command)
        async with self._turn(command.subject):
            return await self._execute_in_turn(command)

    async def _execute_in_turn(self, command: Command) -> Answer:
        subject, verb = command.subject, self._named(command.verb)
        fence = self._fences.read(subject)
        if self._is_stale(command, fence):
            reason = f"generation {command.generation} is older than {fence.generation}"
            return StaleFence(reason, fence.generation)
        working = self._working.get(subject)
        if working is not None and (command.generation, verb) != (fence.generation, fence.verb):
            # Of an older generation: it is adopted, not raced with. Its caller has gone; so has its outcome.
            _, pending = await asyncio.wait({working[0]}, timeout=ANSWER_S)
            if pending:
                return self._hung(subject) or Working(f"an earlier command about this {self.NOUN} is at work")
        again = command.generation == fence.generation and fence.verb == verb and fence.outcome != ""
        if again and not isinstance(command.verb, self.LOOKS):
            return await self._answer_again(command, fence)
        if command.generation > fence.generation or fence.verb != verb:
            begun = Fence(command.generation, verb)
            try:
                await self._off_loop(lambda: self._fences.write(subject, begun))
            except OSError as error:  # what is not on the disk must not be acted on
                return Unavailable(f"the fence cannot be written ({error.strerror}): nothing was done")
        return await self._wait_for(command)

    async def _wait_for(self, command: Command) -> Answer:
        """The command is carried out however long it takes, and a repeated command joins it; the answer waits no longer
        than it can be said what is being made, or than what it needs answers."""
        subject = command.subject
        task, _ = self._working.get(subject, (None, 0.0))
        if task is None or task.done():
            task = asyncio.create_task(self._carry_out(command))
            self._working[subject] = task, self._clock.monotonic_s()
            task.add_done_callback(lambda done: self._worked(subject, done))
        while True:
            await asyncio.wait({task}, timeout=ANSWER_S)
            if task.done():
                return task.result()
            hung = self._hung(subject)
            if hung is not None:
                return hung
            if progress := self._progress(command.verb):
                return Working(progress)

    def _hung(self, subject: Subject) -> Answer | None:
        """Why control should not wait for what is carried out there."""
        trouble = self._trouble()
        _, since_s = self._working[subject]
        if not trouble and self._clock.monotonic_s() - since_s > self.WORKS_MAX_S:
            trouble = (
                f"a command about this {self.NOUN} has been at work for more than {self.WORKS_MAX_S / 60:.0f} minutes"
            )
        return Unavailable(trouble) if trouble else None

    def _worked(self, subject: Subject, task: asyncio.Task[Answer]) -> None:
        if subject in self._working and self._working[subject][0] is task:
            del self._working[subject]
        if not task.cancelled():
            task.exception()  # retrieved: the waiters have it too

    async def _carry_out(self, command: Command) -> Answer:
        """The result is kept for a repeated command: there may be no waiter left."""
        subject, answer = command.subject, await self._act(command)
        outcome = "refused" if isinstance(answer, Refused) else "" if isinstance(answer, FAILURES) else "ok"
        if outcome:
            reason = answer.reason if isinstance(answer, Refused) else ""
            done = Fence(command.generation, self._named(command.verb), outcome, reason)
            if isinstance(command.verb, self.ENDS) and outcome == "ok":
                return await self._removed(subject, done, answer)
            with contextlib.suppress(OSError):  # only a repeat would miss it, and carries out an idempotent verb again
                self._fences.note(subject, done)
        return answer

    async def _removed(self, subject: Subject, done: Fence, answer: Answer) -> Answer:
        """A doubled message that comes late must not delete what was made after this answer, whatever happened here
        meanwhile."""
        try:
            await self._off_loop(lambda: self._fences.write(subject, done))
        except OSError as error:
            return Unavailable(f"it was removed, but the fence cannot be written ({error.strerror})")
        return answer

    def _is_stale(self, command: Command, fence: Fence) -> bool:
        """The fence: a command below the highest generation seen is of a replaced owner."""
        return command.generation < fence.generation

    def _turn(self, subject: Subject) -> _SubjectLock:
        turn = self._turns.get(subject)
        if turn is None:
            turn = self._turns[subject] = _SubjectLock(self._turns, subject)
        return turn


class _SubjectLock:
    """A lock a subject, kept only while it is held or waited for."""

    def __init__(self, turns: dict[Subject, _SubjectLock], subject: Subject) -> None:
        self._turns, self._subject = turns, subject
        self._lock = asyncio.Lock()
        self._users = 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except asyncio.CancelledError:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            del self._turns[self._subject]
