"""The mark `@periodic`, and what carries it. A mark only says when: droveway.periodic.tasks does the running."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__periodic__"


class TaskOptions(NamedTuple):
    """Each turn begins at random within its first `jitter` * `every_s`."""

    every_s: float
    jitter: float = 0.1
    run_on_start: bool = False
    in_process: bool = False
    timeout_s: float | None = None


class PeriodicFunction(NamedTuple):
    name: str
    mark: TaskOptions
    function: Callable[[], Any]


def periodic(
    *,
    every_s: float,
    jitter: float = 0.1,
    run_on_start: bool = False,
    in_process: bool = False,
    timeout_s: float | None = None,
) -> Callable[[F], F]:
    """Carry the function out every `every_s` seconds. It takes nothing. It is async; or, with `in_process`, a plain
    function of a module, which may block: it runs in a process of its own, killed after `timeout_s`."""
    assert every_s > 0 and 0 <= jitter <= 1, "every_s is above 0, jitter from 0 to 1"
    assert timeout_s is None or timeout_s > 0, "timeout_s is above 0"
    assert timeout_s is not None or not in_process, "what runs in a process needs a timeout_s"
    mark = TaskOptions(every_s, jitter, run_on_start, in_process, timeout_s)

    def put(function: F) -> F:
        name = function.__qualname__
        assert in_process != inspect.iscoroutinefunction(function), f"{name}: async in the loop, plain in a process"
        assert not in_process or "." not in name, f"{name}: another process finds only a function of a module"
        setattr(function, _MARK, mark)
        return function

    return put


def collect(owner: object) -> list[PeriodicFunction]:
    """What is marked in that object or module, by name. What a module has only imported is not its own."""
    found = []
    for name in sorted(dir(owner)):
        held = inspect.getattr_static(owner, name, None)  # a property must not be asked for its value
        mark = getattr(held, _MARK, None) if inspect.isfunction(held) else None
        is_own = not isinstance(owner, ModuleType) or getattr(held, "__module__", "") == owner.__name__
        if mark is not None and is_own:
            found.append(PeriodicFunction(name.lstrip("_"), mark, getattr(owner, name)))
    return found
