"""An idle guest on a shared store: POST to completed, and libvirt's own call."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.claims import Claim, median
from benchmarks.cloud_rows.bare_guest import BareGuest
from benchmarks.migration_rows import moves

PAIRS = 10


def measure(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud() as (cloud, compute):
        for ram_mb in (128, 512):
            server = compute.create("mover", compute.image_id(), moves.flavor(compute, ram_mb))
            compute.wait(server, "ACTIVE")
            pairs = max(2, PAIRS // fewer)
            ours, bare = moves.side_by_side(compute, server, BareGuest(cloud, server), pairs, f"{ram_mb} MiB")
            compute.delete(server)
            floor = median(bare)
            note = f"{pairs} pairs in turn; bare libvirt {floor:.0f} ms, ratio {median(ours) / floor:.2f}"
            bar = floor * 1.1 + 60
            yield Claim(f"{ram_mb} MiB idle, shared store, POST to completed", median(ours), bar, "ms", note)
