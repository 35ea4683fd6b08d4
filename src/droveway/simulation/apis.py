"""The APIs as simulated hosts reach them for images: the real application, in the process of a control that may die
while it gives one.

The image is a real file, the same in every world and for every seed; nothing else of the machine is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from droveway.domain.image_tickets import PATH

if TYPE_CHECKING:
    from droveway.simulation.machines import ControlProcess
    from droveway.simulation.world import World

Message = MutableMapping[str, Any]

IMAGE_ID = "5eed0000-0000-4000-8000-000000000001"
DATA = b"".join(number.to_bytes(4, "big") for number in range(4096))
SHA512 = hashlib.sha512(DATA).hexdigest()
PIECE_BYTES = len(DATA) // 8
PIECE_S, PIECE_SLOW_S, SLOW = 0.25, 8.0, 0.05  # a piece takes so long on its way; of some it is the second
SILENT_S = 6.0  # then the reader takes the connection for dead
_directory: list[tempfile.TemporaryDirectory[str]] = []


def images_directory() -> Path:
    """Where the file of the image is, for this process of ours."""
    if not _directory:
        _directory.append(tempfile.TemporaryDirectory(prefix="droveway-simulation-"))
        (Path(_directory[0].name) / IMAGE_ID).write_bytes(DATA)
    return Path(_directory[0].name)


class Apis:
    """Answers SimulatedApis."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def give(self, image_id: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> tuple[int, str]:
        world = self._world
        if not world.controls:
            raise ConnectionError("no API answers")
        control = world.controls[world.rng.choice(list(world.controls))]
        arrived: asyncio.Queue[Message | None] = asyncio.Queue()
        sent = [(name.encode(), text.encode()) for name, text in headers.items()]
        scope = {"type": "http", "method": "GET", "path": f"{PATH}/{image_id}", "query_string": b"", "headers": sent}
        control.spawn(_serve(world, control, scope, arrived))
        status, refusal = 0, b""
        while (message := await _next(arrived)) is not None:
            if message["type"] == "http.response.start":
                status = message["status"]
                world.counts[f"image asked for: {status}"] += 1
            elif status in (200, 206) and message.get("body"):
                take(message["body"])
            else:
                refusal += message.get("body", b"")
        return status, "" if not refusal else str(msgspec.json.decode(refusal)["error"]["message"])

    async def take(self, image_id: str, headers: Mapping[str, str], data: bytes) -> tuple[int, str]:
        raise ConnectionError("no simulated host sends an image")


async def _next(arrived: asyncio.Queue[Message | None]) -> Message | None:
    try:
        async with asyncio.timeout(SILENT_S):
            return await arrived.get()
    except TimeoutError:
        raise ConnectionError("it broke off") from None


async def _serve(world: World, control: ControlProcess, scope: Message, arrived: asyncio.Queue[Message | None]) -> None:
    """What uvicorn does for one request that streams its reply. A process that dies says nothing more."""
    has_asked = False

    async def receive() -> Message:
        nonlocal has_asked
        if has_asked:
            await asyncio.Event().wait()  # the reader stays connected
        has_asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        is_slow = world.rng.random() < SLOW
        await asyncio.sleep(world.rng.random() * (PIECE_SLOW_S if is_slow else PIECE_S))
        arrived.put_nowait(message)

    app: Any = control.app
    await app(scope, receive, send)
    arrived.put_nowait(None)
