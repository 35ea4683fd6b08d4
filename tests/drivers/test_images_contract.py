"""What every driver of the port `images` guarantees: whole and right, or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from droveway.domain.image_tickets import Direction, challenge_of
from droveway.drivers.images.simulated import ImageFaults, SimulatedImages
from droveway.ports.images import ImageRefused, TicketWanted
from droveway.store.image import images
from tests.drivers.image_worlds import DATA, WORLDS, ImageWorld, SimulatedWorld, play

EACH = pytest.mark.parametrize("kind", list(WORLDS))


@EACH
def test_all_of_it_and_nothing_else(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver, target = world.driver(), world.store / "target"
        await driver.fetch(world.image, target, await world.ticket())
        assert world.content(driver, target) == DATA
        assert world.left(driver) == ["target"]
        assert driver.progress(world.image) == ""

    play(kind, tmp_path, story)


@EACH
def test_several_at_once(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver = world.driver()
        targets = [world.store / f"target-{number}" for number in range(5)]
        tickets = [await world.ticket() for _ in targets]
        await asyncio.gather(*(driver.fetch(world.image, *one) for one in zip(targets, tickets, strict=True)))
        assert {world.content(driver, target) for target in targets} == {DATA}

    play(kind, tmp_path, story)


@EACH
def test_a_wrong_byte_is_refused_and_nothing_is_left(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver, target = world.driver(), world.store / "target"
        good = world.file().read_bytes()
        world.file().write_bytes(good[:-7] + b"?" + good[-6:])
        with pytest.raises(ImageRefused, match=f"Image {world.image.id} is damaged.* host h1 "):
            await driver.fetch(world.image, target, await world.ticket())
        assert world.left(driver) == []
        world.file().write_bytes(good)
        await driver.fetch(world.image, target, await world.ticket())
        assert world.content(driver, target) == DATA

    play(kind, tmp_path, story)


# The APIs of simulated hosts tell no length: a host asks on for what is missing, and is refused by its bound.
@pytest.mark.parametrize("kind", [kind for kind in WORLDS if kind != "simulated"])
def test_other_sizes_than_promised_are_refused(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver, target = world.driver(), world.store / "target"
        longer = msgspec.structs.replace(world.image, size_bytes=len(DATA) + 1)
        shorter = msgspec.structs.replace(world.image, size_bytes=len(DATA) - 1)
        for image in (longer, shorter):
            with pytest.raises(ImageRefused, match="is damaged"):
                async with asyncio.timeout(30):
                    await driver.fetch(image, target, await world.ticket())
            assert world.left(driver) == []

    play(kind, tmp_path, story)


@EACH
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        target = world.store / "target"
        if isinstance(world, SimulatedWorld):
            driver: SimulatedImages = world.make("h1")  # type: ignore[assignment]
            driver._faults = lambda: ImageFaults(disk_full=1.0)
        else:
            driver = world.driver()  # type: ignore[assignment]
            target.symlink_to("/dev/full")
        with pytest.raises(ImageRefused, match=f"Host h1 could not keep image {world.image.id}: the disk is full"):
            await driver.fetch(world.image, target, await world.ticket())
        assert world.left(driver) == []

    play(kind, tmp_path, story)


@EACH
def test_what_is_given_up_leaves_nothing(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver, target = world.driver(), world.store / "target"
        task = asyncio.create_task(driver.fetch(world.image, target, await world.ticket()))
        await world.until(lambda: bool(world.left(driver)) or task.done())
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():  # it may have been quicker
            await world.until(lambda: world.left(driver) == [])
            await driver.fetch(world.image, target, await world.ticket())
        assert world.content(driver, target) == DATA

    play(kind, tmp_path, story)


@EACH
def test_what_is_gone_is_refused(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver = world.driver()
        ticket = await world.ticket()
        await world.world.store.run(images.remove, world.image.id, None)
        world.file().unlink()
        with pytest.raises(ImageRefused, match=world.image.id):
            await driver.fetch(world.image, world.store / "target", ticket)
        assert world.left(driver) == []

    play(kind, tmp_path, story)


@EACH
def test_a_ticket_is_asked_for(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver, target = world.driver(), world.store / "target"
        if not world.needs_tickets:
            await driver.fetch(world.image, target, None)
            return
        with pytest.raises(TicketWanted) as wanted:
            await driver.fetch(world.image, target, None)
        assert wanted.value.challenge == challenge_of("of h1")
        others = await world.ticket("h2")
        with pytest.raises(TicketWanted, match="host h2"):
            await driver.fetch(world.image, target, others)
        await driver.fetch(world.image, target, await world.ticket())
        with pytest.raises(TicketWanted, match="used already"):
            spent = await world.ticket()
            await driver.fetch(world.image, world.store / "once", spent)
            await driver.fetch(world.image, world.store / "twice", spent)
        assert world.content(driver, target) == DATA

    play(kind, tmp_path, story)


@EACH
def test_tickets_in_vain_come_to_an_end(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        if not world.needs_tickets:
            return
        driver, target, others = world.driver(), world.store / "target", await world.ticket("h2")
        for _ in range(4):
            with pytest.raises(TicketWanted):
                await driver.fetch(world.image, target, others)
        with pytest.raises(ImageRefused, match="with no ticket"):
            await driver.fetch(world.image, target, others)
        assert world.left(driver) == []

    play(kind, tmp_path, story)


@EACH
def test_data_is_sent(tmp_path: Path, kind: str) -> None:
    async def story(world: ImageWorld) -> None:
        driver, source = world.driver(), world.store / "source"
        token = await world.world.token()
        body = {"name": "snapshot", "disk_format": "raw", "container_format": "bare"}
        reply = await world.world.ask("POST", "/image/v2/images", token=token, json=body)
        image_id = str(reply.json()["id"])
        ticket = await world.ticket(direction=Direction.SEND, image_id=image_id, most=3 << 20)
        source.write_bytes(bytes(2 << 20))
        if isinstance(driver, SimulatedImages):
            driver.files[source] = bytearray(2 << 20)
        if not world.needs_tickets:
            with pytest.raises(ImageRefused, match="cannot be sent"):
                await driver.send(image_id, source, ticket)
            return
        with pytest.raises(TicketWanted):
            await driver.send(image_id, source, None)
        await driver.send(image_id, source, ticket)
        row = await world.world.store.read(images.get, image_id, None)
        assert (row["status"], row["size_bytes"]) == ("active", 2 << 20)
        with pytest.raises(TicketWanted, match="used already"):
            await driver.send(image_id, source, ticket)

    play(kind, tmp_path, story)
