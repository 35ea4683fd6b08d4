"""Images over TLS: a host shows its certificate at the agents' listener, and a ticket is good with that one alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from droveway.cli.certificates import ca
from droveway.domain.image_tickets import Direction, ImageTicket, challenge_of
from droveway.domain.model import ImageRef
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.images.http import HttpImages
from droveway.pki.host_files import Settings, look
from droveway.ports.images import ImageRefused, TicketWanted
from droveway.store.image import image_tickets, images
from tests.api.world import RAW, make_image
from tests.certified import Cloud, done, join, serving

VERIFIER = "what the agent of h7 knows"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    yield from serving(tmp_path, monkeypatch)


def image_of(cloud: Cloud) -> ImageRef:
    async def made() -> Any:
        image_id = await make_image(cloud.world, await cloud.world.token())
        return await cloud.world.store.read(images.get, image_id, None)

    row = cloud.on_loop(made())
    cloud.run(image_tickets.replace, 0)
    return ImageRef(row["id"], "raw", row["size_bytes"], row["sha512"], "")


def fetched(cloud: Cloud, image: ImageRef, tls_path: str, target: Path, url: str = "") -> bytes:
    """By an agent that knows h7's secret, and shows the certificate that lies there."""
    token = cloud.run(image_tickets.issue, image.id, "h7", Direction.FETCH, len(RAW), challenge_of(VERIFIER))
    ticket = ImageTicket(token, (url or f"https://127.0.0.1:{cloud.agents_port}",))

    async def fetch() -> None:
        driver = HttpImages("h7", VERIFIER, SystemClock(), SystemChance(), tls_path=tls_path)
        try:
            await driver.fetch(image, target, ticket)
        finally:
            driver.close()

    asyncio.run(fetch())
    return target.read_bytes()


def test_a_ticket_goes_with_the_certificate_of_its_host(cloud: Cloud, tmp_path: Path) -> None:
    settings, other = join(cloud, "h7"), join(cloud, "h8")
    image = image_of(cloud)
    assert fetched(cloud, image, settings.tls_path, tmp_path / "one") == RAW
    with pytest.raises(TicketWanted, match="is that of host h8, not of host h7"):
        fetched(cloud, image, other.tls_path, tmp_path / "two")
    assert look(settings, renews_now=True).renewed
    assert fetched(cloud, image, settings.tls_path, tmp_path / "three") == RAW
    assert fetched(cloud, image, settings.tls_path, tmp_path / "public", cloud.url) == RAW, "where none is asked for"
    done(ca, "revoke", "--host", "h7")
    with pytest.raises(TicketWanted, match="was revoked"):
        fetched(cloud, image, settings.tls_path, tmp_path / "four")
    assert not (tmp_path / "two").exists() and not (tmp_path / "four").exists()


def test_files_that_are_no_certificate_are_said_and_leave_nothing(cloud: Cloud, tmp_path: Path) -> None:
    settings: Settings = join(cloud, "h7")
    image = image_of(cloud)
    ca_file = Path(settings.tls_path) / "ca.pem"
    whole = ca_file.read_text()
    for text in ("", "nonsense"):
        ca_file.write_text(text)
        with pytest.raises(ImageRefused, match="cannot use what it has for TLS"):
            fetched(cloud, image, settings.tls_path, tmp_path / "one")
    ca_file.write_text(whole)
    assert fetched(cloud, image, settings.tls_path, tmp_path / "one") == RAW
