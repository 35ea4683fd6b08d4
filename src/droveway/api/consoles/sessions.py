"""Sessions of consoles at this API: begun with a token, carried between a page and a host, watched, and ended with a
sentence.

    wanted    a page has come with a good token, which is used up; the host is asked for the console
    open      the host has come; bytes go both ways
    over      the page has left; or the guest has; or the right to it has; or nothing was said for too long

What a session hangs on (the server and its host, the user and the role) is looked at every CHECK_S for all of them
together, so that it ends within that time by whatever way it was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable

import structlog

from droveway.api.http.request import Receive, Send
from droveway.config.consoles import ConsoleConfig
from droveway.domain.consoles import ASK_AGAIN, ConsoleGrant, ConsoleKind, last_words
from droveway.domain.faults import Busy, Conflict, Unreachable
from droveway.ports.clock import Clock, Names
from droveway.ports.control import ControlQueries
from droveway.store.compute import console_tokens
from droveway.store.engine.transaction import Store
from droveway.store.identity import accounts

log = structlog.get_logger("droveway.console")
CHECK_S = 2.0
SPEAKS_S = 15.0  # within which the viewer of a screen answers its greeting
ARRIVES_S = 5.0  # a host, after it was asked
END_STEP_S = 0.01
WHY_S, WHY_STEP_S = 3.0, 0.2  # how long is waited for the store to know why a guest's end is gone
OVER, REFUSED = 1000, 1008  # codes of websockets
NO_WAY = (
    "Consoles are not carried to this API: it has no listener to which hosts bring them; set api.agents_listen "
    "(and let its hosts join), or run control, API and agents as one."
)
ENDED = f"The console has ended on the server's host, as it does when the server restarts: {ASK_AGAIN}."
STOPS = f"The API is being stopped: {ASK_AGAIN}."


class Channel:
    """One websocket, as ASGI has it. `reason`: the sentence with which its other end has closed it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.reason = ""
        self._is_closed = False

    async def accept(self, protocol: str | None = None) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": protocol, "headers": []})

    async def receive(self) -> bytes | None:
        """None once the other end has gone."""
        while not self._is_closed:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self.reason, self._is_closed = message.get("reason") or "", True
            elif message["type"] == "websocket.receive":
                text = message.get("text")
                return text.encode() if text is not None else bytes(message.get("bytes") or b"")
        return None

    async def send(self, data: bytes) -> None:
        """Raises OSError once the other end has gone."""
        if self._is_closed:
            raise ConnectionResetError
        await self._send({"type": "websocket.send", "bytes": data})

    async def close(self, code: int, reason: str) -> None:
        if not self._is_closed:
            self._is_closed = True
            with contextlib.suppress(OSError):
                await self._send({"type": "websocket.close", "code": code, "reason": last_words(reason)})


class Session:
    """`reason`: why it is over, once it is; empty: its user has left."""

    def __init__(self, number: int, grant: ConsoleGrant, clock: Clock) -> None:
        self.number, self.grant, self._clock = number, grant, clock
        self.host: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.reason = ""
        self.has_spoken = False  # its user's end
        self.began_s = self.last_s = clock.monotonic_s()

    def end(self, reason: str) -> None:
        if not self.over.is_set():
            self.reason = reason
            self.over.set()

    async def carry(self, page: Channel, host: Channel) -> bool:
        """Until one of them has gone, or it is ended. True when it was the host's end that has gone."""

        async def up() -> None:
            while (data := await page.receive()) is not None:
                self.has_spoken, self.last_s = True, self._clock.monotonic_s()
                await host.send(data)

        async def down() -> None:
            while (data := await host.receive()) is not None:
                self.last_s = self._clock.monotonic_s()
                await page.send(data)

        going = asyncio.create_task(up()), asyncio.create_task(down())
        over = asyncio.create_task(self.over.wait())
        try:
            await asyncio.wait({*going, over}, return_when=asyncio.FIRST_COMPLETED)
            # Each ends in order when the end that it reads from has gone, and with an OSError when the other one has.
            upwards, downwards = (None if not task.done() else task.exception() or "ended" for task in going)
            return downwards == "ended" or isinstance(upwards, OSError)
        finally:
            for task in (*going, over):
                task.cancel()
            await asyncio.wait({*going, over})


