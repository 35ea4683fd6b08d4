"""The connection to libvirtd: kept, lost, opened again. A restart of libvirtd is an event, not an error.

Libvirt's calls block, so they run in a bounded pool. Its events come from libvirt's own event loop in one thread of
this process, and are handed to the asyncio loop. libvirtaio would save that thread, but it changes the asyncio loop's
readers from whichever thread makes a call (`virEventUpdateHandle` is called by the caller), which asyncio does not
allow; it also answers keepalives only while our loop is free, and can be bound to one loop in the life of a process.

One call at a time on a connection: when libvirtd hangs and the keepalive gives up while several calls wait on the same
connection, the client library of libvirt 9.0 crashes the process. Opening one costs a millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import libvirt

from droveway.ports.clock import Clock
from droveway.ports.hypervisor import HypervisorDown, HypervisorRefused

T = TypeVar("T")

WORKERS = 6
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 2.0
RETURNS_WITHIN_S = 5.0  # how long a verb caught by a restart waits for libvirtd before it gives up
CLOSE_WITHIN_S = 1.0
KEEPALIVE_INTERVAL_S = 2  # a libvirtd that answers nothing is given up after (count + 1) intervals
KEEPALIVE_COUNT = 3

_event_loop_lock = threading.Lock()
_event_loop_runs = False


class ConnectionLost(Exception):
    """The connection broke in the middle of a call: whether it acted is not known."""


def run_event_loop() -> None:
    """Libvirt's event loop, once a process, in a daemon thread. It must be registered before the first connection."""
    global _event_loop_runs
    with _event_loop_lock:
        if _event_loop_runs:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised; stderr stays clean
        libvirt.virEventRegisterDefaultImpl()

        def forever() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        threading.Thread(target=forever, name="libvirt-events", daemon=True).start()
        _event_loop_runs = True


def open_connection(uri: str) -> Any:
    """One connection, blocking. Raises libvirtError."""
    run_event_loop()
    connection = libvirt.open(uri)
    connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    return connection


def reason_of(error: libvirt.libvirtError) -> str:
    return str(error.get_error_message() or error)


def is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def checked(connection: Any, work: Callable[[Any], T]) -> T:
    """`work(connection)` with libvirt's errors sorted by what they say about it: lost, busy, or refused."""
    try:
        return work(connection)
    except libvirt.libvirtError as error:
        reason = reason_of(error)
        if not is_alive(connection):
            raise ConnectionLost(reason) from None
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            # Another job held the guest for half a minute: no answer, hence no verdict.
            raise HypervisorDown(f"The hypervisor did not get to it in time: {reason}.") from None
        raise HypervisorRefused(f"The hypervisor refused: {reason}.") from None


