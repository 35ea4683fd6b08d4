"""What can go wrong, by culprit. A message names the thing and the way out; a bug is an assertion."""

from __future__ import annotations


class Fault(Exception):
    """An error with a message for the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadRequest(Fault):
    """The caller's fault: the request itself is wrong, and asking again will not help."""


class Unauthorized(Fault):
    """The caller's fault: it is not authenticated."""


class Forbidden(Fault):
    """The caller's fault: known, but not allowed."""


class NotFound(Fault):
    """The caller's fault: no such thing, or none that the caller may see."""


class TooLarge(Fault):
    """The caller's fault: more than the stated bound."""


class NoSpace(Fault):
    """Refused by a store: it has no room for that now."""


class StoreRefused(Fault):
    """Refused by a store: its file system does not read or write what is asked of it."""


class Conflict(Fault):
    """Refused by state: the request is well formed but does not fit what is going on now."""


class TooMany(Fault):
    """Refused by a rate: the caller asks too often, and may again in so many seconds."""

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Busy(Fault):
    """Refused by load: a bounded queue is full; the same request may go through later."""


class Unreachable(Fault):
    """The peer did not answer: it may or may not have acted. Never a verdict."""


class StepFailed(Fault):
    """A saga step cannot succeed: the saga must unwind."""


class Stale(Fault):
    """A newer command or control has taken over: stop, and change nothing. `generation`: the newest that the host has
    seen, where it was a host that said so; more than the database knows of only where that was restored from a
    backup."""

    def __init__(self, reason: str, generation: int = 0) -> None:
        super().__init__(reason)
        self.generation = generation


class WrongConfiguration(Fault):
    """The program does not start: says which key, why, and what would be right."""


_SHARED = {kind.__name__: kind for kind in Fault.__subclasses__()}  # those of this file, which every process knows


def shared_name(fault: Fault) -> str:
    """By what type a fault travels to another process: its own when that is one of this file, else what it is one
    of."""
    return next((kind.__name__ for kind in type(fault).__mro__ if _SHARED.get(kind.__name__) is kind), "Conflict")


def of_name(name: str, reason: str) -> Fault:
    """The fault that travelled so. One of a type that only a newer process knows is refused by state."""
    return _SHARED.get(name, Conflict)(reason)
