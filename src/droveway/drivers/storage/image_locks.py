"""The locks that QEMU and its tools put on the file of a disk, read and taken as they do.

Each permission that a program uses of the disk is a shared lock on one byte of the file from 100 on, each that it lets
no other program have on one from 200 on (QEMU: block/file-posix.c). They are locks of the open file (OFD), which the
kernel drops with the last descriptor: a program that was killed holds none. File systems that are shared between hosts
carry them (NFS 4, CephFS, GFS2), or else they count on each host alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_USED_AT, _REFUSED_AT = 100, 200
_WRITE, _RESIZE = 1, 3  # bits of BLK_PERM_*
_BYTES = 64
_FLOCK = struct.Struct("hhqqi4x")


class InUse(Exception):
    """A program writes that file, or lets nobody else do so."""


def is_open(path: Path) -> bool:
    """Whether a program such as QEMU has it open as a disk."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return any(_is_locked(descriptor, at, _BYTES) for at in (_USED_AT, _REFUSED_AT))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def unwritten(path: Path) -> Iterator[int]:
    """A descriptor to read it by; no program opens it for writing meanwhile. Raises InUse."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # a lock that excludes wants a descriptor that may write
    try:
        hold_unwritten(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def hold_unwritten(descriptor: int) -> None:
    """Raises InUse."""
    for permission in (_WRITE, _RESIZE):
        _lock(descriptor, _REFUSED_AT + permission)
    if any(_is_locked(descriptor, _USED_AT + permission, 1) for permission in (_WRITE, _RESIZE)):
        raise InUse


def hold_alone(descriptor: int) -> None:
    """No program opens it at all until that descriptor is closed. Raises InUse."""
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _USED_AT, _REFUSED_AT - _USED_AT + _BYTES, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError:
        raise InUse from None


def _lock(descriptor: int, at: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, at, 1, 0))
    except OSError:
        raise InUse from None


def _is_locked(descriptor: int, at: int, length: int) -> bool:
    """By a lock of another open file."""
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, length, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request))[0]
    return found != fcntl.F_UNLCK
