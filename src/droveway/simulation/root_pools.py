"""Worlds whose hosts keep root disks in a pool of Ceph (`images_type = rbd`): what holds of those at any time, and at
rest. What a hypervisor must never do with one is a law of the fleet (drivers/hypervisor/simulated).

What is drawn for them comes from a stream of its own.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from sqlalchemy import select

from droveway.domain.model import VmState
from droveway.simulation.once_bad import before_root_pools
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import instances

if TYPE_CHECKING:
    from droveway.simulation.world import World

SHARE = 0.12  # of the seeds
ONE_HAS_NONE, ONE_HAS_ANOTHER = 0.25, 0.25  # of those: of one host
POOL, OTHER = "simulated/vms", "simulated/others"
# Whose root disk is there, as long as nothing is being done to it.
HAS_DISK = frozenset(
    state.value
    for state in (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED, VmState.SUSPENDED, VmState.RESCUED, VmState.SHELVED)
)
_i = instances.c
_ROWS = Prepared(
    select(_i.id, _i.root_pool, _i.vm_state, _i.task_state, _i.host).where(
        _i.deleted.is_(False), _i.root_pool.is_not(None)
    )
)


def are_played(seed: int) -> bool:
    """Seeds that were bad before there were such pools tell what they told then."""
    return (
        seed not in before_root_pools() and random.Random(f"is there a pool of root disks in {seed}").random() < SHARE
    )


class RootPools:
    """Those of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        rng = random.Random(f"root pools of {world.seed}")
        drawn = rng.random()
        odd = "" if drawn < ONE_HAS_NONE else OTHER if drawn < ONE_HAS_NONE + ONE_HAS_ANOTHER else POOL
        self._odd_one = ("h1", odd)

    def of_host(self, name: str) -> str:
        odd_one, pool = self._odd_one
        return pool if name == odd_one else POOL

    def look(self) -> list[str]:
        """What holds at any time."""
        return self._world.database.look(self._lost)

    def _lost(self, tx: Tx) -> list[str]:
        roots = self._world.fleet.roots
        return [
            f"instance {row.id} is {row.vm_state} on {row.host}, and its root disk is not in {row.root_pool}"
            for row in tx.execute(_ROWS)
            if row.task_state is None and row.vm_state in HAS_DISK and roots.pool_of(row.id) != row.root_pool
        ]

    def at_rest(self) -> list[str]:
        """No root disk is there whose server does not say so."""
        return self._world.database.look(self._left)

    def _left(self, tx: Tx) -> list[str]:
        pools = {row.id: row.root_pool for row in tx.execute(_ROWS)}
        return [
            f"a root disk of {instance_id} lies in {pool}, and its row says {pools.get(instance_id)}"
            for instance_id, (pool, _) in sorted(self._world.fleet.roots.there.items())
            if pools.get(instance_id) != pool
        ]
