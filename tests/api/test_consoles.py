"""Consoles at the API: a URL, one use of it, bytes both ways, and the sentence with which a session ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import update
from websockets.exceptions import InvalidStatus

from droveway.api.consoles import sessions
from droveway.config.consoles import ConsoleConfig
from droveway.domain.consoles import STREAMS, ConsoleKind
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, assignments
from droveway.store.identity.assignments import Actor, AssignmentTarget
from droveway.store.schema import console_tokens as tokens
from tests.api.world import NOVA, in_world, make_image, make_server, reason
from tests.console_served import Served, heard, last_words, served

CONSOLES = "remote-consoles"


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CHECK_S", 0.05)


async def change(here: Served, server_id: str, **values: Any) -> None:
    await here.world.store.run(lambda tx: instances.set_(tx, server_id, **values))


async def test_a_url_opens_its_console_once(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)
        url = await here.url(token, server_id)
        async with here.look(url) as socket:
            assert socket.subprotocol == "binary"
            await socket.send(b"uname\n")
            assert await heard(socket, b"uname\n") == b"uname\n", "the simulated line gives back what it is given"
            async with here.look(url) as again:
                assert await last_words(again) == (
                    "This console URL was used already, has expired, or is for another server: ask for another URL."
                )
        screen = await here.url(token, server_id, ConsoleKind.VNC)
        async with here.look(screen) as socket:
            assert await heard(socket, b"\n") == b"RFB 003.008\n"
        assert here.world.api.consoles.held <= 1


async def test_a_token_is_of_one_server_and_console_and_is_not_used_up_at_another(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        one, other = await here.server(token), await here.server(token, "g2")
        url = await here.url(token, one)
        for wrong in (url.replace(one, other), url.replace("/serial/", "/vnc/"), url + "x", url.partition("?")[0]):
            async with here.look(wrong) as socket:
                assert "is for another server" in await last_words(socket), wrong
        async with here.look(url) as socket:
            await socket.send(b"still good")
            await heard(socket, b"still good")
        late = await here.url(token, one)
        here.world.clock.ahead_us += 181 * 1_000_000
        async with here.look(late) as socket:
            assert "has expired" in await last_words(socket)


async def test_pages_of_other_origins_are_refused_and_their_token_stays_good(tmp_path: Path) -> None:
    async with served(tmp_path, allowed_origins=("https://board.test",)) as here:
        token = await here.world.token("alice", "red")
        url = await here.url(token, await here.server(token))
        for origin in ("http://evil.test", "null", f"https://127.0.0.1:{here.port}", "http://board.test"):
            with pytest.raises(InvalidStatus) as refused:
                async with here.look(url, origin=origin):
                    pass
            assert refused.value.response.status_code == 403, origin
        for origin in (f"http://127.0.0.1:{here.port}", "https://board.test"):
            async with here.look(await here.url(token, urlsplit(url).path.rpartition("/")[2]), origin=origin) as socket:
                await socket.send(b"x")
                await heard(socket, b"x")


async def test_a_session_ends_with_what_it_hangs_on_and_says_why(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        store, token = here.world.store, await here.world.token("alice", "red")
        server_id = await here.server(token)

        async def ended(by: Any) -> str:
            async with here.look(await here.url(token, server_id)) as socket:
                await socket.send(b"x")
                await heard(socket, b"x")
                await by()
                return await last_words(socket)

        assert "moved to another host" in await ended(lambda: change(here, server_id, host="h2"))
        await change(here, server_id, host="h1")
        assert "was stopped" in await ended(lambda: change(here, server_id, vm_state="stopped", power_state=4))
        await change(here, server_id, vm_state="active", power_state=1)

        async def without_role() -> None:
            def write(tx: Tx) -> None:
                alice = accounts.find_user(tx, name="alice")
                red, role = accounts.find_project(tx, name="red"), accounts.find_role(tx, name="member")
                assert alice and red and role
                assignments.revoke(tx, Actor("user", alice["id"]), AssignmentTarget("project", red["id"]), role["id"])

            await store.run(write)

        assert "role was taken away" in await ended(without_role)
        admin = await here.world.token()
        async with here.look(await here.url(admin, server_id)) as socket:  # of another project: an admin's role
            await here.hosts["h1"].remove(server_id)
            await change(here, server_id, deleted=True, vm_state="deleted")
            assert await last_words(socket) == "The server was deleted."


async def test_of_what_lies_between_the_guest_and_the_store_the_sentence_waits(tmp_path: Path) -> None:
    """The guest's end is gone a moment before the store knows why; and where it never says, it was restarted."""
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)
        async with here.look(await here.url(token, server_id)) as socket:
            await here.hosts["h1"].stop(server_id, 0.0)
            await asyncio.sleep(0.2)
            await change(here, server_id, host="h2")
            assert await last_words(socket) == "The server has moved to another host: ask for another URL."


