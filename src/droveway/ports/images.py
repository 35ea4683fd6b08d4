"""Where a host gets the data of images from, and where it sends that of new ones.

Guarantees every driver gives (tests/drivers/test_images_contract.py holds them):
- when `fetch` returns, the file holds the image's own bytes: as many as its size, with its sha512;
- when it raises anything but `TicketWanted`, or is cancelled, nothing of the file is left; with `TicketWanted` the half
  may be kept, and the next `fetch` of the same file goes on behind it, until it has waited for HALF_KEPT_S;
- it ends: a source that gives no bytes, or too few, is left for another one, and after a bound it has failed;
- no call blocks the event loop, and a bounded number of transfers is under way at once: the others wait.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from droveway.domain.faults import Fault
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef

HALF_KEPT_S = 600.0  # since its last transfer


class ImageRefused(Fault):
    """These bytes cannot be had here: they are damaged or deleted, no source gives them, or the disk is full."""


class TicketWanted(Fault):
    """A ticket for this image is needed, or the one that was there is of no use any more. `challenge` names this host
    in the next one."""

    def __init__(self, reason: str, challenge: str) -> None:
        super().__init__(reason)
        self.challenge = challenge


class Images(Protocol):
    async def fetch(self, image: ImageRef, target: Path, ticket: ImageTicket | None) -> None:
        """Make the file `target`, which is not there, of the image's data. Of one file one call at a time. Raises
        ImageRefused, TicketWanted."""
        ...

    async def send(self, image_id: str, source: Path, ticket: ImageTicket | None) -> None:
        """Give that file to an API as the data of an image. Raises ImageRefused, TicketWanted; the image's row says
        whether it has arrived, whatever was raised."""
        ...

    def progress(self, image: ImageRef) -> str:
        """How far a fetch of it is, for people; empty when none is under way. Never waits."""
        ...

    async def sweep(self) -> None:
        """Delete partial downloads whose last transfer ended HALF_KEPT_S ago."""
        ...

    def close(self) -> None:
        """End what is under way; nothing half stays."""
        ...
