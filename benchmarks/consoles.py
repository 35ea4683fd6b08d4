"""Consoles: how soon whoever has a URL sees the screen, on real guests, while others look, too.

Each look is what a browser does with the URL of a console: a websocket, its token used up in the store, the host asked
over the bus, the host's own connection to the API, and the first bytes of the guest's VNC server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from websockets.asyncio.client import connect

from benchmarks.claims import Claim, median, progress
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud

LOOKS, OTHERS = 40, 8
SETTLE_S = 5.0
NEEDS = ("hosts",)


def measure() -> Iterator[Claim]:
    with own_cloud() as cloud:
        cloud.up(simulated=False, foreground=False, quiet=True)
        compute = Compute(cloud.port, cloud.clouds_yaml)
        server = compute.create("shown", compute.image_id())
        compute.wait(server, "ACTIVE")
        time.sleep(SETTLE_S)
        progress(f"{LOOKS} looks at a screen")
        yield asyncio.run(_looks(cloud, compute, server))
        compute.delete(server)


def url_of(compute: Compute, server: str) -> str:
    path = f"/compute/v2.1/servers/{server}/action"
    found = compute.must("POST", path, {"os-getVNCConsole": {"type": "novnc"}}, "2.5")
    return str(found["console"]["url"]).replace("http", "ws", 1)


async def _looks(cloud: Cloud, compute: Compute, server: str) -> Claim:
    """One after the other, beside some that stay."""
    stay = [await connect(url_of(compute, server), proxy=None, compression=None) for _ in range(OTHERS - 1)]
    took_ms = []
    for _ in range(LOOKS):
        url = url_of(compute, server)
        began = time.monotonic()
        async with connect(url, proxy=None, compression=None) as socket:
            first = await socket.recv()
            took_ms.append((time.monotonic() - began) * 1000)
        assert bytes(first).startswith(b"RFB 003.00"), first
        await asyncio.sleep(0.05)
    for socket in stay:
        await socket.close()
    worst = max(took_ms)
    return Claim(
        "console: token to first byte of VNC",
        median(took_ms),
        150,
        "ms",
        f"median of {LOOKS}, beside {OTHERS - 1} others of the same server; the slowest: {worst:.0f} ms",
    )
