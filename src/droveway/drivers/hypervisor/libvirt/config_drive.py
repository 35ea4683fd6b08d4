"""A guest's config drive: an ISO 9660 file system with the label that cloud-init looks for, of documents alone.

The same documents make the same bytes, whenever and wherever: their times are those of the epoch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from droveway.domain.guest_data import Document
from droveway.ports.hypervisor import HypervisorRefused

NAME = "disk.config"
LABEL = "config-2"
PACKAGE, PROGRAM = "xorriso", "xorriso"
_EPOCH = "1970010100000000"  # as xorriso writes it: the same drive has the same bytes


def write_tree(root: Path, documents: Sequence[Document]) -> None:
    """The files as the guest will see them. Blocking. Raises HypervisorRefused for a path that leads out of it."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    for document in documents:
        for path in map(PurePosixPath, document.paths):
            if path.is_absolute() or ".." in path.parts:
                raise HypervisorRefused(f"{str(path)!r} is no path on a config drive.")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(document.data)
    for made in (*root.rglob("*"), root):
        os.utime(made, (0, 0))


def arguments(tree: Path, target: Path) -> tuple[str, ...]:
    """Of PROGRAM. Joliet and Rock Ridge: names are kept as they are."""
    made = ("-as", "mkisofs", "-quiet", "-o", str(target), "-V", LABEL, "-J", "-r", "-no-pad")
    # Not "--set_all_file_dates" and a date: xorriso then stamps the directories' changes with the present all the same.
    return (*made, f"--modification-date={_EPOCH}", "--set_all_file_dates", "set_to_mtime", str(tree))
