"""The consoles that a host carries to APIs: one session each, between a guest's console and the API that asked.

A serial line is read however slow its reader is: QEMU lets a guest wait that writes to a line whose client does not
read. What the reader has not taken is kept up to WAITING_MAX_BYTES; beyond that the session ends, not the guest's work.
A line has one client, so a new session takes it over, and the older one is told. A screen has as many as want it; QEMU
itself sends a slow one fewer pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import structlog

from droveway.domain.consoles import ConsoleKind
from droveway.ports.bus import OpenConsole
from droveway.ports.consoles import ConsoleStream, ConsoleUplink, ConsoleUplinks, UplinkRefused
from droveway.ports.hypervisor import Hypervisor, HypervisorRefused

log = structlog.get_logger("droveway.agent")
SESSIONS_MAX = 256  # of a host
WAITING_MAX_BYTES = 1 << 20
TAKEN_OVER = "Another session has taken over this console: a serial line has one at a time."
TOO_SLOW = "The session took what the server wrote too slowly."
ENDS = "The agent of the server's host has ended."
GONE = ""  # the guest's end is gone; why, the API knows


class _TooSlow(Exception):
    """More waits for the reader than is kept."""


class Consoles:
    """Of one host."""

    def __init__(self, host: str, hypervisor: Hypervisor, uplinks: ConsoleUplinks) -> None:
        self._host, self._hypervisor, self._uplinks = host, hypervisor, uplinks
        self._sessions: dict[asyncio.Task[None], _Session] = {}

    async def open(self, instance_id: str, asked: OpenConsole) -> None:
        """Begin a session and go on with it. Raises HypervisorRefused, HypervisorDown."""
        if len(self._sessions) >= SESSIONS_MAX:
            raise HypervisorRefused(f"Host {self._host} carries {SESSIONS_MAX} consoles already; close some first.")
        if asked.kind is ConsoleKind.SERIAL:
            await self._take_over(instance_id)
        stream = await self._hypervisor.open_console(instance_id, asked.kind)
        try:
            uplink = await self._uplinks.connect(asked.url, asked.session)
        except UplinkRefused as fault:
            stream.close()
            raise HypervisorRefused(fault.reason) from None
        except BaseException:
            stream.close()
            raise
        session = _Session(instance_id, asked.kind, stream, uplink)
        task = asyncio.create_task(session.run(), name=f"console of {instance_id}")
        self._sessions[task] = session
        task.add_done_callback(self._sessions.pop)

    async def _take_over(self, instance_id: str) -> None:
        older = [
            task
            for task, one in self._sessions.items()
            if (one.instance_id, one.kind) == (instance_id, ConsoleKind.SERIAL)
        ]
        for task in older:
            self._sessions[task].reason = TAKEN_OVER
            task.cancel()
        if older:
            await asyncio.wait(older)

    async def close(self) -> None:
        tasks = list(self._sessions)
        for task in tasks:
            self._sessions[task].reason = ENDS
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class _Session:
    """`reason`: the sentence with which it ends."""

    def __init__(self, instance_id: str, kind: ConsoleKind, stream: ConsoleStream, uplink: ConsoleUplink) -> None:
        self.instance_id, self.kind, self.reason = instance_id, kind, GONE
        self._stream, self._uplink = stream, uplink
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._has_ended = False

    async def run(self) -> None:
        """Until either end is gone, or this is cancelled; then both are closed."""
        tasks = {asyncio.create_task(work()) for work in (self._read, self._send, self._receive)}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if isinstance(task.exception(), _TooSlow):
                    self.reason = TOO_SLOW
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # retrieved: it has said what it had to
            self._stream.close()
            with contextlib.suppress(ConnectionError):
                await self._uplink.close(self.reason)

    async def _read(self) -> None:
        """Returns when the guest's end is gone and all that it had written is sent."""
        while piece := await self._stream.read():
            self._waiting.append(piece)
            self._bytes += len(piece)
            self._more.set()
            if self._bytes > WAITING_MAX_BYTES:
                raise _TooSlow
            while self.kind is not ConsoleKind.SERIAL and self._waiting:
                self._room.clear()
                await self._room.wait()
        self._has_ended = True
        self._more.set()
        await asyncio.Event().wait()

    async def _send(self) -> None:
        while True:
            while self._waiting:
                piece = self._waiting.popleft()
                self._bytes -= len(piece)
                await self._uplink.send(piece)
                self._room.set()
            if self._has_ended:
                return
            self._more.clear()
            await self._more.wait()

    async def _receive(self) -> None:
        while (data := await self._uplink.receive()) is not None:
            await self._stream.write(data)
