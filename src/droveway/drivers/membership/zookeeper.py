"""Members as ephemeral znodes: <sg_prefix>/<group>/<member> lives as long as the session that made it.

kazoo runs in threads of its own; its answers and events are handed to the loop, where everything here happens. The
children of a group are watched: a change costs one read of the names, asking costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import EventType, KazooState
from kazoo.security import make_digest_acl

from droveway.config.membership import MembershipSettings
from droveway.config.tls import tls_context
from droveway.drivers.membership import names
from droveway.drivers.membership.grace import Grace
from droveway.drivers.membership.unending import unending
from droveway.ports.clock import Clock
from droveway.ports.membership import DetectedBy, Guarantees, Presence, Unknown

log = structlog.get_logger("droveway.config.membership")
CONNECT_DELAY_S, CONNECT_DELAY_MAX_S = 0.1, 1.0
AGAIN_S = 0.5  # until what failed is tried again
ENDS_S = 30.0  # kazoo itself waits 10 s for its connection to end
SLACK_S = 0.2  # for the event's way to the observer
AT_ONCE_MAX = 200  # requests on their way together

# kazoo tells every attempt to connect; what is worth saying is said here once.
_quiet = logging.getLogger("droveway.config.membership.kazoo")
_quiet.setLevel(logging.CRITICAL)


class ZookeeperSettings(msgspec.Struct, frozen=True):
    """`tick_s` is the servers' tickTime: they grant no session shorter than two ticks and expire by whole ticks."""

    address: str
    sg_prefix: str = "/servicegroups"
    sg_retry_interval_s: float = 5.0
    session_timeout_s: float = 3.0
    tick_s: float = 2.0
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    user: str = ""
    password: str = ""


def _access(settings: ZookeeperSettings) -> dict[str, Any]:
    """What kazoo is told of TLS and of who we are. With a user what we make is that user's alone: others read and write
    nothing below the prefix that its nodes do not let them."""
    s, options = settings, dict[str, Any]()
    if s.user:
        options["auth_data"] = [("digest", f"{s.user}:{s.password}")]
        options["default_acl"] = [make_digest_acl(s.user, s.password, all=True)]
    if s.tls_ca:
        tls_context("zookeeper", s.tls_ca, s.tls_cert, s.tls_key)  # what is wrong with the files is said now
        options |= {
            "use_ssl": True,
            "ca": s.tls_ca,
            "verify_certs": True,
            "check_hostname": True,
            "certfile": s.tls_cert or None,
            "keyfile": s.tls_key or None,
        }
    return options


