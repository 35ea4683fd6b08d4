"""A client of the API: it calls the real ASGI application of a control, in that control's process, which may die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from droveway.simulation.machines import ControlProcess
from droveway.simulation.world import TOKEN, World

VERSION = "2.90"
GIVES_UP_S = 8.0
NO_ANSWER = 0
Message = MutableMapping[str, Any]


class Reply(msgspec.Struct):
    """`status` NO_ANSWER: the control died with the request, or took longer than anybody waits."""

    status: int
    body: Any = None

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def word(self) -> str:
        if self.status == NO_ANSWER:
            return "no answer"
        return "ok" if self.is_ok else "busy" if self.status == 503 else "refused"


def scope_of(method: str, target: str, version: str = VERSION, **headers: str) -> Message:
    parts = urlsplit(target)
    named = {"x-auth-token": TOKEN, "openstack-api-version": f"compute {version}", **headers}
    return {
        "type": "http",
        "method": method,
        "path": parts.path,
        "query_string": parts.query.encode(),
        "headers": [(name.replace("_", "-").encode(), text.encode()) for name, text in named.items()],
    }


class Client:
    """Checks of each answer what must hold of all: nothing is a bug's, what is refused has a cause, bodies parse."""

    def __init__(self, world: World) -> None:
        self._world = world

    def any_control(self) -> ControlProcess | None:
        controls = self._world.controls
        return controls[self._world.rng.choice(list(controls))] if controls else None

    async def ask(
        self,
        control: ControlProcess,
        method: str,
        target: str,
        body: Any = None,
        version: str = VERSION,
        seen: Callable[[], None] = lambda: None,
    ) -> Reply:
        """`seen` is called at the very moment at which the answer is made."""
        answered: asyncio.Future[Reply] = self._world.loop.create_future()
        may_be_busy = self._world.may_be_busy  # the store may refuse in the last moment before peace
        control.spawn(_serve(control, scope_of(method, target, version), body, answered, seen))
        try:
            async with asyncio.timeout(GIVES_UP_S):
                reply = await answered
        except TimeoutError:
            return Reply(NO_ANSWER)
        self._check(f"{method} {target}", reply, may_be_busy=may_be_busy or self._world.may_be_busy)
        return reply

    def _check(self, request: str, reply: Reply, *, may_be_busy: bool) -> None:
        world = self._world
        if reply.status == 503:
            if not may_be_busy:
                world.broken(f"{request} was answered 503 in peace: {reply.body}")
        elif reply.status >= 500 or reply.status == 401:
            world.broken(f"{request} was answered {reply.status}: {reply.body}")
        elif reply.status >= 400 and not _reason(reply.body):
            world.broken(f"{request} was answered {reply.status} without a sentence: {reply.body}")


def _reason(body: Any) -> str:
    return str(next(iter(body.values())).get("message", "")) if isinstance(body, dict) and body else ""


async def _serve(
    control: ControlProcess, scope: Message, body: Any, answered: asyncio.Future[Reply], seen: Callable[[], None]
) -> None:
    """What uvicorn does for one request."""
    reply, pieces = Reply(NO_ANSWER), []
    is_json = False

    async def receive() -> Message:
        return {"type": "http.request", "body": b"" if body is None else msgspec.json.encode(body), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal is_json
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            is_json = (b"content-type", b"application/json") in message["headers"]
            seen()
        else:
            pieces.append(message.get("body", b""))

    await control.app(scope, receive, send)
    whole = b"".join(pieces)
    reply.body = msgspec.json.decode(whole) if is_json else whole.decode()
    if not answered.done():
        answered.set_result(reply)
