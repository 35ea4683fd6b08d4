"""Which labs there are on this machine, so that one whose directory was deleted can still be taken down.

An entry is written before the first object of a lab is made and removed after its last: whatever carries a lab's id
has an entry, or is left over from a machine that was switched off.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import signal
from pathlib import Path

from lab import block, network
from lab.processes import end, in_network

ENTRIES = Path("/run/droveway/labs")
END_S = 5.0


class NotEnded(Exception):
    """Processes of a lab outlived SIGKILL; the message names them."""


def identity(directory: Path) -> str:
    """Six hexadecimal digits: the ones the lab was made with, or such that no other lab has them."""
    try:
        return str(json.loads((directory / "lab.json").read_text())["id"])
    except (OSError, ValueError, KeyError):
        pass
    for salt in range(1000):
        candidate = hashlib.sha256(f"{directory}\0{salt}".encode()).hexdigest()[:6]
        if _directory(candidate) in (None, directory):
            return candidate
    raise AssertionError("a thousand labs with the same digits")


def enter(lab_id: str, directory: Path) -> None:
    ENTRIES.mkdir(parents=True, exist_ok=True)
    (ENTRIES / lab_id).write_text(f"{directory}\n")


def remove(lab_id: str) -> None:
    """Everything that carries the lab's id, and then its entry."""
    for namespace in network.names(f"dw-{lab_id}-"):
        clear(namespace)
    directory = _directory(lab_id)
    if directory is not None:
        block.detach(directory, f"dw-{lab_id}")
    (ENTRIES / lab_id).unlink(missing_ok=True)
    for directory in (ENTRIES, ENTRIES.parent):
        try:
            directory.rmdir()
        except OSError:
            break  # other labs, or it was gone already


def clear(namespace: str) -> None:
    """End whoever lives in a network namespace of a lab, and delete it. Nothing to do when it is not there."""
    path = network.path(namespace)
    if not end(lambda: in_network([path]), signal.SIGKILL, END_S):
        left = ", ".join(f"{one.name()} ({one.pid})" for one in in_network([path]))
        raise NotEnded(f"still running in {namespace} {END_S:.0f} s after SIGKILL: {left}")
    network.delete(namespace)


def sweep() -> list[str]:
    """Remove labs whose directory is gone or in which nothing runs any more, unless somebody is at work on them.

    Returns a sentence for each."""
    said = []
    for entry in sorted(ENTRIES.iterdir()) if ENTRIES.is_dir() else []:
        directory = _directory(entry.name)
        if directory is None or not directory.is_dir():
            remove(entry.name)
            said.append(f"lab {entry.name} removed: its directory {directory} is gone")
        elif not in_network([network.path(name) for name in network.names(f"dw-{entry.name}-")]):
            with (directory / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                remove(entry.name)
                said.append(f"lab {entry.name} removed: nothing runs in {directory}")
    for namespace in network.names("dw-"):
        lab_id = namespace.split("-")[1]
        if not (ENTRIES / lab_id).exists() and not in_network([network.path(namespace)]):
            network.delete(namespace)
            said.append(f"network namespace {namespace} removed: it belongs to no lab")
    return said


def _directory(lab_id: str) -> Path | None:
    try:
        return Path((ENTRIES / lab_id).read_text().rstrip("\n"))
    except OSError:
        return None
