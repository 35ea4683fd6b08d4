"""Small files in which the service of a backend keeps what it must not lose, or what programs are to read."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str, *, is_lasting: bool = True) -> None:
    """Blocks. Whole and on the disk; for the agent's own user. Not `is_lasting`: it may be lost with the machine's
    power, which it is made anew after."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        if is_lasting:
            file.flush()
            os.fsync(file.fileno())
    unfinished.rename(path)


def read(path: Path) -> str:
    """Blocks. Empty when it is not there."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
