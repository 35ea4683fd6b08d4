"""The end of a control at which the questions of other processes arrive (ports/control.py)."""

from __future__ import annotations

from typing import Any

from droveway.domain import faults
from droveway.domain.faults import Fault, NotFound
from droveway.ports.asking import declared
from droveway.ports.control import ControlQueries
from droveway.ports.peer_bus import Question, Reply


class Questions:
    """`answers` implements the protocol. Plain values come in and go out; faults go out by the name of their type."""

    def __init__(self, answers: Any, protocol: type = ControlQueries) -> None:
        self._known = {one.name: (one, getattr(answers, one.method)) for one in declared(protocol)}
        missing = [
            one.method
            for one in declared(protocol)
            if getattr(type(answers), one.method, None) is getattr(protocol, one.method)
        ]
        assert not missing, f"{type(answers).__name__} does not answer {', '.join(missing)}"

    async def __call__(self, question: Question) -> Reply:
        one, answer = self._known.get(question.about, (None, None))
        if one is None or answer is None:
            return _fault(
                NotFound(
                    f"This control does not know the question {question.about[:64]!r}: it is older "
                    "than the API that asks; upgrade it."
                )
            )
        try:
            return Reply(one.pack(await answer(*one.unpack_arguments(question.arguments))))
        except Fault as fault:
            return _fault(fault)


def _fault(fault: Fault) -> Reply:
    return Reply(fault=faults.shared_name(fault), reason=fault.reason)
