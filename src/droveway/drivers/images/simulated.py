"""Images as simulated hosts fetch them: from APIs that are called and not connected to, into files in memory.

It draws from its chance whether a byte is wrong on the way, or the disk is full; what APIs do is up to them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import msgspec

from droveway.domain.image_tickets import TICKET_HEADER, VERIFIER_HEADER, ImageTicket, challenge_of
from droveway.domain.model import ImageRef
from droveway.ports.clock import Chance, Clock
from droveway.ports.images import HALF_KEPT_S, ImageRefused, TicketWanted

NOBODY_S = 120.0
PAUSE_S, PAUSE_MAX_S = 0.5, 15.0
TICKETS_IN_VAIN_MAX = 5
ANOTHER_TICKET = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)


class SimulatedApis(Protocol):
    async def give(self, image_id: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> tuple[int, str]:
        """Ask any of them for an image: the status, and the sentence of a refusal. What is given goes to `take` as it
        comes. Raises ConnectionError when it breaks off."""
        ...

    async def take(self, image_id: str, headers: Mapping[str, str], data: bytes) -> tuple[int, str]:
        """Send the data of an image to any of them. Raises ConnectionError."""
        ...


class ImageFaults(msgspec.Struct, frozen=True):
    """How often things go wrong, as probabilities, for each fetch."""

    damaged: float = 0.0  # a byte is another one when it arrives
    disk_full: float = 0.0


class SimulatedImages:
    """Answers droveway.ports.images.Images. `files`: what has been made, by path; `faults` is asked for each time."""

    def __init__(
        self,
        host: str,
        verifier: str,
        clock: Clock,
        chance: Chance,
        apis: SimulatedApis,
        faults: Callable[[], ImageFaults] = ImageFaults,
    ) -> None:
        self._host, self._verifier, self._clock, self._chance, self._apis = host, verifier, clock, chance, apis
        self._faults = faults
        self.files: dict[Path, bytearray] = {}
        self._halves: dict[Path, tuple[ImageRef, float]] = {}  # since when each waits; inf while it is fetched
        self._in_vain: dict[Path, int] = {}

    async def fetch(self, image: ImageRef, target: Path, ticket: ImageTicket | None) -> None:
        if ticket is None:
            raise TicketWanted(f"image {image.id} is to be fetched", challenge_of(self._verifier))
        self._halves[target] = image, math.inf
        is_kept = False
        try:
            await self._fetch(image, self.files.setdefault(target, bytearray()), ticket)
            is_kept = True
        except TicketWanted as why:
            self._halves[target] = image, self._clock.monotonic_s()
            self._in_vain[target] = self._in_vain.get(target, 0) + 1
            if self._in_vain[target] >= TICKETS_IN_VAIN_MAX:
                raise ImageRefused(f"Host {self._host} gets image {image.id} with no ticket: {why}") from None
            is_kept = True
            raise
        finally:
            if not is_kept:
                self._forget(target)
        del self._halves[target]
        self._in_vain.pop(target, None)

    async def _fetch(self, image: ImageRef, data: bytearray, ticket: ImageTicket) -> None:
        faults, uniform = self._faults(), self._chance.uniform
        is_full = faults.disk_full > 0 and uniform(0.0, 1.0) < faults.disk_full
        is_damaged = faults.damaged > 0 and uniform(0.0, 1.0) < faults.damaged

        def take(piece: bytes) -> None:
            if is_full and len(data) + len(piece) > image.size_bytes // 2:
                raise ImageRefused(f"Host {self._host} could not keep image {image.id}: the disk is full.")
            data.extend(bytes((piece[0] ^ 1,)) + piece[1:] if is_damaged and not data else piece)

        alive_s, failures = self._clock.monotonic_s(), 0
        while len(data) < image.size_bytes:
            before, again = len(data), False
            try:
                again = await self._from_any(image, data, ticket, take)
                trouble = "it is full"
            except ConnectionError as error:
                trouble = str(error)
            now_s = self._clock.monotonic_s()
            alive_s = now_s if again or len(data) > before else alive_s
            failures = 0 if len(data) > before else failures + 1
            if now_s - alive_s > NOBODY_S:
                raise ImageRefused(f"Host {self._host} gets image {image.id} from no API: {trouble}")
            if failures:
                await self._clock.sleep(uniform(0.25, 1.0) * min(PAUSE_S * 2.0 ** min(failures, 10), PAUSE_MAX_S))
        if not self._is_whole(image, data):
            raise ImageRefused(
                f"Image {image.id} is damaged: its bytes, as host {self._host} has read them, are not "
                "those of its checksum."
            )

    def _is_whole(self, image: ImageRef, data: bytearray) -> bool:
        return len(data) == image.size_bytes and hashlib.sha512(data).hexdigest() == image.sha512

    async def _from_any(
        self, image: ImageRef, data: bytearray, ticket: ImageTicket, take: Callable[[bytes], None]
    ) -> bool:
        """Whether an API is full. Raises ConnectionError and the port's own."""
        headers = {TICKET_HEADER: ticket.token, VERIFIER_HEADER: self._verifier}
        if data:
            headers |= {"range": f"bytes={len(data)}-", "if-match": f'"{image.sha512}"'}
        status, reason = await self._apis.give(image.id, headers, take)
        if status in ANOTHER_TICKET:
            raise TicketWanted(reason, challenge_of(self._verifier))
        if status in (HTTPStatus.GONE, HTTPStatus.PRECONDITION_FAILED):
            raise ImageRefused(reason)
        return status == HTTPStatus.SERVICE_UNAVAILABLE

    async def send(self, image_id: str, source: Path, ticket: ImageTicket | None) -> None:
        if ticket is None:
            raise TicketWanted(f"image {image_id} is to be sent", challenge_of(self._verifier))
        headers = {TICKET_HEADER: ticket.token, VERIFIER_HEADER: self._verifier}
        try:
            status, reason = await self._apis.take(image_id, headers, bytes(self.files[source]))
        except ConnectionError as error:
            raise ImageRefused(f"No API has taken image {image_id} from host {self._host}: {error}") from None
        if status in ANOTHER_TICKET:
            raise TicketWanted(reason, challenge_of(self._verifier))
        if status != HTTPStatus.NO_CONTENT:
            raise ImageRefused(reason)

    def progress(self, image: ImageRef) -> str:
        for target, (one, _) in self._halves.items():
            if one.id == image.id:
                return f"image {image.id}: {len(self.files.get(target, b''))} of {image.size_bytes} bytes are here"
        return ""

    async def sweep(self) -> None:
        old_s = self._clock.monotonic_s() - HALF_KEPT_S
        for target in [target for target, (_, since_s) in self._halves.items() if since_s < old_s]:
            self._forget(target)

    def _forget(self, target: Path) -> None:
        self.files.pop(target, None)
        self._halves.pop(target, None)
        self._in_vain.pop(target, None)

    def close(self) -> None:
        for target in list(self._halves):
            self._forget(target)
