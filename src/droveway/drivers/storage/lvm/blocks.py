"""Bytes of a block device, or of a part of one. All of it blocks."""

from __future__ import annotations

import ctypes
import os

from droveway.drivers.storage.lvm.volume_group import Part

_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
_STEP_BYTES = 1 << 30
_PIECE = bytes(1 << 20)
_libc = ctypes.CDLL(None, use_errno=True)


def zero(part: Part, from_bytes: int = 0) -> None:
    """Let it read as zeros from there on: what lay there before was another volume's. Devices that can forget blocks
    do; others are written to."""
    descriptor = os.open(part.device, os.O_RDWR | os.O_CLOEXEC)
    try:
        at, end = part.offset_bytes + from_bytes, part.offset_bytes + part.length_bytes
        while at < end:
            step = min(_STEP_BYTES, end - at)
            if not _forgotten(descriptor, at, step):
                _written(descriptor, at, step)
            at += step
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forgotten(descriptor: int, at: int, length: int) -> bool:
    """Both ways make the range read as zeros where the kernel takes them at all."""
    for mode in (_PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE | _KEEP_SIZE):
        if _libc.fallocate(descriptor, mode, ctypes.c_longlong(at), ctypes.c_longlong(length)) == 0:
            return True
    return False


def _written(descriptor: int, at: int, length: int) -> None:
    left = length
    while left:
        written = os.pwrite(descriptor, _PIECE[: min(left, len(_PIECE))], at)
        at, left = at + written, left - written
