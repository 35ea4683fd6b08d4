"""Questions that travel: a protocol's methods, declared once, called in this process or in another one.

`@question(...)` on a method of a protocol says what its signature cannot: its name on the wire, how long an answer may
take, and whom to ask first. From that and the type hints follow both ends: `proxy` makes an object that has the
protocol's methods, and `Declared` turns arguments and results into plain values and back.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, get_type_hints

import msgspec

from droveway.domain.faults import BadRequest, Conflict

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
ANSWER_S = 2.0  # for what a control knows by itself
_MARK = "__question__"


class Recipient(StrEnum):
    """Which control is asked. An API that has none beside it asks the failure detector first, then the others."""

    ANY = "any"  # the one beside the API knows it as well as another
    DETECTOR = "detector"  # the failure detector, and the one beside the API when that does not answer
    NAMED = "named"  # the one beside the API; when it does not find it, the one that the first argument names


class _QuestionOptions(NamedTuple):
    name: str
    within_s: float
    recipient: Recipient


def question(name: str, *, within_s: float = ANSWER_S, recipient: Recipient = Recipient.ANY) -> Callable[[F], F]:
    """`name` is what it is called on the wire: it outlives the method's. `within_s`: how long a control may take."""

    def mark(method: F) -> F:
        setattr(method, _MARK, _QuestionOptions(name, within_s, recipient))
        return method

    return mark


class QuestionSignature(NamedTuple):
    """One question, as both ends know it. `rest` is the type of each further argument, where any may follow."""

    method: str
    name: str
    within_s: float
    recipient: Recipient
    arguments: tuple[Any, ...]
    required: int
    rest: Any
    result: Any

    def pack(self, value: Any) -> Any:
        """Arguments or a result as plain values."""
        return msgspec.to_builtins(value)

    def unpack_arguments(self, sent: tuple[Any, ...]) -> list[Any]:
        """Raises BadRequest: the caller runs another version of this program."""
        types = [*self.arguments, *[self.rest] * (len(sent) - len(self.arguments))]
        if len(sent) < self.required or (len(sent) > len(self.arguments) and self.rest is None):
            raise BadRequest(
                f"The question {self.name!r} does not take {len(sent)} arguments here: let API and control be of one "
                "version."
            )
        try:
            return [msgspec.convert(value, kind) for value, kind in zip(sent, types, strict=False)]
        except (msgspec.ValidationError, RecursionError) as error:
            raise BadRequest(
                f"The question {self.name!r} cannot be read here ({error}): let API and control be of one version."
            ) from None

    def unpack_result(self, value: Any) -> Any:
        """Raises Conflict."""
        try:
            return msgspec.convert(value, self.result)
        except (msgspec.ValidationError, RecursionError) as error:
            raise Conflict(
                f"Control answered {self.name!r} with what cannot be read ({error}): let API and control be "
                "of one version."
            ) from None


@lru_cache(64)
def declared(protocol: type) -> tuple[QuestionSignature, ...]:
    """The questions of a protocol, and of those that it extends."""
    found = []
    for method, function in inspect.getmembers(protocol, inspect.isfunction):
        mark: _QuestionOptions | None = getattr(function, _MARK, None)
        if mark is not None:
            found.append(_read(method, function, mark))
    names = [one.name for one in found]
    assert len(names) == len(set(names)), f"two questions of {protocol.__name__} have one name: {sorted(names)}"
    return tuple(found)


def _read(method: str, function: Callable[..., Any], mark: _QuestionOptions) -> QuestionSignature:
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]  # without self
    plain = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    rest = [one for one in parameters if one.kind is one.VAR_POSITIONAL]
    assert len(plain) + len(rest) == len(parameters), f"{method}: arguments travel by their places"
    return QuestionSignature(
        method,
        mark.name,
        mark.within_s,
        mark.recipient,
        tuple(hints[one.name] for one in plain),
        sum(one.default is one.empty for one in plain),
        hints[rest[0].name] if rest else None,
        hints["return"],
    )


SendQuestion = Callable[[QuestionSignature, tuple[Any, ...]], Awaitable[Any]]


def proxy(protocol: type, ask: SendQuestion) -> Any:
    """An object with the questions of the protocol, each of which is put through `ask`."""

    def method(one: QuestionSignature) -> Callable[..., Awaitable[Any]]:
        async def put(_: object, *arguments: Any) -> Any:
            return await ask(one, arguments)

        put.__name__ = one.method
        return put

    return type(f"Remote{protocol.__name__}", (), {one.method: method(one) for one in declared(protocol)})()
