"""The bytes of a console, on their way from a guest to whoever looks at it.

    page of the user ── websocket ── API ── ConsoleUplink, opened by the agent ── agent ── ConsoleStream ── guest

Guarantees that every driver gives (tests/drivers/test_consoles_contract.py):
- bytes arrive whole and in order, or the end is told; what is read is bounded by PIECE_BYTES;
- a serial line is read however slow its reader is, so that no guest waits for one (agents/consoles.py);
- an uplink goes to the API that was named and to nobody else, and shows whose host it comes from.
"""

from __future__ import annotations

from typing import Protocol

from droveway.domain.faults import Fault


class UplinkRefused(Fault):
    """The API was not reached, or does not take this session."""


class ConsoleStream(Protocol):
    """One client of a guest's console."""

    async def read(self) -> bytes:
        """What comes next; empty once the guest's end is gone."""
        ...

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError once the guest's end is gone."""
        ...

    def close(self) -> None: ...


class ConsoleUplink(Protocol):
    """The way of one session from the host to the API."""

    async def receive(self) -> bytes | None:
        """What the user's end sends; None once the session is over."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError once the session is over."""
        ...

    async def close(self, reason: str = "") -> None:
        """End the session, with the sentence why."""
        ...


class ConsoleUplinks(Protocol):
    async def connect(self, url: str, session: str) -> ConsoleUplink:
        """To the API at that URL, for the session of that secret name. Raises UplinkRefused."""
        ...