class ConsoleSessions:
    """Of this API. `uplink`: what hosts are told of where it is; empty: no console reaches it."""

    def __init__(
        self, store: Store, control: Callable[[], ControlQueries], clock: Clock, names: Names, bounds: ConsoleConfig
    ) -> None:
        self._store, self._control, self._clock, self._names, self.bounds = store, control, clock, names, bounds
        self.uplink = ""
        self._open: dict[str, Session] = {}  # by the hash of its secret name
        self._begun = 0
        self._watching: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        self._is_ending = False
        self._unclosed = 0  # pages that have not been told the end of their session yet
        store.on_commit(self._on_commit)

    def _on_commit(self, topic: str) -> None:
        if topic == accounts.CHANGED and self._open:
            self._look_now.set()

    @property
    def held(self) -> int:
        return len(self._open)

    def check_way(self) -> None:
        """Raises Conflict."""
        if not self.uplink:
            raise Conflict(NO_WAY)

    async def serve(self, page: Channel, token_hash: str, instance_id: str, kind: ConsoleKind) -> None:
        """A page that has come with a token: one session, from its beginning to its end. Raises Forbidden, Busy,
        Unreachable, Conflict."""
        self.check_way()
        self._check_room(instance_id)
        grant = await self._store.run(console_tokens.redeem, token_hash, instance_id, kind)
        self._unclosed += 1
        try:
            await self._show(page, grant)
        finally:
            self._unclosed -= 1

    async def _show(self, page: Channel, grant: ConsoleGrant) -> None:
        secret = self._names.secret()
        self._begun += 1
        session = Session(self._begun, grant, self._clock)
        key = _hash(secret)
        self._open[key] = session
        subject = {"server": grant.instance_id, "console": grant.kind.value, "host": grant.host}
        fields = {"session": session.number, **subject}
        try:
            host = await self._host_of(session, secret)
            log.info("console opened", **fields, user=grant.user_id)
            self._watch()
            if await session.carry(page, host):
                session.end(host.reason or await self._why(grant))
            log.info("console closed", **fields, because=session.reason or "its user has left")
        finally:
            self._open.pop(key, None)
            session.end("")
        await page.close(OVER, session.reason)

    def _check_room(self, instance_id: str) -> None:
        if self._is_ending:
            raise Busy(STOPS)
        of_server = sum(one.grant.instance_id == instance_id for one in self._open.values())
        if len(self._open) >= self.bounds.sessions_max:
            raise Busy(f"{self.bounds.sessions_max} consoles are open at this API, the most it shows; close one first.")
        if of_server >= self.bounds.sessions_per_server_max:
            most = self.bounds.sessions_per_server_max
            raise Busy(f"{most} consoles of this server are open, the most there may be; close one first.")

    async def _host_of(self, session: Session, secret: str) -> Channel:
        """The way to the guest, once its host has come. Raises Unreachable, Conflict."""
        grant = session.grant

        async def ask() -> None:
            await self._control().open_console(grant.host, grant.instance_id, grant.kind, self.uplink, secret)

        async def come() -> None:
            await asyncio.wait({session.host})

        asking, coming = asyncio.create_task(ask()), asyncio.create_task(come())
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # retrieved
        try:
            async with asyncio.timeout(ARRIVES_S):
                await asyncio.wait({asking, coming}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    await asking  # raises what the host or control has said
                return await session.host
        except TimeoutError:
            raise Unreachable(
                f"Host {grant.host} was asked for the console and has not come with it: see that it reaches "
                f"{self.uplink}."
            ) from None
        finally:
            coming.cancel()
            if not session.host.done():
                session.host.cancel()

    # -- the other end ------------------------------------------------------------------------------------------------
    def awaited(self, secret: str) -> Session | None:
        """The session for which a host may come with that name."""
        session = self._open.get(_hash(secret))
        return session if session is not None and not session.host.done() else None

    async def bring(self, session: Session, host: Channel) -> None:
        """The host has come for it; returns when it is over."""
        session.host.set_result(host)
        await session.over.wait()
        await host.close(OVER, session.reason)

    # -- the watch ----------------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._look_again_and_again(), name="consoles")

    async def _look_again_and_again(self) -> None:
        """As long as there are any."""
        while self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._look_now.wait()
            self._look_now.clear()
            now_s, sessions = self._clock.monotonic_s(), list(self._open.values())
            for session in sessions:
                self._end_silent(session, now_s)
            with contextlib.suppress(Busy):
                reasons = await self._store.read(console_tokens.why_over_each, [one.grant for one in sessions])
                for session, reason in zip(sessions, reasons, strict=True):
                    if reason:
                        session.end(reason)

    def _end_silent(self, session: Session, now_s: float) -> None:
        if now_s - session.last_s > self.bounds.idle_s:
            session.end(f"Nothing was typed or shown for {self.bounds.idle_s:g} s: {ASK_AGAIN}.")
        elif session.grant.kind is ConsoleKind.VNC and not session.has_spoken and now_s - session.began_s > SPEAKS_S:
            session.end(f"Nobody has answered the screen's greeting for {SPEAKS_S:g} s.")

    async def _why(self, grant: ConsoleGrant) -> str:
        """The guest's end is gone, which may be known a moment before the store says why."""
        until_s = self._clock.monotonic_s() + WHY_S
        while self._clock.monotonic_s() < until_s and not self._is_ending:
            with contextlib.suppress(Busy):
                (reason,) = await self._store.read(console_tokens.why_over_each, [grant])
                if reason:
                    return reason
            await self._clock.sleep(WHY_STEP_S)
        return ENDED

    async def end(self, within_s: float) -> None:
        """The program is told to stop: each session has ended, with a sentence, or `within_s` is over."""
        self._is_ending = True
        for session in list(self._open.values()):
            session.end(STOPS)
        until_s = self._clock.monotonic_s() + within_s
        while self._unclosed and self._clock.monotonic_s() < until_s:
            await self._clock.sleep(END_STEP_S)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
