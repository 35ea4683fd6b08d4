"""The newest plan of networks on a host's disk: whole, and after it what has changed since.

Before anything is done about a plan it is there: its revision is the fence below which none is taken, also after the
power went, and a host whose control is away makes it again. A change is one line and one fdatasync, however many ports
the host has; a whole plan replaces a file, whose directory must be synced too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from droveway.domain.network_change import PlanChange, applied
from droveway.domain.network_plan import HostNetworks
from droveway.ports.bus import MAX_MESSAGE_BYTES

log = structlog.get_logger("droveway.network")
CHANGES_MIN_BYTES = 256 * 1024  # of changes; the plan is written whole again when they are longer than this and than it


class KeptPlan(Protocol):
    """Its writes are durable when they return; they may block for the time of an fsync, and raise OSError."""

    def read(self) -> HostNetworks | None: ...
    def write(self, plan: HostNetworks) -> None: ...
    def change(self, change: PlanChange, plan: HostNetworks) -> None:
        """`plan`: what the change makes of the one that is kept."""
        ...


class FileKeptPlan:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._log = -1  # of changes since the plan was written whole; -1: it is to be, before there is any
        self._whole_bytes = self._log_bytes = 0

    def read(self) -> HostNetworks | None:
        """None: there is none that can be read. Control sends it again."""
        try:
            with self._path.open("rb") as file:
                plan = msgspec.json.decode(file.read(MAX_MESSAGE_BYTES + 1), type=HostNetworks)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.error("the kept plan of networks cannot be read", path=str(self._path), because=str(error))
            return None
        try:
            lines = self._changes.read_bytes().splitlines()
        except FileNotFoundError:
            return plan
        except OSError as error:
            log.error("changes of networks cannot be read", path=str(self._changes), because=str(error))
            return plan
        for line in lines:
            try:
                change = msgspec.json.decode(line, type=PlanChange)
            except msgspec.DecodeError:
                break  # its end was not on the disk yet, and nothing was done about it
            if change.base == plan.revision:  # else it is of before the plan was written whole
                plan = applied(plan, change)
        return plan

    def write(self, plan: HostNetworks) -> None:
        self._end_log()
        unfinished, data = self._path.with_suffix(".new"), msgspec.json.encode(plan)
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._path)
        opened = os.open(self._changes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            os.close(opened)
            raise
        self._log, self._log_bytes, self._whole_bytes = opened, 0, len(data)

    def change(self, change: PlanChange, plan: HostNetworks) -> None:
        if self._log < 0 or self._log_bytes > max(CHANGES_MIN_BYTES, self._whole_bytes):
            self.write(plan)
            return
        line = msgspec.json.encode(change) + b"\n"
        try:
            if os.write(self._log, line) < len(line):
                raise OSError(28, "No space left on device")
            os.fdatasync(self._log)
        except OSError:
            self._end_log()  # half a line would spoil the next one
            raise
        self._log_bytes += len(line)

    @property
    def _changes(self) -> Path:
        return self._path.with_suffix(".changes")

    def _end_log(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1


class MemoryKeptPlan:
    """For simulation: outlives the simulated agent as a disk would."""

    def __init__(self) -> None:
        self._plan: HostNetworks | None = None

    def read(self) -> HostNetworks | None:
        return self._plan

    def write(self, plan: HostNetworks) -> None:
        self._plan = plan

    def change(self, change: PlanChange, plan: HostNetworks) -> None:
        assert self._plan is not None, "there is one that it changes"
        self._plan = applied(self._plan, change)
        assert self._plan == plan, "it makes that one of it"