def in_daemon_thread(name: str, work: Callable[[], T], drop: Callable[[T], None] | None = None) -> asyncio.Future[T]:
    """For calls without a bound (connecting, a migration): a thread that does not hold up the end of the process,
    as the pool's threads would. `drop` takes a result that is not awaited any more."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            if drop is not None and error is None:
                drop(result)  # type: ignore[arg-type]
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = work()
        except (libvirt.libvirtError, ConnectionLost, HypervisorRefused, HypervisorDown) as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended: no caller waits
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=body, name=name, daemon=True).start()
    return future


class _Link:
    """What is open at a time: one connection that only listens, and one a worker. Made and closed in a thread; lent and
    given back in the loop."""

    def __init__(self, uri: str) -> None:
        """Blocking. Raises libvirtError, and leaves nothing open then."""
        self._callbacks: list[int] = []
        self._idle: list[Any] = []
        self._is_retired = False
        self.listening = open_connection(uri)
        try:
            for _ in range(WORKERS):
                self._idle.append(open_connection(uri))
        except libvirt.libvirtError:
            self.close()
            raise

    def listen(self, closed: Callable[..., None], callbacks: dict[int, Callable[..., None]]) -> None:
        self.listening.registerCloseCallback(closed, self)
        for event, callback in callbacks.items():
            self._callbacks.append(self.listening.domainEventRegisterAny(None, event, callback, None))

    def lend(self) -> Any:
        return self._idle.pop()

    def give_back(self, connection: Any) -> None:
        if self._is_retired:
            in_daemon_thread("libvirt-close", lambda: _close(connection))
        else:
            self._idle.append(connection)

    def retire(self) -> asyncio.Future[None]:
        """No more calls. A connection that is lent is closed when it comes back: closing it is a call, too."""
        self._is_retired = True
        return in_daemon_thread("libvirt-close", self.close)

    def close(self) -> None:
        """Blocking."""
        for callback in self._callbacks:  # each holds its connection: without its leaving, `close` would close nothing
            with contextlib.suppress(libvirt.libvirtError):
                self.listening.domainEventDeregisterAny(callback)
        with contextlib.suppress(libvirt.libvirtError):
            self.listening.unregisterCloseCallback()
        for connection in (self.listening, *self._idle):
            _close(connection)


def _close(connection: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


class LibvirtConnection:
    """Opens, keeps and reopens the connections, and runs calls on them."""

    def __init__(self, uri: str, clock: Clock) -> None:
        self._uri, self._clock = uri, clock
        self._pool = ThreadPoolExecutor(WORKERS, "libvirt")
        self._slots = asyncio.Semaphore(WORKERS)
        self._link: _Link | None = None
        self._why = "The hypervisor has not been reached yet."
        self._is_up = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def open(
        self, connected: Callable[[bool, str], None], on_domain_event: Callable[[str, str, int, int], None]
    ) -> None:
        """Start to connect. `connected(is_up, sentence)` and `on_domain_event(kind, domain name, event, detail)` are
        called in the loop."""
        self._on_connected, self._on_domain_event = connected, on_domain_event
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._keep(), name="libvirt connection")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        link, self._link = self._link, None
        self._why = "The driver is closed."
        self._is_up.clear()
        if link is not None:
            await asyncio.wait((link.retire(),), timeout=CLOSE_WITHIN_S)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call(self, work: Callable[[Any], T]) -> T:
        """Run `work(connection)`. When the connection breaks in the middle it is run once more after libvirtd is back,
        so `work` must look before it acts."""
        if self._link is None:
            raise HypervisorDown(self._why)
        try:
            return await self._run(work)
        except ConnectionLost:
            pass
        try:
            async with asyncio.timeout(RETURNS_WITHIN_S):
                await self._is_up.wait()
        except TimeoutError:
            raise HypervisorDown(self._why) from None
        try:
            return await self._run(work)
        except ConnectionLost as lost:
            raise HypervisorDown(f"The hypervisor's connection broke twice: {lost}.") from None

    async def _run(self, work: Callable[[Any], T]) -> T:
        await self._slots.acquire()
        link = self._link
        if link is None:  # lost while we waited for a slot
            self._slots.release()
            raise HypervisorDown(self._why)
        connection = link.lend()

        def ended(done: asyncio.Future[T]) -> None:
            link.give_back(connection)
            self._slots.release()
            if not done.cancelled():
                done.exception()  # retrieved, also when no caller waits any more

        running = self._loop.run_in_executor(self._pool, checked, connection, work)
        running.add_done_callback(ended)
        try:
            return await asyncio.shield(running)  # the call goes on when its caller is cancelled
        except ConnectionLost as lost:
            self._report_lost(link, str(lost))
            raise

    def _report_lost(self, link: _Link, reason: str) -> None:
        """From the close callback or from a call that met it first; once a link."""
        if link is not self._link:
            return
        self._link = None
        self._why = f"The hypervisor's connection is lost: {reason}."
        self._is_up.clear()
        self._lost.set()

    async def _keep(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                link = await in_daemon_thread("libvirt-connect", self._connect, _Link.close)
            except libvirt.libvirtError as error:
                why = f"The hypervisor at {self._uri} cannot be reached: {reason_of(error)}."
                if why != self._why:  # said once, however often it is tried
                    self._why = why
                    self._on_connected(False, why)
                await self._clock.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_LAST_S)
                continue
            backoff_s = BACKOFF_FIRST_S
            self._lost.clear()
            self._link = link
            if not is_alive(link.listening):
                self._report_lost(link, "it broke while it was being set up")
            else:
                self._is_up.set()
                self._on_connected(True, f"Connected to the hypervisor at {self._uri}.")
            await self._lost.wait()
            self._on_connected(False, self._why)
            await asyncio.wait((link.retire(),), timeout=CLOSE_WITHIN_S)

    def _connect(self) -> _Link:
        link = _Link(self._uri)
        try:
            link.listen(
                self._closed,
                {
                    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._lifecycle,
                    libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: self._job_completed,
                },
            )
        except libvirt.libvirtError:
            link.close()
            raise
        return link

    # -- callbacks, in libvirt's event thread: they only hand over ---------------------------------------------------
    def _closed(self, _connection: Any, reason: int, link: _Link) -> None:
        reasons = {
            libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "it closed the connection",
            libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "it no longer answers",
            libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "the connection failed",
        }
        self._hand_over(self._report_lost, link, reasons.get(reason, "the connection was closed"))

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: None) -> None:
        self._hand_over(self._on_domain_event, "lifecycle", domain.name(), event, detail)

    def _job_completed(self, _connection: Any, domain: Any, _parameters: dict[str, Any], _opaque: None) -> None:
        self._hand_over(self._on_domain_event, "job", domain.name(), 0, 0)

    def _hand_over(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: there is no receiver
            self._loop.call_soon_threadsafe(function, *arguments)
