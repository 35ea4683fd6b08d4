"""What the guests of a host are told of themselves, on its disk: a file a guest, which root alone reads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from droveway.domain.guest_data import GuestData
from droveway.ports.bus import MAX_MESSAGE_BYTES

log = structlog.get_logger("droveway.network")


class KeptGuests(Protocol):
    """Its calls may block for the time of an fsync."""

    def read(self) -> dict[str, GuestData]:
        """By instance. What cannot be read is left out: control tells it again."""
        ...

    def write(self, guest: GuestData) -> None:
        """Durable when it returns. Raises OSError."""
        ...

    def forget(self, instance_id: str) -> None: ...


class FileKeptGuests:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def read(self) -> dict[str, GuestData]:
        found = {}
        for path in self._directory.glob("*.json"):
            try:
                with path.open("rb") as file:
                    guest = msgspec.json.decode(file.read(MAX_MESSAGE_BYTES + 1), type=GuestData)
            except (OSError, msgspec.DecodeError) as error:
                log.error("guest metadata cannot be read", path=str(path), because=str(error))
                continue
            found[guest.facts.instance_id] = guest
        return found

    def write(self, guest: GuestData) -> None:
        path = self._path(guest.facts.instance_id)
        unfinished = path.with_suffix(".new")
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(guest))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def forget(self, instance_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(instance_id).unlink()

    def _path(self, instance_id: str) -> Path:
        """An id is one of the plan, whose type lets through neither a slash nor a dot."""
        return self._directory / f"{instance_id}.json"


class MemoryKeptGuests:
    """For simulation: outlives the simulated agent as a disk would."""

    def __init__(self) -> None:
        self._guests: dict[str, GuestData] = {}

    def read(self) -> dict[str, GuestData]:
        return dict(self._guests)

    def write(self, guest: GuestData) -> None:
        self._guests[guest.facts.instance_id] = guest

    def forget(self, instance_id: str) -> None:
        self._guests.pop(instance_id, None)
