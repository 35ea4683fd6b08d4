"""The consoles of guests, as every hypervisor driver gives them: simulated, and libvirt with real guests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from droveway.domain.consoles import ConsoleKind
from droveway.domain.model import GuestSpec
from droveway.ports.consoles import ConsoleStream
from droveway.ports.hypervisor import Hypervisor, HypervisorRefused
from tests.drivers.hypervisor_worlds import SOON_S, LabWorld, SimulatedWorld, World
from tests.drivers.test_hypervisor_contract import ABSENT_ID


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "simulated":
        return SimulatedWorld(tmp_path)
    lab, image = request.getfixturevalue("lab_hosts")
    return LabWorld(tmp_path, lab, image)


class Opened:
    """The consoles that a story opens, closed at its end."""

    def __init__(self) -> None:
        self._streams: list[ConsoleStream] = []

    async def __call__(self, hypervisor: Hypervisor, spec: GuestSpec, kind: ConsoleKind) -> ConsoleStream:
        self._streams.append(await hypervisor.open_console(spec.instance_id, kind))
        return self._streams[-1]

    async def __aenter__(self) -> Opened:
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.close()
        await asyncio.sleep(0.01)  # the loop closes their sockets in its next turn


async def heard(stream: ConsoleStream, words: bytes) -> bytes:
    """All that comes until these words have."""
    got = b""
    async with asyncio.timeout(SOON_S):
        while words not in got:
            piece = await stream.read()
            assert piece, f"it ended after {got!r}"
            got += piece
    return got


async def ends(stream: ConsoleStream) -> bool:
    async with asyncio.timeout(SOON_S):
        while await stream.read():
            pass
    return True


def test_what_is_typed_at_a_serial_line_is_answered_by_one_client_after_the_other(world: World) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, await w.boot()
        is_real = isinstance(w, LabWorld)
        if is_real:
            await w.until_booted(spec)
        async with Opened() as opened:
            for word in (b"drove", b"way"):
                stream = await opened(a, spec, ConsoleKind.SERIAL)
                await stream.write(b"\necho over; echo $((6 * 7))" + word + b"\n")
                await heard(stream, b"42" + word if is_real else word)
                stream.close()
            screen = await opened(a, spec, ConsoleKind.VNC)
            assert (await heard(screen, b"\n")).startswith(b"RFB 003.00"), "both are there at a time"
            if is_real:
                assert "42drove" in await a.console(spec.instance_id, None), "its log goes on beside it"
            line = await opened(a, spec, ConsoleKind.SERIAL)
            await a.stop(spec.instance_id, 0.0)
            assert await ends(screen)
            assert await ends(line), "they end with their guest"

    world.run(story)


def test_a_guest_that_does_not_run_here_has_no_console(world: World) -> None:
    async def story(w: World) -> None:
        spec = w.deaf()
        await w.a.hypervisor.prepare(spec)
        for instance_id in (ABSENT_ID, spec.instance_id):
            for kind in ConsoleKind:
                with pytest.raises(HypervisorRefused, match="does not run on this host"):
                    await w.a.hypervisor.open_console(instance_id, kind)

    world.run(story)


def test_the_console_of_a_guest_that_moves_ends_and_is_there_on_the_other_host(world: World) -> None:
    async def story(w: World) -> None:
        spec = await w.boot()
        is_real = isinstance(w, LabWorld)
        if is_real:
            await w.until_booted(spec)
        async with Opened() as opened:
            here = {kind: await opened(w.a.hypervisor, spec, kind) for kind in ConsoleKind}
            await heard(here[ConsoleKind.VNC], b"RFB")
            await w.move(spec)
            assert await ends(here[ConsoleKind.VNC])
            assert await ends(here[ConsoleKind.SERIAL])
            there = await opened(w.b.hypervisor, spec, ConsoleKind.SERIAL)
            await there.write(b"\necho moved$((20 + 3))\n")
            await heard(there, b"moved23" if is_real else b"moved")
            await heard(await opened(w.b.hypervisor, spec, ConsoleKind.VNC), b"RFB")

    world.run(story)
