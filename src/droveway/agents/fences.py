"""The highest generation per subject that this host has seen, on the disk before anything is done about it (law 2)."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Protocol

import msgspec

from droveway.domain.faults import WrongConfiguration
from droveway.domain.model import Subject, SubjectKind, of_instance

KEPT_MAX = 50_000
LINES_MAX = 4 * KEPT_MAX


class Fence(msgspec.Struct, frozen=True):
    """`outcome`, once there is one: a doubled message is answered with it, and not carried out again."""

    generation: int = 0
    verb: str = ""
    outcome: str = ""
    reason: str = ""


NONE = Fence()
REPORT = Subject(SubjectKind.SERVICE, "report")  # not of a command: the generation of what this host reports


class Fences(Protocol):
    def read(self, subject: Subject) -> Fence: ...
    def write(self, subject: Subject, fence: Fence) -> None:
        """Durable when it returns; may block for the time of an fsync."""
        ...

    def note(self, subject: Subject, fence: Fence) -> None:
        """Remember an outcome; losing it in a crash only means doing an idempotent verb again."""
        ...


class FileFences:
    """A log that is only appended to, and read once at the start. One fdatasync a command: measured at a tenth of
    replacing a small file, whose directory must be synced too. Rewritten at the start and when it has grown long."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._known: dict[Subject, Fence] = {}
        self._lock = threading.Lock()
        self._log = -1
        self._lines = self._load()
        self._rewrite()  # short again, and its name is on the disk

    def read(self, subject: Subject) -> Fence:
        return self._known.get(subject, NONE)

    def write(self, subject: Subject, fence: Fence) -> None:
        with self._lock:
            self._append(subject, fence)
            os.fdatasync(self._log)
            self._known[subject] = fence  # only now: what is not on the disk has not been seen
            self._lines += 1
            if self._lines > LINES_MAX:
                self._rewrite()

    def note(self, subject: Subject, fence: Fence) -> None:
        if not self._lock.acquire(blocking=False):
            self._known[subject] = fence  # a sync is under way in another thread; the outcome need not be kept
            return
        try:
            self._append(subject, fence)
            self._known[subject] = fence
        finally:
            self._lock.release()

    def _append(self, subject: Subject, fence: Fence) -> None:
        """The whole line or none of it: half a line would spoil the next one."""
        line = _line(subject, fence)
        end = os.lseek(self._log, 0, os.SEEK_END)
        try:
            written = os.write(self._log, line)
        except OSError:
            os.ftruncate(self._log, end)
            raise
        if written != len(line):
            os.ftruncate(self._log, end)
            raise OSError(errno.ENOSPC, "the disk of the fence log is full")

    def close(self) -> None:
        os.close(self._log)

    def _load(self) -> int:
        """The last word on each subject; how many lines. A torn last line was never answered for and does not count."""
        whole, _, _torn = self._path.read_bytes().rpartition(b"\n") if self._path.exists() else (b"", b"", b"")
        lines = whole.split(b"\n") if whole else []
        for number, line in enumerate(lines, 1):
            try:
                subject, fence = _read(line)
            except msgspec.DecodeError as error:
                raise WrongConfiguration(
                    f"{self._path} line {number} is damaged ({error}); without it this host could obey a command that "
                    "is too old. Check the disk; when no command can be on its way any more, remove that line"
                ) from None
            self._known.pop(subject, None)  # the order is that of the last word
            self._known[subject] = fence
        return len(lines)

    def _rewrite(self) -> None:
        """One line a subject, the KEPT_MAX last ones, under the same name by one atomic step."""
        kept = list(self._known.items())[-KEPT_MAX:]
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as log:
            log.writelines(_line(*one) for one in kept)
            log.flush()
            os.fsync(log.fileno())
        temporary.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        if self._log >= 0:
            os.close(self._log)
        self._log = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._known, self._lines = dict(kept), len(kept)


class _OldFence(msgspec.Struct, frozen=True):
    """As the release before wrote it."""

    generation: int = 0
    verb: str = ""
    outcome: str = ""
    sentence: str = ""


def _line(subject: Subject, fence: Fence) -> bytes:
    return msgspec.json.encode((subject.kind, subject.id, fence)) + b"\n"


def _read(line: bytes) -> tuple[Subject, Fence]:
    """A line of this release, or of the one before, which knew instances alone, and the report. That one takes a line
    of this release for damage, and does not start: it would obey commands that are too old."""
    words = msgspec.json.decode(line, type=list[msgspec.Raw])
    if len(words) == 3:
        kind, name, fence = msgspec.json.decode(line, type=tuple[SubjectKind, str, Fence])
        return Subject(kind, name), fence
    name, old = msgspec.json.decode(line, type=tuple[str, _OldFence])
    fence = Fence(old.generation, old.verb, old.outcome, old.sentence)
    return (REPORT if name == "report" else of_instance(name)), fence


class MemoryFences:
    """For simulation: outlives the simulated agent as a disk would."""

    def __init__(self) -> None:
        self._kept: dict[Subject, Fence] = {}

    def read(self, subject: Subject) -> Fence:
        return self._kept.get(subject, NONE)

    def write(self, subject: Subject, fence: Fence) -> None:
        self._kept[subject] = fence

    note = write
