"""What an API lets in: how often, from which web pages; and what never stands in a log, a fault or an event."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest

from droveway.api.http.rates import BURST_S, KEYS_MAX, Rates
from droveway.domain.faults import TooMany
from droveway.store.engine.transaction import Tx
from droveway.store.schema import events, sagas
from tests.api.world import NOVA, PASSWORD, V3, in_world, login, make_image, make_server, reason
from tests.console_served import heard, served

BOARD = "https://board.test"


def test_a_rate_lets_bursts_through_and_refuses_what_goes_on() -> None:
    rates = Rates(10, "from this address")
    for _ in range(int(10 * BURST_S)):
        rates.take("a", 0.0)
    with pytest.raises(TooMany, match="More than 10 requests a second come from this address"):
        rates.take("a", 0.0)
    rates.take("b", 0.0)
    rates.take("a", 0.1)
    with pytest.raises(TooMany):
        rates.take("a", 0.1)
    for _ in range(1000):
        Rates(0, "").take("a", 0.0)


def test_a_rate_keeps_a_bounded_number_of_counts() -> None:
    rates = Rates(1, "")
    for number in range(3 * KEYS_MAX):
        rates.take(str(number), number / KEYS_MAX)
    assert len(rates._buckets) <= KEYS_MAX


async def test_an_address_and_a_project_are_told_to_ask_less_often(tmp_path: Path) -> None:
    async with in_world(tmp_path, max_requests_per_s_per_project=1) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        reply = await world.ask("GET", f"{NOVA}/servers", token=alice)
        assert reply.status_code == 200
        while reply.status_code == 200:  # it is asked faster than once a second, however busy the machine is
            reply = await world.ask("GET", f"{NOVA}/servers", token=alice)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        assert reason(reply) == "More than 1 requests a second come for this project; ask less often."
        assert (await world.ask("GET", f"{NOVA}/servers", token=bob)).status_code == 200
    async with in_world(tmp_path, max_requests_per_s_per_address=1) as world:
        statuses = [(await world.http.get("/identity/v3")).status_code]
        while statuses[-1] == 200:
            statuses.append((await world.http.get("/identity/v3")).status_code)
        assert (statuses[0], statuses[-1]) == (200, 429)


async def test_pages_of_other_origins_are_told_nothing_unless_named(tmp_path: Path) -> None:
    asked = {"Origin": BOARD, "Access-Control-Request-Method": "POST"}
    for allowed, status in (((), 405), ((BOARD,), 204)):
        async with in_world(tmp_path, allowed_origins=allowed) as world:
            before = await world.http.options(f"{V3}/auth/tokens", headers=asked)
            assert before.status_code == status
            for origin in (BOARD, "https://evil.test"):
                reply = await world.http.get(V3, headers={"Origin": origin})
                told = [name for name in reply.headers if name.startswith("access-control-")]
                assert bool(told) == (origin == BOARD and bool(allowed)), (allowed, origin)
            evil = await world.http.options(f"{V3}/auth/tokens", headers={**asked, "Origin": "https://evil.test"})
            assert evil.status_code == 405
            if allowed:
                assert before.headers["access-control-allow-origin"] == BOARD
                assert "X-Auth-Token" in before.headers["access-control-allow-headers"]
                token = await world.http.post(f"{V3}/auth/tokens", json=login("admin", "admin"), headers=asked)
                assert "X-Subject-Token" in token.headers["access-control-expose-headers"]
                assert "access-control-allow-credentials" not in token.headers


async def test_no_secret_stands_in_a_log_a_fault_or_an_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Passwords, tokens, user data, tokens of consoles, the names of their sessions: at the most talkative level, where
    things go right and where they go wrong."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    data = base64.b64encode(b"#!/bin/sh\necho the-user-data-is-private\n").decode()
    async with served(tmp_path) as here:
        world = here.world
        token = await world.token("alice", "red")
        secrets = [PASSWORD, token, data, "the-user-data-is-private"]

        async def ask(method: str, path: str, **more: Any) -> None:
            reply = await world.ask(method, path, token=token, **more)
            said.append(f"{reply.status_code} {reply.text}" if reply.status_code >= 400 else "")

        server_id = await here.server(token)
        await make_server(world, token, await make_image(world, token, "other"), "g9", user_data=data)
        bad = {"server": {"name": "", "flavorRef": "tiny", "networks": "none", "user_data": data + "?"}}
        await ask("POST", f"{NOVA}/servers", json=bad, version="2.96")
        wrong = login("alice", "red", "a wrong password")
        secrets.append("a wrong password")
        said.append((await world.http.post(f"{V3}/auth/tokens", json=wrong)).text)
        said.append((await world.http.get(f"{NOVA}/servers", headers={"X-Auth-Token": token + "x"})).text)
        url = await here.url(token, server_id)
        secret = url.rpartition("=")[2]
        secrets.append(secret)
        await ask("GET", f"{NOVA}/os-console-auth-tokens/{secret}")
        async with here.look(url) as socket:
            await socket.send(b"typed words\n")
            await heard(socket, b"typed words")
        secrets += ["typed words", *here.asked]

        async def broken(*_: Any) -> None:
            raise ZeroDivisionError("a bug")

        world.control.open_console = broken
        later = await here.url(token, server_id)
        secrets.append(later.rpartition("=")[2])
        async with here.look(later) as socket:
            await socket.wait_closed()
            said.append(socket.close_reason or "")

        def stored(tx: Tx) -> list[Any]:
            return [*tx.execute(events.select()), *tx.execute(sagas.select())]

        rows = repr(await world.store.read(stored))
    captured = capfd.readouterr()
    ours = [one for one in caplog.records if not one.name.startswith(("httpx", "httpcore", "tests"))]
    logged = "\n".join([*map(logging.Formatter().format, ours), captured.out, captured.err])
    assert "console opened" in logged, "something was logged at all"
    for where, text in (("log", logged), ("fault", "\n".join(said)), ("event", rows)):
        for one in secrets:
            assert one not in text, f"{one!r} stands in a {where}"