async def test_a_new_session_takes_over_a_line_and_the_older_one_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)
        async with here.look(await here.url(token, server_id)) as first:
            await first.send(b"x")
            await heard(first, b"x")
            async with here.look(await here.url(token, server_id)) as second:
                assert "Another session has taken over" in await last_words(first)
                await second.send(b"y")
                await heard(second, b"y")


async def test_whoever_says_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SPEAKS_S", 0.2)
    async with served(tmp_path, consoles=ConsoleConfig(idle_s=1.0)) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)
        async with here.look(await here.url(token, server_id, ConsoleKind.VNC)) as socket:
            assert "has answered the screen's greeting" in await last_words(socket)
        async with here.look(await here.url(token, server_id)) as socket:
            assert await last_words(socket) == "Nothing was typed or shown for 1 s: ask for another URL."


async def test_sessions_are_bounded_and_a_refusal_uses_up_no_token(tmp_path: Path) -> None:
    async with served(tmp_path, consoles=ConsoleConfig(sessions_per_server_max=1)) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)
        url = await here.url(token, server_id)
        async with here.look(await here.url(token, server_id, ConsoleKind.VNC)) as socket:
            await heard(socket, b"RFB")
            async with here.look(url) as second:
                assert "consoles of this server are open" in await last_words(second)
        while here.world.api.consoles.held:
            await asyncio.sleep(0.01)
        async with here.look(url) as socket:
            await socket.send(b"now")
            await heard(socket, b"now")


async def test_only_who_was_asked_brings_a_console(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)
        async with here.look(await here.url(token, server_id)) as socket:
            await socket.send(b"x")
            await heard(socket, b"x")
            for secret in (
                here.asked[-1],
                "",
                "guess",
            ):  # taken already; none; a guess: at the public listener, and here
                with pytest.raises(InvalidStatus):
                    async with here.look(f"http://x{STREAMS}?", additional_headers={"x-droveway-console": secret}):
                        pass


async def test_the_end_of_the_program_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        socket = await here.look(await here.url(token, await here.server(token)))
        await socket.send(b"x")
        await heard(socket, b"x")
    assert await last_words(socket) == "The API is being stopped: ask for another URL."


async def test_a_host_that_does_not_come_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ARRIVES_S", 0.2)
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)

        async def never(*_: Any) -> None:
            await asyncio.Event().wait()

        here.world.control.open_console = never
        async with here.look(await here.url(token, server_id)) as socket:
            assert (await last_words(socket)).startswith("Host h1 was asked for the console and has not come with it")
        await here.hosts["h1"].stop(server_id, 0.0)
        here.world.control.open_console = here._open
        async with here.look(await here.url(token, server_id)) as socket:
            assert "does not run on this host" in await last_words(socket)


