"""The data of images for hosts: with a ticket for that image and that host, from anywhere on, and once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from droveway.api.image import host_images
from droveway.domain.image_tickets import PATH, TICKET_HEADER, VERIFIER_HEADER, Direction, challenge_of
from droveway.store.compute import instances
from droveway.store.image import image_tickets, images
from droveway.store.schema import spent_tickets
from tests.api.world import IMG, RAW, World, in_world, left, make_image, make_server, reason

VERIFIER = "what only the agent of h1 knows"


async def ticket(
    world: World, image_id: str, direction: Direction = Direction.FETCH, most: int = len(RAW), verifier: str = VERIFIER
) -> str:
    asked = (image_id, "h1", direction, most, challenge_of(verifier))
    token = await world.store.run(image_tickets.issue, *asked)
    if token is None:
        await world.store.run(image_tickets.replace, 0)
        token = await world.store.run(image_tickets.issue, *asked)
    assert token is not None
    return token


async def fetch(world: World, image_id: str, token: str, verifier: str = VERIFIER, **headers: str) -> httpx.Response:
    sent = {TICKET_HEADER: token, VERIFIER_HEADER: verifier, **headers}
    return await world.http.get(f"{PATH}/{image_id}", headers=sent)


async def send(world: World, image_id: str, token: str, data: bytes, verifier: str = VERIFIER) -> httpx.Response:
    sent = {TICKET_HEADER: token, VERIFIER_HEADER: verifier, "content-type": "application/octet-stream"}
    return await world.http.put(f"{PATH}/{image_id}", headers=sent, content=data)


async def test_all_of_it_and_then_no_more(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        image_id = await make_image(world, await world.token())
        row = await world.store.read(images.get, image_id, None)
        token = await ticket(world, image_id)
        reply = await fetch(world, image_id, token)
        assert (reply.status_code, reply.content) == (200, RAW)
        assert reply.headers["etag"] == f'"{row["sha512"]}"'
        assert reply.headers["accept-ranges"] == "bytes"
        again = await fetch(world, image_id, token)
        assert again.status_code == 409
        assert "used already" in reason(again) and image_id in reason(again)


async def test_going_on_is_no_second_use(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        image_id = await make_image(world, await world.token())
        token = await ticket(world, image_id)
        first = await fetch(world, image_id, token, range="bytes=0-99")
        assert (first.status_code, first.content) == (206, RAW[:100])
        assert first.headers["content-range"] == f"bytes 0-99/{len(RAW)}"
        etag = first.headers["etag"]
        rest = await fetch(world, image_id, token, range="bytes=100-", **{"if-match": etag})
        assert (rest.status_code, rest.content) == (206, RAW[100:])
        assert (await fetch(world, image_id, token, range="bytes=0-99")).status_code == 409


@pytest.mark.parametrize(
    ("headers", "status", "word"),
    [
        ({"range": f"bytes={len(RAW)}-"}, 416, "nothing in"),
        ({"range": "bytes=9-3"}, 416, "nothing in"),
        ({"if-match": '"something else"'}, 412, "begin again"),
    ],
)
async def test_a_part_of_something_else(tmp_path: Path, headers: dict[str, str], status: int, word: str) -> None:
    async with in_world(tmp_path) as world:
        image_id = await make_image(world, await world.token())
        token = await ticket(world, image_id)
        reply = await fetch(world, image_id, token, **headers)
        assert reply.status_code == status and word in reason(reply)
        assert (await fetch(world, image_id, token, range="chapters=2")).content == RAW  # a range nobody knows


async def test_what_is_no_ticket_for_that(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        user = await world.token()
        image_id, other_id = await make_image(world, user), await make_image(world, user, "other")
        token = await ticket(world, image_id)
        body, _, mac = token.partition(".")
        wrong = [
            (await fetch(world, image_id, token, "what the agent of h2 knows"), 403, "host h1"),
            (await fetch(world, other_id, token), 403, f"for image {image_id}"),
            (await send(world, image_id, token, RAW), 403, "not send it"),
            (await fetch(world, image_id, await ticket(world, image_id, Direction.SEND)), 403, "not fetch it"),
            (await fetch(world, image_id, await ticket(world, image_id, most=10)), 403, "for 10"),
            (await fetch(world, image_id, f"{body[:-4]}AAAA.{mac}"), 401, "ticket"),
            (await fetch(world, image_id, f"{body}.{mac[:-4]}AAA="), 401, "not valid"),
            (await fetch(world, image_id, "x" * 5000), 401, "no ticket"),
            (await world.http.get(f"{PATH}/{image_id}"), 401, "with a ticket"),
            (await world.http.get(f"{PATH}/{image_id}", headers={"x-auth-token": user}), 401, "with a ticket"),
            (await fetch(world, "../etc/passwd", token), 404, ""),
        ]
        for reply, status, word in wrong:
            assert reply.status_code == status and word in reason(reply), reason(reply)
        assert (await fetch(world, image_id, token)).content == RAW  # none of that has used it up


async def test_it_ends_with_its_key(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        image_id = await make_image(world, await world.token())
        old = await ticket(world, image_id)
        spent = await ticket(world, image_id)
        await fetch(world, image_id, spent)
        number = await world.store.read(image_tickets.newest)
        assert await world.store.run(image_tickets.replace, number - 1) == number  # somebody else has replaced it
        for _ in range(image_tickets.KEYS_KEPT - 1):
            number = await world.store.run(image_tickets.replace, number)
            assert (await fetch(world, image_id, old, range="bytes=0-0")).status_code == 206
            assert (await fetch(world, image_id, spent)).status_code == 409
        await world.store.run(image_tickets.replace, number)
        for one in (old, spent):
            reply = await fetch(world, image_id, one)
            assert reply.status_code == 401 and "expired" in reason(reply)
        assert await world.store.read(lambda tx: tx.execute(spent_tickets.select()).all()) == []
        assert (await fetch(world, image_id, await ticket(world, image_id))).content == RAW


async def test_a_deleted_image_stays_for_the_hosts_of_its_servers(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        user = await world.token()
        image_id, unused_id = await make_image(world, user), await make_image(world, user, "unused")
        server = await make_server(world, user, image_id)
        for one in (image_id, unused_id):
            assert (await world.ask("DELETE", f"{IMG}/images/{one}", token=user)).status_code == 204
            assert (await world.ask("GET", f"{IMG}/images/{one}", token=user)).status_code == 404
        assert left(world) == [image_id]
        ref = await world.store.read(images.ref, image_id, "")
        assert (ref.size_bytes, ref.path) == (len(RAW), "")
        assert (await fetch(world, image_id, await ticket(world, image_id))).content == RAW
        gone = await fetch(world, unused_id, await ticket(world, unused_id))
        assert gone.status_code == 410 and "no server uses it" in reason(gone)

        await host_images.sweep(world.api)
        assert left(world) == [image_id]
        await world.store.run(lambda tx: instances.set_(tx, server, deleted=True))
        await host_images.sweep(world.api)
        assert left(world) == []
        assert (await fetch(world, image_id, await ticket(world, image_id))).status_code == 410
        assert await world.store.read(images.unused, 10) == []


async def test_a_restart_keeps_what_hosts_may_fetch(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        user = await world.token()
        image_id = await make_image(world, user)
        await make_server(world, user, image_id)
        await world.ask("DELETE", f"{IMG}/images/{image_id}", token=user)
        await host_images.uploads.recover(world.api)
        assert left(world) == [image_id]


async def test_so_many_at_once_and_the_others_are_told_to_come_again(tmp_path: Path) -> None:
    async with in_world(tmp_path, image_streams_max=2) as world:
        image_id = await make_image(world, await world.token(), data=bytes(3 << 20))
        api, most = world.api, 3 << 20
        claims = [
            (
                await world.store.read(
                    image_tickets.admit, await ticket(world, image_id, most=most), image_id, Direction.FETCH, VERIFIER
                )
            )
            for _ in range(2)
        ]
        streams = [host_images._given(api, one, 0, 3 << 20, 3 << 20) for one in claims]
        for stream in streams:
            await anext(stream)
        reply = await fetch(world, image_id, await ticket(world, image_id, most=most))
        assert reply.status_code == 503 and reply.headers["retry-after"] == "1"
        assert "2 images are being fetched" in reason(reply)
        assert len(await anext(streams[0])) == 1 << 20
        for stream in streams:
            await stream.aclose()
        assert api.image_streams.total() == 0
        assert (await fetch(world, image_id, await ticket(world, image_id, most=most))).status_code == 200
        assert api.image_streams.total() == 0


async def test_a_host_that_goes_away_leaves_its_place(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        image_id = await make_image(world, await world.token(), data=bytes(3 << 20))
        token = await ticket(world, image_id, most=3 << 20)
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if len(sent) < 2:
                await asyncio.sleep(0.02)
            return {"type": "http.disconnect" if len(sent) > 1 else "http.request", "body": b"", "more_body": False}

        async def take(message: Any) -> None:
            sent.append(message)
            await asyncio.sleep(0.05)

        headers = [(TICKET_HEADER.encode(), token.encode()), (VERIFIER_HEADER.encode(), VERIFIER.encode())]
        scope = {"type": "http", "method": "GET", "path": f"{PATH}/{image_id}", "headers": headers}
        with contextlib.suppress(asyncio.CancelledError):
            await world.app(scope, receive, take)
        assert world.api.image_streams.total() == 0
        assert (await fetch(world, image_id, token, range="bytes=0-0")).status_code == 206  # it has not got all of it


async def queued(world: World, user: str) -> str:
    body = {"name": "snapshot", "disk_format": "raw", "container_format": "bare"}
    return str((await world.ask("POST", f"{IMG}/images", token=user, json=body)).json()["id"])


async def test_a_host_sends_the_data_of_one_image(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        user = await world.token()
        image_id, other_id = await queued(world, user), await queued(world, user)
        token = await ticket(world, image_id, Direction.SEND)
        wrong = [
            (await send(world, image_id, token, RAW + b"x"), 413),
            (await send(world, other_id, token, RAW), 403),
            (await send(world, image_id, token, RAW, "what the agent of h2 knows"), 403),
            (await send(world, image_id, token, b""), 400),
        ]
        assert [reply.status_code for reply, _ in wrong] == [status for _, status in wrong]
        assert left(world) == []
        assert (await send(world, image_id, token, RAW)).status_code == 204  # none of that has used it up
        row = await world.store.read(images.get, image_id, None)
        assert (row["status"], row["size_bytes"]) == ("active", len(RAW))
        again = await send(world, image_id, token, RAW)
        assert again.status_code == 409 and "used already" in reason(again)
        assert (await world.ask("GET", f"{IMG}/images/{image_id}/file", token=user)).content == RAW


async def test_a_ticket_is_in_no_log_and_no_reply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also when it is refused, and when the server has a bug."""

    with caplog.at_level(logging.DEBUG):
        async with in_world(tmp_path) as world:
            image_id = await make_image(world, await world.token())
            token = await ticket(world, image_id)
            replies = [await fetch(world, image_id, token, "h2"), await fetch(world, image_id, token)]
            (world.images / image_id).unlink()
            replies.append(await fetch(world, image_id, await ticket(world, image_id)))
            world.api.image_streams = None  # type: ignore[assignment]
            replies.append(await fetch(world, image_id, await ticket(world, image_id)))
            assert [reply.status_code for reply in replies] == [403, 200, 410, 500]
            said = (
                caplog.text + "".join(capfd.readouterr()) + "".join(reply.text for reply in replies[:1] + replies[2:])
            )
            assert "failed" in said
            assert token not in said and token.partition(".")[2] not in said and VERIFIER not in said
