"""A console travels from its host to the API over TLS: by the certificate of that host, and of no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from droveway.domain.consoles import ConsoleKind
from droveway.domain.faults import Conflict
from droveway.drivers.consoles.websocket import WebsocketUplinks
from droveway.ports.consoles import UplinkRefused
from tests import certified
from tests.api.world import NOVA, booted, make_image, make_server
from tests.certified import Cloud, join
from tests.console_served import heard, last_words


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    yield from certified.serving(tmp_path, monkeypatch)


def test_a_host_brings_a_console_by_its_own_certificate(cloud: Cloud, tmp_path: Path) -> None:
    paths = {name: join(cloud, name).tls_path for name in ("n1", "n2")}
    paths["none"] = ""
    world = cloud.world
    tried: list[str] = []

    async def carry(by: str, url: str, session: str) -> None:
        """As the agent of that host would, whatever it was asked for."""
        try:
            uplink = await WebsocketUplinks(by, "", paths[by]).connect(url, session)
        except UplinkRefused as fault:
            tried.append(fault.reason)
            raise Conflict(fault.reason) from None
        await uplink.send(b"RFB 003.008\n")
        echo = await uplink.receive()
        await uplink.send(b"echo:" + (echo or b""))
        await uplink.close("The guest has said enough.")

    kept: list[asyncio.Task[None]] = []

    async def story() -> None:
        token = await world.token("alice", "red")
        server_id = await make_server(world, token, await make_image(world, token))
        await booted(world, server_id, "n1")
        for by, words in (("n2", "HTTP 403"), ("none", "has no certificate"), ("n1", "")):

            async def asked(host: str, _: str, kind: ConsoleKind, url: str, session: str, by: str = by) -> None:
                assert (host, kind, url) == ("n1", ConsoleKind.VNC, cloud.config.agents_url)
                kept.append(asyncio.create_task(carry(by, url, session)))
                await asyncio.wait({kept[-1]}, timeout=0.5)
                if kept[-1].done():
                    kept[-1].result()

            world.control.open_console = asked
            body: dict[str, Any] = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
            path = f"{NOVA}/servers/{server_id}/remote-consoles"
            reply = await world.ask("POST", path, token=token, version="2.6", json=body)
            query = reply.json()["remote_console"]["url"].partition("/console/")[2]
            async with connect(f"ws://127.0.0.1:{cloud.port}/console/{query}", proxy=None) as socket:
                if words:
                    assert words in (tried[-1] if await last_words(socket) else ""), by
                    continue
                await heard(socket, b"RFB 003.008\n")
                await socket.send(b"hello")
                await heard(socket, b"echo:hello")
                assert await last_words(socket) == "The guest has said enough."

    cloud.on_loop(story())
    assert len(tried) == 2
