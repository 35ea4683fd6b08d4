"""The stream of what changes about services: in order, from where one left off, and never at anybody else's expense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert

from droveway.api.http.request import Disconnected, Request, Response
from droveway.api.http.streams import BATCH_MAX, STREAMS_MAX
from droveway.api.own.liveness import COMMENT_S, POLL_S
from droveway.domain.liveness import State
from droveway.drivers.clock import SystemClock
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.identity import accounts, assignments
from droveway.store.identity.assignments import Actor, AssignmentTarget
from droveway.store.schema import events
from tests.api.world import World, in_world, reason

PATH = "/droveway/v1/services/events"


class Listener:
    """A client of the stream that takes a piece when the test says so, or all of them."""

    def __init__(self, world: World, token: str, last_id: str = "", *, takes_all: bool = True) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.may_take = asyncio.Event()
        self.left = asyncio.Event()
        self.status = 0
        self._has_asked = False
        self._events: list[str] = []
        if takes_all:
            self.may_take.set()
        headers = [(b"x-auth-token", token.encode()), *([(b"last-event-id", last_id.encode())] if last_id else [])]
        scope = {"type": "http", "method": "GET", "path": PATH, "query_string": b"", "headers": headers}
        self.serving = asyncio.create_task(world.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["body"]:
            await self.may_take.wait()
            self.pieces.put_nowait(message["body"])

    async def event(self, timeout_s: float = 1.0) -> dict[str, Any]:
        """The next one, its id among its values; what only keeps the connection alive is passed over."""
        while not self._events:
            piece = (await asyncio.wait_for(self.pieces.get(), timeout_s)).decode()
            self._events += [part for part in piece.split("\n\n") if "data: " in part]
        fields = dict(line.split(": ", 1) for line in self._events.pop(0).splitlines())
        assert fields["event"] == "service"
        return {"id": fields["id"], **json.loads(fields["data"])}

    async def begin(self) -> str:
        """Where the stream stands when it begins."""
        first = (await asyncio.wait_for(self.pieces.get(), 30.0)).decode()
        assert first.startswith("retry: ")
        return first.split("id: ")[1].strip()

    async def ends(self, timeout_s: float = 0.5) -> None:
        await asyncio.wait_for(self.serving, timeout_s)


async def becomes(world: World, state: State, host: str = "h1", times: int = 1) -> None:
    verdicts = [services.Verdict(host, "nova-compute", state, f"because {n}", 5) for n in range(times)]
    await world.store.run(services.record_verdicts, verdicts)


async def test_transitions_arrive_in_order_and_at_once(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        listener = Listener(world, token)
        start = await listener.begin()
        await becomes(world, State.DEAD)
        first = await listener.event()
        assert first["at_us"] > 0
        assert {key: first[key] for key in ("host", "binary", "became", "state", "because")} == {
            "host": "h1",
            "binary": "nova-compute",
            "became": "down",
            "state": "dead",
            "because": "because 0",
        }
        assert int(first["id"]) == int(start) + 1
        (row,) = await world.store.read(services.list_all, "h2")
        await world.store.run(services.set_, row["uuid"], disabled=True, disabled_reason="a new disk")
        await becomes(world, State.ALIVE)
        second, third = await listener.event(), await listener.event()
        assert (second["became"], second["state"], second["because"]) == ("disabled", None, "a new disk")
        assert (third["became"], third["state"]) == ("up", "alive")

        again = Listener(world, token, first["id"])  # a client that was away
        assert await again.begin() == first["id"]
        assert [await again.event(), await again.event()] == [second, third]
        for one in (listener, again):
            one.left.set()
            await one.ends()
        assert not world.api.streams.listening


async def test_what_another_control_wrote_is_found_without_a_nudge(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        listener = Listener(world, await world.token())
        await listener.begin()
        row = {
            "at_us": 1,
            "subject_kind": "service",
            "subject_id": "h9/nova-compute",
            "body": {"became": "registered"},
        }
        with world.store.engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(insert(events), [{**row, "kind": "saga"}, {**row, "kind": "service"}])
        found = await listener.event(POLL_S + 1)
        assert (found["host"], found["became"], found["state"]) == ("h9", "registered", None)
        listener.left.set()
        await listener.ends()


async def test_a_history_that_begins_anew_is_told_from_its_beginning(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await world.store.run(lambda tx: tx.execute(delete(events)))
        await becomes(world, State.HUNG)
        listener = Listener(world, token, "5000")
        assert (await listener.event())["state"] == "hung"
        listener.left.set()
        await listener.ends()


async def test_nothing_is_kept_for_a_client_that_takes_nothing(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, times = await world.token(), 3 * BATCH_MAX + 10
        slow, quick = Listener(world, token, takes_all=False), Listener(world, token)
        start = int(await quick.begin())
        await becomes(world, State.DEAD, times=times)
        pieces = []
        while sum(piece.count(b"\nevent: ") for piece in pieces) < times:
            pieces.append(await asyncio.wait_for(quick.pieces.get(), 30.0))  # the slow one is in nobody's way
        assert slow.pieces.empty()
        assert max(piece.count(b"\nevent: ") for piece in pieces) == BATCH_MAX
        slow.may_take.set()  # and it still gets everything, once, in order
        ids: list[int] = []
        while len(ids) < times + 1:
            piece = (await asyncio.wait_for(slow.pieces.get(), 30.0)).decode()
            ids += [int(line[4:]) for line in piece.splitlines() if line.startswith("id: ")]
        assert ids == list(range(start, start + times + 1))
        for one in (slow, quick):
            one.left.set()
            await one.ends()


async def test_a_client_that_takes_nothing_loses_its_place(tmp_path: Path) -> None:
    blocked = asyncio.Event()
    is_free = False

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal is_free
        try:
            yield b"piece"
        finally:
            is_free = True

    async def receive() -> dict[str, Any]:
        await blocked.wait()
        return {}

    async def send(message: Any) -> None:
        if message["type"] != "http.response.start":
            await blocked.wait()

    request = Request({"method": "GET", "path": "/", "headers": []}, receive, "req-1")
    with pytest.raises(Disconnected, match=r"has taken nothing for 0\.05 s"):
        await Response(stream=pieces(), piece_max_s=0.05).send(send, request)
    assert is_free


async def test_streams_are_bounded_and_a_place_is_free_at_once(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        listeners = [Listener(world, token) for _ in range(STREAMS_MAX)]
        for one in listeners:
            await one.begin()
        refused = await world.ask("GET", PATH, token=token)
        assert (refused.status_code, "64 event streams are open" in reason(refused)) == (503, True)
        listeners[0].left.set()
        await listeners[0].ends()
        another = Listener(world, token)
        await another.begin()
        await becomes(world, State.DEAD)
        for one in (*listeners[1:], another):
            assert (await one.event())["became"] == "down"
        world.api.streams.end()  # the program is told to stop
        await asyncio.gather(*(one.ends(1.0) for one in (*listeners[1:], another)))
        assert not world.api.streams.listening


class QuickClock(SystemClock):
    """Its seconds are short."""

    def monotonic_s(self) -> float:
        return super().monotonic_s() * COMMENT_S


async def test_it_is_kept_alive_while_its_token_is(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        world.api.clock = QuickClock()
        token = await world.token()
        listener = Listener(world, token)
        await listener.begin()
        assert await asyncio.wait_for(listener.pieces.get(), POLL_S + 1) == b": still here\n\n"
        await world.ask("DELETE", "/identity/v3/auth/tokens", token=token, headers={"X-Subject-Token": token})
        await listener.ends(2 * POLL_S)


async def test_it_ends_with_the_role_that_it_takes(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:

        def found(tx: Tx) -> tuple[Actor, AssignmentTarget, str]:
            user, project = accounts.find_user(tx, name="alice"), accounts.find_project(tx, name="red")
            role = accounts.find_role(tx, name="admin")
            assert user is not None
            assert project is not None
            assert role is not None
            return Actor("user", user["id"]), AssignmentTarget("project", project["id"]), role["id"]

        held = await world.store.read(found)
        await world.store.run(assignments.grant, *held)
        listener = Listener(world, await world.token("alice", "red"))
        await listener.begin()
        await world.store.run(assignments.revoke, *held)
        await becomes(world, State.DEAD)
        await listener.ends(2 * POLL_S)
        assert listener.pieces.empty(), "what happens after that is not told"


async def test_who_may_listen_and_from_where(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token, alice = await world.token(), await world.token("alice", "red")
        assert (await world.ask("GET", PATH, token=alice)).status_code == 403
        assert (await world.http.get(PATH)).status_code == 401
        for wrong in ("-1", "x", "²", "9" * 30):
            reply = await world.ask("GET", PATH, token=token, headers={"Last-Event-ID": wrong.encode()})  # type: ignore[dict-item]
            assert (reply.status_code, "must be the id of an event" in reason(reply)) == (400, True), wrong
        assert (await world.ask("HEAD", PATH, token=token)).status_code == 200
        assert not world.api.streams.listening