class ZookeeperServiceGroup:
    def __init__(self, settings: ZookeeperSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        session_s = max(settings.session_timeout_s, 2 * settings.tick_s)
        self.guarantees = Guarantees(
            DetectedBy.LEASE, may_forget=False, pushes=True, detection_s=session_s + settings.tick_s + SLACK_S
        )
        self._grace = Grace(clock, session_s + CONNECT_DELAY_MAX_S)
        self._wanted: dict[tuple[str, str], asyncio.Event] = {}  # set: the znode stands, and is watched
        self._leaving: set[tuple[str, str]] = set()  # their znodes must still go
        self._held: set[tuple[str, str]] = set()  # names that an earlier session still holds
        self._seen: dict[str, dict[str, Presence]] = {}  # the groups that are watched
        self._stale: set[str] = set()  # of those the ones to be read again
        self._must_sync = False  # this server may lag behind the one we were connected to before
        self._read_once: dict[str, asyncio.Event] = {}
        self._is_up = self._is_broken = self._is_closing = False
        self._woken = asyncio.Event()
        self._first = asyncio.Event()  # the first connection is made, or has been waited for in vain
        self._timers: list[asyncio.TimerHandle] = []
        self._changed: Callable[[str, str], None] = lambda _group, _member: None
        self._connection: Callable[[bool, str], None] = lambda _up, _reason: None
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None

    # -- the port ---------------------------------------------------------------------------------------------------
    async def open(self, changed: Callable[[str, str], None], connection: Callable[[bool, str], None]) -> None:
        self._changed, self._connection = changed, connection
        self._loop = asyncio.get_running_loop()
        self._start()
        self._task = unending(self._run(), "zookeeper", self._broken)
        self._timers.append(self._loop.call_later(self._settings.session_timeout_s, self._say_if_nobody_answers))

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._is_closing = True
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for timer in self._timers:
                timer.cancel()
            await self._end(self._client)

    def _start(self) -> None:
        s = self._settings
        retry = {"max_tries": -1, "delay": CONNECT_DELAY_S, "max_delay": CONNECT_DELAY_MAX_S}
        client = self._client = KazooClient(
            hosts=s.address, timeout=s.session_timeout_s, connection_retry=retry, logger=_quiet, **_access(s)
        )
        client.add_listener(self._on_state_in_thread)
        client.start_async()

    async def _end(self, client: Any) -> None:
        """Says goodbye to the server, so that the znodes go at once, and waits for kazoo's threads: in a thread of its
        own, because kazoo waits for its connection without a bound."""
        ended = asyncio.Event()

        def end() -> None:
            for call in (client.stop, client.close):
                with contextlib.suppress(KazooException, KazooTimeoutError, OSError):
                    call()
            self._into_loop(ended.set)

        threading.Thread(target=end, name="zookeeper ends", daemon=True).start()
        try:
            async with asyncio.timeout(ENDS_S):
                await ended.wait()
        except TimeoutError:
            log.warning("membership client left behind", because=f"it does not end within {ENDS_S:.0f} s")

    async def _start_again_if_ended(self) -> None:
        """kazoo's thread ends for good on what it takes for a bug: an answer to another question than its oldest (which
        the end of a session brings about), or a login that is refused. Nobody would connect again."""
        routine = self._client._connection._connection_routine
        if routine is not None and not routine.is_alive():
            log.warning("membership client made anew", because="the thread of its connection to ZooKeeper has ended")
            ended = self._client
            self._start()
            await self._end(ended)

    async def join(self, group: str, member: str) -> None:
        self._path(group, member)
        stands = self._wanted.setdefault((group, member), asyncio.Event())
        self._leaving.discard((group, member))
        self._woken.set()
        await self._begun()
        if self._is_up:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.session_timeout_s):
                    await stands.wait()

    async def leave(self, group: str, member: str) -> None:
        self._path(group, member)
        if self._wanted.pop((group, member), None) is not None and (group, member) not in self._held:
            self._leaving.add((group, member))
            self._woken.set()
        self._held.discard((group, member))  # an earlier session's znode is not ours to delete

    async def get_all(self, group: str) -> dict[str, Presence]:
        return dict(await self._known(group))

    async def get_one(self, group: str, member: str) -> Presence | None:
        return (await self._known(group)).get(member)

    async def service_is_up(self, group: str, member: str) -> bool:
        found = await self.get_one(group, member)
        return found is not None and found.is_present

    async def _begun(self) -> None:
        """Just opened: until the first connection, or until it is known that no server answers."""
        if not self._first.is_set():
            await self._first.wait()

    # -- asking -----------------------------------------------------------------------------------------------------
    async def _known(self, group: str) -> dict[str, Presence]:
        names.encode(group)
        await self._begun()
        if group not in self._seen and self._is_up:
            self._stale.add(group)
            self._woken.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.session_timeout_s):
                    await self._read_once.setdefault(group, asyncio.Event()).wait()
        if not self._is_up or group not in self._seen:
            raise Unknown(f"ZooKeeper at {self._settings.address} does not answer: who is a member cannot be told")
        return self._grace.over(group, self._seen[group])

    async def _read(self, group: str) -> None:
        """The names in a group, and a watch for the next change of them."""
        self._stale.discard(group)  # first: what changes from here on makes it stale again
        path = self._path(group)
        ask = functools.partial(
            self._call, self._client.get_children_async, path, watch=functools.partial(self._on_children, group)
        )
        children = None
        try:
            children = await ask()
        except NoNodeError:
            await self._call(self._client.ensure_path_async, path)
            children = await ask()
        finally:
            if children is None:
                self._stale.add(group)
        before = self._seen.get(group, {})
        members = [member for member in map(names.decode, children) if member is not None]
        now = self._seen[group] = {m: before.get(m) or Presence(m, True, "its session lives") for m in members}
        self._grace.over(group, now)
        self._read_once.setdefault(group, asyncio.Event()).set()
        for member in before.keys() ^ now.keys():
            self._changed(group, member)

    # -- being a member ---------------------------------------------------------------------------------------------
    async def _register(self, key: tuple[str, str]) -> None:
        """Create the znode, or find whose it is; watch it, for an operator may delete it by hand."""
        path = self._path(*key)
        with contextlib.suppress(NodeExistsError):
            await self._call(self._client.create_async, path, b"", ephemeral=True, makepath=True)
        stat = await self._call(self._client.exists_async, path, watch=functools.partial(self._on_own, key))
        client_id = self._client.client_id
        if stat is None or client_id is None or key not in self._wanted:
            self._woken.set()
        elif stat.ephemeralOwner == client_id[0]:
            self._held.discard(key)
            self._wanted[key].set()
        elif key not in self._held:
            self._held.add(key)
            reason = (
                f"{path} is still held by the session {stat.ephemeralOwner:#x} of an earlier process; "
                f"trying again every {self._settings.sg_retry_interval_s:g} s"
            )
            log.warning("member name still held by an older session", group=key[0], member=key[1], because=reason)
            self._connection(True, reason)

    async def _delete(self, key: tuple[str, str]) -> None:
        with contextlib.suppress(NoNodeError):
            await self._call(self._client.delete_async, self._path(*key))
        self._leaving.discard(key)

    async def _run(self) -> None:
        """Do what is wanted and not yet so, whenever something has happened."""
        while True:
            self._woken.clear()
            wait_s: float | None = None
            if self._is_up:
                try:
                    await self._catch_up()
                    await self._together(self._read, list(self._stale))
                    missing = [key for key, stands in self._wanted.items() if not stands.is_set()]
                    await self._together(self._register, missing)
                    await self._together(self._delete, list(self._leaving))
                    wait_s = self._settings.sg_retry_interval_s if self._held & self._wanted.keys() else None
                except (KazooException, KazooTimeoutError, TimeoutError) as error:
                    log.warning("ZooKeeper refused", error=repr(error))
                    wait_s = AGAIN_S
            if not self._is_up:
                await self._start_again_if_ended()
                wait_s = AGAIN_S
            if self._is_closing:  # the cancellation met a failure of what was gathered, which came first
                raise asyncio.CancelledError
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    async def _catch_up(self) -> None:
        """The server sees at least what its leader has seen by now."""
        if self._must_sync:
            self._must_sync, is_done = False, False  # first: from here on it is another connection's again
            try:
                await self._call(self._client.sync_async, "/")
                is_done = True
            finally:
                self._must_sync = self._must_sync or not is_done

    async def _together(self, do: Callable[[Any], Any], what: list[Any]) -> None:
        for start in range(0, len(what), AT_ONCE_MAX):
            await asyncio.gather(*(do(one) for one in what[start : start + AT_ONCE_MAX]))

    # -- events, in the loop ----------------------------------------------------------------------------------------
    def _on_state_in_thread(self, state: str) -> None:
        """In kazoo's thread, before it connects again. A server refuses for ever a client that has seen more than it
        has; one that lost its data never has it again. So that is forgotten with the connection; `_catch_up` keeps what
        it was for, so that no client is shown an older state by another server."""
        if state != KazooState.CONNECTED:
            self._client.last_zxid = 0
        self._into_loop(self._on_state, state)

    def _on_state(self, state: str) -> None:
        if self._task is None or self._is_broken:
            return  # closed: the end of the connection is no news
        self._first.set()
        if state == KazooState.CONNECTED:
            # kazoo forgets its watches with the connection, and the session may be a new one: look at all again.
            self._stale.update(self._read_once)
            for stands in self._wanted.values():
                stands.clear()
            self._is_up = self._must_sync = True
            self._grace.back()
            self._timers = [t for t in self._timers if not t.cancelled() and t.when() > self._loop.time()]
            self._timers.append(self._loop.call_later(self._grace.grace_s, self._grace_is_over))
            self._connection(True, f"connected to ZooKeeper at {self._settings.address}")
            self._woken.set()
        elif self._is_up:
            self._is_up = False
            self._grace.lost()
            reason = f"the connection to ZooKeeper at {self._settings.address} is lost; trying to get it back"
            log.warning("membership server away", because=reason)
            self._connection(False, reason)
            self._woken.set()

    def _broken(self, reason: str) -> None:
        self._is_up, self._is_broken = False, True
        self._connection(False, reason)

    def _say_if_nobody_answers(self) -> None:
        self._first.set()
        if not self._is_up:
            reason = (
                f"no ZooKeeper server answers at {self._settings.address}; trying again at least every "
                f"{CONNECT_DELAY_MAX_S:g} s"
            )
            log.warning("membership server away", because=reason)
            self._connection(False, reason)

    def _grace_is_over(self) -> None:
        for group, member in self._grace.missing():
            if member not in self._seen.get(group, {}):
                self._changed(group, member)

    def _on_children(self, group: str, event: Any) -> None:
        if event.type != EventType.NONE:  # NONE: the connection changed, which _on_state is told
            self._into_loop(self._again, group)

    def _again(self, group: str) -> None:
        self._stale.add(group)
        self._woken.set()

    def _on_own(self, key: tuple[str, str], event: Any) -> None:
        if event.type != EventType.NONE:
            self._into_loop(self._own_is_gone, key)

    def _own_is_gone(self, key: tuple[str, str]) -> None:
        if key in self._wanted:
            self._wanted[key].clear()
            self._woken.set()

    # -- the bridge to kazoo's threads --------------------------------------------------------------------------------
    def _into_loop(self, call: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: there is no receiver any more
            self._loop.call_soon_threadsafe(call, *args)

    async def _call(self, request: Callable[..., Any], *args: Any, **options: Any) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()

        def settle(result: Any) -> None:
            if answer.done():
                return
            if result.exception is None:
                answer.set_result(result.value)
            elif isinstance(result.exception, KazooException):
                answer.set_exception(result.exception)
            else:  # what kazoo takes for a bug has ended its connection
                answer.set_exception(ConnectionLoss(repr(result.exception)))

        request(*args, **options).rawlink(lambda result: self._into_loop(settle, result))
        async with asyncio.timeout(self._settings.session_timeout_s):
            return await answer

    def _path(self, group: str, member: str | None = None) -> str:
        path = f"{self._settings.sg_prefix.rstrip('/')}/{names.encode(group)}"
        return path if member is None else f"{path}/{names.encode(member)}"


def make(settings: MembershipSettings, clock: Clock, _store: object) -> ZookeeperServiceGroup:
    z = settings.zookeeper
    return ZookeeperServiceGroup(
        ZookeeperSettings(z.servers, z.sg_prefix, z.sg_retry_interval, z.session_timeout, z.tick_time, **z.credentials),
        clock,
    )
