"""What QEMU does with the memory of a simulated guest that writes to it: passes, as long as the rest takes too long."""

from __future__ import annotations

from dataclasses import dataclass

from droveway.domain.migration_ladder import CopyTarget, Policy
from droveway.domain.model import CopyProgress

MIB = 1 << 20
SLICE_S = 0.25  # between two looks at what was changed of a copy
THROTTLE_FIRST, THROTTLE_STEP, THROTTLE_MAX = 30, 25, 99
LINK_BYTES_S = 256 * MIB


@dataclass(frozen=True, slots=True)
class Writing:
    """A guest that writes so many bytes a second, over and over the same part of its memory."""

    bytes_s: int
    part_bytes: int


STILL = Writing(0, 0)


@dataclass(slots=True)
class Passes:
    """One copy of a memory over a link. `advance` is all that changes it."""

    total_bytes: int
    target: CopyTarget
    downtime_ms: int
    link_bytes_s: int = LINK_BYTES_S
    iteration: int = 1
    remaining_bytes: int = 0
    written_bytes: int = 0  # in this pass, so that it is the next one
    sent_bytes: int = 0
    throttle_percent: int = 0
    elapsed_s: float = 0.0
    dirty_bytes_s: int = 0  # as it was at the end of the last pass
    pass_s: float = 0.0
    high_passes: int = 0  # in which the guest wrote to more than half of what was sent

    @classmethod
    def of(cls, ram_mb: int, target: CopyTarget, link_bytes_s: int = LINK_BYTES_S) -> Passes:
        link = min(link_bytes_s, target.bandwidth_mib_s * MIB or link_bytes_s)
        return cls(ram_mb * MIB, target, target.downtime_ms, link, remaining_bytes=ram_mb * MIB)

    def advance(self, seconds: float, writing: Writing) -> bool:
        """So much later. True: the rest is so small that the guest can be switched."""
        self.elapsed_s += seconds
        self.pass_s += seconds
        sent = min(self.remaining_bytes, int(self.link_bytes_s * seconds))
        self.remaining_bytes -= sent
        self.sent_bytes += sent
        slowed = writing.bytes_s * (100 - self.throttle_percent) // 100
        self.written_bytes = min(writing.part_bytes, self.written_bytes + int(slowed * seconds))
        if self.remaining_bytes > 0:
            return False
        self.dirty_bytes_s = int(self.written_bytes / max(self.pass_s, SLICE_S))
        self.high_passes += 2 * self.written_bytes > self.link_bytes_s * self.pass_s  # as QEMU judges it
        self.remaining_bytes, self.written_bytes, self.pass_s = self.written_bytes, 0, 0.0
        self.iteration += 1
        if 1000 * self.remaining_bytes <= self.downtime_ms * self.link_bytes_s:
            return True
        if self.target.policy is Policy.AUTO_CONVERGE and self.high_passes >= 2:
            self.high_passes = 0
            step = THROTTLE_STEP if self.throttle_percent else THROTTLE_FIRST
            self.throttle_percent = min(THROTTLE_MAX, self.throttle_percent + step)
        return False

    def next_s(self) -> float:
        """How long to wait before the next look."""
        return min(SLICE_S, max(0.001, self.remaining_bytes / self.link_bytes_s))

    def progress(self) -> CopyProgress:
        return CopyProgress(
            memory_total_bytes=self.total_bytes,
            memory_processed_bytes=self.sent_bytes,
            memory_remaining_bytes=self.remaining_bytes,
            iteration=self.iteration,
            elapsed_ms=int(self.elapsed_s * 1000),
            downtime_ms=self.downtime_ms,
            rate_bytes_s=self.link_bytes_s,
            dirty_bytes_s=self.dirty_bytes_s,
            throttle_percent=self.throttle_percent,
        )
