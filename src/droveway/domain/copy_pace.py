"""How fast the disk of a guest that runs is copied: as fast as its host can without the guest feeling it.

What costs the guest are its own processor, memory and disk, which the copy uses beside it, and the very end: QEMU ends
the job with a flush for which the guest stands still, so little may have been written since the flush before. What is
empty of a disk costs nothing and is passed over as fast as it comes.
"""

from __future__ import annotations

import msgspec

MIB = 1 << 20
WRITTEN_MAX_BYTES_A_S = 100 * MIB  # of data, not of what is empty
EMPTY_TIMES = 64  # so much faster where nothing is written
LAST_BYTES = 64 * MIB
LAST_BYTES_A_S = 16 * MIB
LOOKS_BEFORE_LAST = 4  # so many looks at least until the last part begins


class DiskCopySample(msgspec.Struct, frozen=True):
    """As one look sees it. `passed_bytes`: of the disk; `written_bytes`: what its copy takes on its host."""

    at_s: float
    total_bytes: int = 0
    passed_bytes: int = 0
    written_bytes: int = 0


def first_speed() -> int:
    """Bytes of the disk a second, until something has been seen."""
    return WRITTEN_MAX_BYTES_A_S


def next_speed(speed: int, before: DiskCopySample, now: DiskCopySample) -> int:
    """From now on, after it went at `speed` between these two looks."""
    left, took_s = now.total_bytes - now.passed_bytes, now.at_s - before.at_s
    if not now.total_bytes or took_s <= 0:
        return speed
    if left <= LAST_BYTES:
        return LAST_BYTES_A_S
    written = (now.written_bytes - before.written_bytes) / took_s
    if written > WRITTEN_MAX_BYTES_A_S:
        speed = int(speed * WRITTEN_MAX_BYTES_A_S / written)
    elif written < WRITTEN_MAX_BYTES_A_S / 2 and now.passed_bytes > before.passed_bytes:
        speed *= 2
    most = max(WRITTEN_MAX_BYTES_A_S, int((left - LAST_BYTES) / (LOOKS_BEFORE_LAST * took_s)))
    return min(max(speed, WRITTEN_MAX_BYTES_A_S), WRITTEN_MAX_BYTES_A_S * EMPTY_TIMES, most)
