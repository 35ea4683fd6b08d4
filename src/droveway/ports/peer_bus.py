"""How controls and APIs of one cloud talk to each other: nudges, which are hints, and questions, which end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec


class Question(msgspec.Struct, frozen=True):
    """What an API, or another control, asks a control. `arguments` are plain values."""

    about: str
    arguments: tuple[Any, ...] = ()


class Reply(msgspec.Struct, frozen=True):
    """The value; or the name of a type of fault, with its sentence."""

    value: Any = None
    fault: str = ""
    reason: str = ""


class PeerBus(Protocol):
    """An end among the controls and APIs of one cloud. Only a bus with a broker has one: on the socket bus there is one
    control, with its API in the same process."""

    async def serve(
        self,
        name: str,
        on_nudge: Callable[[str], None],
        on_question: Callable[[Question], Awaitable[Reply]] | None = None,
    ) -> None:
        """Hear the nudges of the others; and, with `on_question`, the questions to the control of that name."""
        ...

    async def ask(self, control: str, question: Question, timeout_s: float) -> Reply:
        """Ends like a command: a Reply, or `Unreachable` at the latest after `timeout_s`, at once when there is no
        control of that name."""
        ...

    def nudge(self, topic: str) -> None:
        """A hint to all others. Topics called out together travel together, each once."""
        ...

    async def close(self) -> None: ...
