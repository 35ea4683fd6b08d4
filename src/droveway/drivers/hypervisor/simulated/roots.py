"""Root disks of simulated guests that lie in a pool, which several hosts see."""

from __future__ import annotations

from droveway.domain.model import GuestSpec
from droveway.ports.hypervisor import HypervisorRefused


class Roots:
    """Of all pools. `probes`: test objects, by pool and name, with when each was written."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[str, int]] = {}  # instance id: the pool, and its size in GiB
        self.probes: dict[tuple[str, str], float] = {}

    def pool_of(self, instance_id: str) -> str:
        """Empty: its root disk lies in none."""
        return self.there.get(instance_id, ("", 0))[0]

    def make(self, pool: str, instance_id: str, size_gb: int) -> None:
        """What is there stays."""
        self.there.setdefault(instance_id, (pool, size_gb))

    def delete(self, instance_id: str) -> None:
        self.there.pop(instance_id, None)

    def listing(self, pool: str) -> tuple[str, ...]:
        return tuple(sorted(instance_id for instance_id, (name, _) in self.there.items() if name == pool))

    def note_probe(self, pool: str, name: str, at_s: float) -> None:
        self.probes[pool, name] = at_s

    def used_gb(self, pool: str) -> int:
        return sum(size_gb for name, size_gb in self.there.values() if name == pool)

    def check_works_with(self, spec: GuestSpec, pool: str) -> None:
        """`pool`: that of the host."""
        if spec.root_pool and spec.root_pool != pool:
            raise HypervisorRefused(
                f"The root disk of guest {spec.instance_id} lies in {spec.root_pool}, and this host works with "
                f"{pool or 'no pool'}: see images_rbd_pool and ceph_conf."
            )

    def check_there(self, spec: GuestSpec) -> None:
        if not spec.begins_from_volume and self.pool_of(spec.instance_id) != spec.root_pool:
            raise HypervisorRefused(f"Guest {spec.instance_id} has no root disk here: prepare it first.")
