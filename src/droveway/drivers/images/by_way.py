"""Each image by its own way: control says with an image whether hosts see its file or fetch it."""

from __future__ import annotations

from pathlib import Path

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.ports.images import Images


class ImagesByTransport:
    """Answers droveway.ports.images.Images."""

    def __init__(self, seen: Images, fetched: Images) -> None:
        self._seen, self._fetched = seen, fetched

    def _of(self, image: ImageRef) -> Images:
        return self._seen if image.path else self._fetched

    async def fetch(self, image: ImageRef, target: Path, ticket: ImageTicket | None) -> None:
        await self._of(image).fetch(image, target, ticket)

    async def send(self, image_id: str, source: Path, ticket: ImageTicket | None) -> None:
        await self._fetched.send(image_id, source, ticket)

    def progress(self, image: ImageRef) -> str:
        return self._of(image).progress(image)

    async def sweep(self) -> None:
        await self._seen.sweep()
        await self._fetched.sweep()

    def close(self) -> None:
        self._seen.close()
        self._fetched.close()
