"""What the API needs from the rest of the program, in one place: `Api` is made by main and by tests."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from droveway.api.pool import Pool
from droveway.api.streams import Streams
from droveway.domain.faults import NotFound, Unauthorized, Unreachable
from droveway.domain.metrics import LivenessMetrics
from droveway.ports.clock import Clock, Names
from droveway.store import events, identity
from droveway.store.identity import Caller
from droveway.store.transaction import Store

MIB = 1024 * 1024
TOKEN_CACHE_MAX = 4096


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Bounds and names of the API; every size carries its unit."""

    base_url: str  # as clients reach it, without a slash at the end
    images_directory: Path
    region: str = "RegionOne"
    token_expiry_s: int = 24 * 3600
    max_body_bytes: int = MIB  # of JSON; more is 413
    max_image_bytes: int = 64 * 1024 * MIB
    max_virtual_bytes: int = 1024 * 1024 * MIB
    page_max: int = 1000  # rows of a listing that pages
    servers_per_request_max: int = 100
    precheck_timeout_s: float = 30.0  # how long a request may wait for a saga's checks
    # One API process may remember tokens, because every write that ends one passes through it. With several, don't.
    caches_tokens: bool = True


SagasSettled = Callable[[str, float], Awaitable[tuple[bool, str]]]
ReadConsole = Callable[[str, str, int | None], Awaitable[str]]
Why = Callable[[str, str], Awaitable[dict[str, Any]]]
ListTasks = Callable[[str], Awaitable[list[dict[str, Any]]]]


async def _nobody_knows_why(host: str, binary: str) -> dict[str, Any]:
    raise Unreachable(f"No judge runs beside this API, so nobody here knows why {binary} on {host} is up or down.")


async def _no_tasks(host: str) -> list[dict[str, Any]]:
    raise NotFound(f"There is no host {host} whose periodic tasks are known here.")


@dataclass(slots=True)
class Api:
    """`sagas_settled(saga_id, timeout_s)` waits until the saga has passed its checks (True, "") or has failed (False,
    why). `read_console(host, instance_id, lines)` asks the host; raises Unreachable when it does not answer, Conflict
    when it refuses. `why(host, binary)` explains the verdict on a service: {"verdict": {host, binary, state, word,
    since_us, sentence}, "evidence": [{about, sentence, is_bad}], "advice": [sentence]}; raises NotFound.
    `list_tasks(host)` are the periodic tasks of a host's agent or of a control; raises NotFound, Unreachable."""

    store: Store
    clock: Clock
    names: Names
    settings: ApiSettings
    hashing: Pool  # passwords: each job holds about 20 MiB for 25 ms
    files: Pool  # image data
    sagas_settled: SagasSettled
    read_console: ReadConsole
    why: Why = _nobody_knows_why
    list_tasks: ListTasks = _no_tasks
    liveness_metrics: Callable[[], LivenessMetrics] = LivenessMetrics
    tokens: dict[str, Caller] = field(default_factory=dict)
    revocations: int = 0  # a token read before one must not be remembered after it
    streams: Streams = field(default_factory=Streams)

    def __post_init__(self) -> None:
        self.store.on_commit(self._on_commit)

    def _on_commit(self, topic: str) -> None:
        if topic == identity.CHANGED:
            self.tokens.clear()
            self.revocations += 1
        elif topic == events.SERVICES_CHANGED:
            self.streams.wake()

    async def caller(self, token: str) -> Caller:
        """Whoever holds that token. Raises Unauthorized."""
        caller = await self.find_caller(token)
        if caller is None:
            raise Unauthorized(
                "The token is not valid: it has expired, was revoked, or never was one; ask for a new one."
            )
        return caller

    async def find_caller(self, token: str) -> Caller | None:
        token_hash = hash_token(token)
        known = self.tokens.get(token_hash)
        if known is not None and known.expires_at_us > self.clock.now_us():
            return known
        before = self.revocations
        caller = await self.store.read(identity.find_token, token_hash)
        if caller is not None and self.settings.caches_tokens and before == self.revocations:
            if len(self.tokens) >= TOKEN_CACHE_MAX:
                self.tokens.clear()
            self.tokens[token_hash] = caller
        return caller


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
