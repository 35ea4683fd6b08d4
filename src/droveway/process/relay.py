"""Nudges across processes: what is committed here is called out there, and the other way round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from droveway.ports.peer_bus import PeerBus, Question, Reply
from droveway.store.engine.transaction import DiskStore


class Relay:
    """Between a store's commits and the other processes on that store. Without a bus between them it does nothing."""

    def __init__(self, store: DiskStore, peers: PeerBus | None) -> None:
        self._store, self._peers = store, peers
        self._is_hearing = False
        store.on_commit(self._on_commit)

    async def serve(self, name: str, on_question: Callable[[Question], Awaitable[Reply]] | None = None) -> None:
        if self._peers is not None:
            await self._peers.serve(name, self._on_topic, on_question)

    async def close(self) -> None:
        if self._peers is not None:
            await self._peers.close()

    def _on_commit(self, topic: str) -> None:
        if self._peers is not None and not self._is_hearing:
            self._peers.nudge(topic)

    def _on_topic(self, topic: str) -> None:
        self._is_hearing = True  # it is not sent back
        try:
            self._store.call_out(topic)
        finally:
            self._is_hearing = False