# -- what is asked for ------------------------------------------------------------------------------------------------
async def test_types_are_offered_or_refused_as_nova_refuses_them(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        world, token = here.world, await here.world.token("alice", "red")
        server_id = await here.server(token)

        async def asked(protocol: str, name: str, version: str = "2.8") -> tuple[int, Any]:
            reply = await world.ask(
                "POST",
                f"{NOVA}/servers/{server_id}/{CONSOLES}",
                token=token,
                version=version,
                json={"remote_console": {"protocol": protocol, "type": name}},
            )
            return reply.status_code, reply.json() if reply.status_code == 200 else reason(reply)

        status, body = await asked("vnc", "novnc", "2.6")
        assert (status, body["remote_console"]["protocol"], body["remote_console"]["type"]) == (200, "vnc", "novnc")
        assert f"/console/vnc/{server_id}?token=" in body["remote_console"]["url"]
        for protocol, name in (("spice", "spice-html5"), ("rdp", "rdp-html5"), ("vnc", "xvpvnc"), ("mks", "webmks")):
            assert await asked(protocol, name) == (
                400,
                f"Unavailable console type {name}: guests have a screen (novnc) and a serial line (serial).",
            )
        status, said = await asked("vnc", "serial")
        assert (status, said) == (400, "Invalid console type serial: one of protocol vnc is novnc or xvpvnc.")
        assert (await asked("mks", "webmks", "2.7"))[0] == 400
        assert (await asked("vnc", "novnc", "2.5"))[0] == 404
        for action, name, wanted in (
            ("os-getVNCConsole", "novnc", 200),
            ("os-getSerialConsole", "serial", 200),
            ("os-getSPICEConsole", "spice-html5", 400),
            ("os-getRDPConsole", "rdp-html5", 400),
        ):
            for version, status in (("2.5", wanted), ("2.6", 404)):
                reply = await world.ask(
                    "POST",
                    f"{NOVA}/servers/{server_id}/action",
                    token=token,
                    version=version,
                    json={action: {"type": name}},
                )
                assert reply.status_code == status, (action, version, reply.text)
                if reply.status_code == 200:
                    assert reply.json()["console"]["type"] == name


async def test_who_may_ask_and_of_what(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await make_server(world, token, await make_image(world, token))
        body = {"remote_console": {"protocol": "serial", "type": "serial"}}

        async def asked(who: str) -> tuple[int, str]:
            reply = await world.ask(
                "POST", f"{NOVA}/servers/{server_id}/{CONSOLES}", token=who, version="2.6", json=body
            )
            return reply.status_code, reason(reply)

        status, said = await asked(token)
        assert (status, "api.agents_listen" in said) == (409, True), "no way to this API"
        world.api.consoles.uplink = "https://api.test"
        assert await asked(token) == (409, "Instance g1 is not ready: it is still being built, or has no host.")
        await world.store.run(lambda tx: instances.set_(tx, server_id, host="h1", vm_state="stopped", power_state=4))
        status, said = await asked(token)
        assert (status, "start it first" in said) == (409, True)
        assert (await asked(await world.token("rita", "red")))[0] == 403
        assert (await asked(await world.token("bob", "blue")))[0] == 404


async def test_admins_see_what_a_token_is_for_without_using_it(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        world, token, admin = here.world, await here.world.token("alice", "red"), await here.world.token()
        server_id = await here.server(token)
        secret = (await here.url(token, server_id)).rpartition("=")[2]
        path = f"{NOVA}/os-console-auth-tokens/{secret}"
        assert (await world.ask("GET", path, token=token, version="2.31")).status_code == 403
        assert (await world.ask("GET", path, token=admin, version="2.30")).status_code == 401
        for _ in range(2):
            reply = await world.ask("GET", path, token=admin, version="2.31")
            assert reply.json() == {
                "console": {"instance_uuid": server_id, "host": "h1", "port": None, "internal_access_path": None}
            }
        assert (await world.ask("GET", path + "x", token=admin, version="2.31")).status_code == 404


async def test_tokens_of_a_server_are_bounded_and_stored_as_a_hash(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        token = await here.world.token("alice", "red")
        server_id = await here.server(token)
        urls = [await here.url(token, server_id) for _ in range(34)]

        def kept(tx: Tx) -> list[Any]:
            return tx.execute(tokens.select()).fetchall()

        rows = await here.world.store.read(kept)
        assert len(rows) == 32
        assert not any(url.rpartition("=")[2] in repr(rows) for url in urls)
        await here.world.store.run(lambda tx: tx.execute(update(tokens).values(expires_at_us=1)))
        await here.url(token, server_id)
        assert len(await here.world.store.read(kept)) == 1, "what has expired went"


# -- pages ------------------------------------------------------------------------------------------------------------
async def test_pages_are_served_with_what_they_need_and_fetch_nothing_elsewhere(tmp_path: Path) -> None:
    novnc = tmp_path / "novnc" / "core"
    novnc.mkdir(parents=True)
    (novnc / "rfb.js").write_text("export default 1;")
    async with served(
        tmp_path, consoles=ConsoleConfig(novnc_path=str(novnc.parent)), allowed_origins=("https://board.test",)
    ) as here:
        http = here.world.http
        for kind in ConsoleKind:
            page = await http.get(f"/console/{kind}/some-id?token=t")
            assert page.status_code == 200
            assert "frame-ancestors 'self' https://board.test" in page.headers["content-security-policy"]
            assert page.headers["referrer-policy"] == "no-referrer"
            assert "//" not in page.text.replace("<!DOCTYPE", ""), "no other place is named"
        for path in ("own/session.js", "own/vnc.js", "own/console.css", "xterm/xterm.js", "novnc/core/rfb.js"):
            found = await http.get(f"/console/files/{path}")
            assert found.status_code == 200, path
            assert found.headers["x-content-type-options"] == "nosniff"
        for path in ("own/..%2fpages.js", "novnc/%2e%2e/secret.js", "own/nothing.js", "else/x.js", "xterm/LICENSE"):
            assert (await http.get(f"/console/files/{path}")).status_code == 404, path
        (novnc / "rfb.js").unlink()
        page = await http.get("/console/vnc/some-id?token=t")
        assert page.status_code == 503
        assert "install the package novnc" in page.text
