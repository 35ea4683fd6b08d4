"""Makes an imagined backend whose volumes outlive its service's process, but not their bytes: those are imagined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from droveway.drivers.storage.simulated import ImaginedSnapshot, ImaginedVolume, SimulatedPool, SimulatedStorage
from droveway.ports.images import Images


class _Kept(msgspec.Struct):
    size_bytes: int
    snapshots: dict[str, int]
    made_of: str
    admitted: list[str]


def make(backend: Any, _host: Any, state: Path, _images: Images) -> SimulatedStorage:
    """It sees every image."""
    pool = SimulatedPool(backend.name, backend.total_gb)
    path = state / "volumes.json"
    if path.exists():
        for volume_id, one in msgspec.json.decode(path.read_bytes(), type=dict[str, _Kept]).items():
            snapshots = {name: ImaginedSnapshot(size, {}) for name, size in one.snapshots.items()}
            pool.volumes[volume_id] = ImaginedVolume(one.size_bytes, {}, snapshots, one.made_of, set(one.admitted))

    def save() -> None:
        kept = {
            volume_id: _Kept(
                one.size_bytes,
                {name: made.size_bytes for name, made in one.snapshots.items()},
                one.made_of,
                sorted(one.admitted),
            )
            for volume_id, one in pool.volumes.items()
        }
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.rename(path)

    pool.changed = save
    return SimulatedStorage(pool)
