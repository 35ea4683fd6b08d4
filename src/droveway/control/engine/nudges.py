"""Nudges: topics signalled inside one control process. Hints only: every waiter also has an interval."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    def set(self) -> None: ...


class Through:
    """Sets another event, and remembers that it was called."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event, self.was_called = event, False

    def set(self) -> None:
        self.was_called = True
        self._event.set()


class Nudges:
    """Topics and who listens to them."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def call(self, topic: str) -> None:
        for event in self._listeners.get(topic, ()):
            event.set()

    @contextmanager
    def listen(self, *topics: str, event: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """An event (`event`, or a new one) that is set by each call of one of the topics while the block lasts."""
        event = event or asyncio.Event()
        with self.called(event, *topics):
            yield event

    @contextmanager
    def called(self, listener: Listener, *topics: str) -> Iterator[None]:
        for topic in topics:
            self._listeners.setdefault(topic, []).append(listener)
        try:
            yield
        finally:
            for topic in topics:
                listeners = self._listeners[topic]
                listeners.remove(listener)
                if not listeners:
                    del self._listeners[topic]


async def wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Until the event is set, at most `timeout_s`; whether it was set. The event is cleared."""
    if not event.is_set():
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
    event.clear()
    return True
