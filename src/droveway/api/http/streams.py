"""What the open event streams share: who is woken, when all of them end, and what was written for one and fits all."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from droveway.store.engine.transaction import Store, Tx
from droveway.store.rows import EventRow
from droveway.store.work import events

STREAMS_MAX = 64
BATCH_MAX = 500  # events in one piece; the next ones are read once the client has taken these
PIECES_KEPT = 8


class Streams:
    """In a storm every stream tells the same thousands of events: each piece of them is read and written once."""

    def __init__(self) -> None:
        self.is_ending = False
        self.listening: set[asyncio.Event] = set()  # one a stream, set when there may be news
        self._pieces: dict[int, tuple[bytes, int]] = {}  # full ones, by the cursor they begin behind
        self._one_reads = asyncio.Lock()

    @property
    def are_full(self) -> bool:
        return len(self.listening) >= STREAMS_MAX

    def wake(self) -> None:
        for woken in self.listening:
            woken.set()

    def end(self) -> None:
        """What would go on for ever ends now: the program is told to stop."""
        self.is_ending = True
        self.wake()

    async def piece(self, store: Store, cursor: int) -> tuple[bytes, int]:
        """What was recorded after `cursor`, at most BATCH_MAX events of it, and where to go on."""
        async with self._one_reads:
            if cursor not in self._pieces:
                piece, on, is_full = await store.read(_read, cursor)
                if on < cursor:
                    self._pieces.clear()  # a history that has begun anew
                if not is_full:
                    return piece, on
                if len(self._pieces) >= PIECES_KEPT:
                    del self._pieces[next(iter(self._pieces))]
                self._pieces[cursor] = piece, on
            return self._pieces[cursor]


def _read(tx: Tx, cursor: int) -> tuple[bytes, int, bool]:
    found, on = events.after(tx, events.SERVICE, cursor, BATCH_MAX)
    return b"".join(map(_as_text, found)), on, len(found) == BATCH_MAX


def _as_text(event: EventRow) -> bytes:
    return f"id: {event['id']}\nevent: service\ndata: ".encode() + msgspec.json.encode(transition(event)) + b"\n\n"


def transition(event: EventRow) -> dict[str, Any]:
    """`became`: up, down, registered, deleted, or what an operator set; `state`: the failure detector's, if any."""
    host, _, binary = event["subject_id"].rpartition("/")
    body = event["body"]
    became, because = body.get("became", ""), body.get("because", "")
    if "set" in body:
        became, because = _as_set(body["set"]), body["set"].get("disabled_reason") or ""
    return {
        "host": host,
        "binary": binary,
        "became": became,
        "state": body.get("state"),
        "because": because,
        "at_us": event["at_us"],
    }


def _as_set(values: dict[str, Any]) -> str:
    """What an operator said."""
    changes = []
    if "disabled" in values:
        changes.append("disabled" if values["disabled"] else "enabled")
    if "forced_down" in values:
        changes.append("forced down" if values["forced_down"] else "no longer forced down")
    return ", ".join(changes)
