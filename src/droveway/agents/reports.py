"""Makes a host's reports: at once when something has changed, and a full one with what is measured now and then.

A change raises the report's generation. It is kept beside the fences and is never below the clock's seconds, so that it
rises over restarts of the agent, and over the loss of its files too.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from droveway.agents.fences import REPORT, Fence, Fences
from droveway.domain.model import Guest, Resources
from droveway.domain.resources import REASON_MAX, HostUsage, without_free_amounts
from droveway.domain.service_kinds import COMPUTE
from droveway.periodic.tasks import PeriodicTasks
from droveway.ports.bus import Report
from droveway.ports.clock import Clock
from droveway.ports.hypervisor import Hypervisor, HypervisorDown, HypervisorRefused

T = TypeVar("T")

FULL_S = 60.0
LOOK_S = 10.0  # between two looks at what the hypervisor has
TROUBLED_S = 2.0  # the same while its instance store, or its pool of root disks, cannot be used
AGAIN_S = 1.0
ANSWERS_WITHIN_S = 15.0  # each question to the hypervisor: a report is sent without what was not answered
VERB = "report"
Gist = tuple[bool, str, Resources | None]


class Reports:
    """`notify` sends a message to control. `ask()` makes a full report due now."""

    def __init__(
        self,
        host: str,
        boot_id: str,
        hypervisor: Hypervisor,
        fences: Fences,
        clock: Clock,
        off_loop: Callable[[Callable[[], None]], Awaitable[None]],
        tasks: PeriodicTasks | None,
        notify: Callable[[Report], None],
    ) -> None:
        self._host, self._boot_id, self._hypervisor = host, boot_id, hypervisor
        self._fences, self._clock, self._off_loop, self._tasks, self._notify = fences, clock, off_loop, tasks, notify
        self._due = asyncio.Event()
        self._sent: Gist | None = None  # since this agent started
        self._generation, self._sequence = 0, 0
        self._look_s = LOOK_S
        self.connected = (False, "the agent has not reached the hypervisor yet")
        self._asked: dict[str, asyncio.Task[Any]] = {}  # what the hypervisor has not answered yet

    def ask(self) -> None:
        self._due.set()

    async def run(self) -> None:
        """Until cancelled. Hosts that were welcomed together do not report together for ever."""
        share = zlib.crc32(self._host.encode()) / 2**32
        full_at_s = self._clock.monotonic_s() + FULL_S
        wait_s = LOOK_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, max(0.0, full_at_s - self._clock.monotonic_s()))):
                    await self._due.wait()
            is_asked, now_s = self._due.is_set(), self._clock.monotonic_s()
            is_full = is_asked or now_s >= full_at_s or self._sent is None
            self._due.clear()
            report = await self._make(is_full)
            if report is not None:
                self._notify(report)
            if is_full:
                full_at_s = now_s + (FULL_S * (1 + share) / 2 if is_asked else FULL_S)
            # A hypervisor that is connected and would not say may in a moment; one that is not will say that it is.
            wait_s = AGAIN_S if self.connected[0] and report is not None and not report.is_complete else self._look_s

    async def full(self) -> Report:
        """As it is now."""
        report = await self._make(is_full=True)
        assert report is not None, "a full report is made whatever has changed"
        return report

    async def _make(self, is_full: bool) -> Report | None:
        """None: not full, and nothing has changed."""
        h = self._hypervisor
        is_up, reason = self.connected
        resources: Resources | None = None
        guests, admitted, measured = tuple[Guest, ...](), tuple[str, ...](), None
        try:
            resources = await self._answer("what it has", h.resources)
            self._look_s = TROUBLED_S if resources.store_trouble else LOOK_S
            is_changed = await self._raise(True, reason, resources)
            if not is_full and not is_changed:
                return None
            guests = tuple((await self._answer("its guests", h.guests)).values())
            admitted = await self._answer("the guests it expects", h.admitted)
            measured = await self._measure() if is_full else None
            is_up = True
        except (HypervisorDown, HypervisorRefused) as fault:
            trouble = (fault.reason if is_up else reason)[:REASON_MAX]  # a hypervisor may tell whole logs
            if not await self._raise(False, trouble, None) and not is_full:
                return None
            return self._report(False, trouble, None)
        return self._report(True, reason, resources, guests, admitted, measured)

    async def _measure(self) -> HostUsage | None:
        """Only for people: a report without it is one."""
        try:
            return await self._answer("what is used", self._hypervisor.measure)
        except HypervisorDown:
            return None

    async def _answer(self, what: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Raises HypervisorDown when it takes too long. What has not been answered is not asked again: a hypervisor, or
        its store, that hangs would take one worker after the other."""
        task = self._asked.get(what)
        if task is None:
            task = self._asked[what] = asyncio.create_task(ask(), name=f"report: {what}")
            task.add_done_callback(lambda done: self._answered(what, done))
        await asyncio.wait({task}, timeout=ANSWERS_WITHIN_S)
        if not task.done():
            raise HypervisorDown(
                f"The hypervisor has not answered for more than {ANSWERS_WITHIN_S:.0f} s when it was asked for {what}."
            )
        answer: T = task.result()
        return answer

    def _answered(self, what: str, task: asyncio.Task[Any]) -> None:
        del self._asked[what]
        if not task.cancelled():
            task.exception()  # retrieved: the waiters have it too

    def _report(
        self,
        is_up: bool,
        reason: str,
        resources: Resources | None,
        guests: tuple[Guest, ...] = (),
        admitted: tuple[str, ...] = (),
        measured: HostUsage | None = None,
    ) -> Report:
        self._sequence += 1
        tasks = () if self._tasks is None else self._tasks.metrics(self._host, COMPUTE)
        return Report(
            self._host,
            self._boot_id,
            self._sequence,
            is_up,
            reason,
            resources,
            guests,
            is_up,
            admitted,
            tasks,
            self._generation,
            measured,
        )

    async def _raise(self, is_up: bool, reason: str, resources: Resources | None) -> bool:
        """Whether this is another thing than was told last: then it has a generation of its own, kept first."""
        gist = (is_up, reason, without_free_amounts(resources))
        if gist == self._sent:
            return False
        kept = max(self._generation, self._fences.read(REPORT).generation)
        generation = max(kept + 1, self._clock.now_us() // 1_000_000)
        with contextlib.suppress(OSError):  # a full disk keeps no report back
            await self._off_loop(lambda: self._fences.write(REPORT, Fence(generation, VERB)))
        self._sent, self._generation = gist, generation
        return True
