"""What a control answers to the APIs and controls of other processes: the table of questions, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from droveway.domain.faults import Fault, NotFound
from droveway.ports.bus import Question, Reply

log = structlog.get_logger("droveway.questions")
WHY, CONSOLE, TASKS, METRICS = "why", "console", "tasks", "metrics"
HEARD = "heard"
TRY, REPLAY, AUDIT, REPAIR = "try", "replay", "audit", "repair"
# How long control may take over an answer; whoever asks from afar waits a little longer.
CONSOLE_TIMEOUT_S = 5.0
LIST_TASKS_TIMEOUT_S = 3.0
LOOK_MAX_S = 8.0  # hosts that have not been asked by then are said not to have been looked at
COMPARE_MAX_S = 8.0  # a repair looks, repairs and looks: together it ends before a client gives up
AUDIT_S = LOOK_MAX_S + 2.0
REPAIR_S = 2 * AUDIT_S + COMPARE_MAX_S

Answerer = Callable[..., Awaitable[Any]]


class Questions:
    """Each function takes and returns plain values; its faults travel by the name of their type."""

    def __init__(self, answerers: Mapping[str, Answerer]) -> None:
        self._answerers = answerers

    async def __call__(self, question: Question) -> Reply:
        answer = self._answerers.get(question.about)
        if answer is None:
            return _fault(
                NotFound(
                    f"This control does not know the question {question.about[:64]!r}: it is older "
                    "than the API that asks; upgrade it."
                )
            )
        try:
            return Reply(await answer(*question.arguments))
        except Fault as fault:
            return _fault(fault)


def _fault(fault: Fault) -> Reply:
    return Reply(fault=type(fault).__name__, sentence=fault.sentence)
