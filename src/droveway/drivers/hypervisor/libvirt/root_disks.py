"""Root disks that lie in a pool, on a host that may have none: then everything about them is refused or nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import GuestSpec
from droveway.drivers.hypervisor.store_watch import StoreCapacity, StoreWatch
from droveway.ports.hypervisor import HypervisorDown, HypervisorRefused

if TYPE_CHECKING:
    from droveway.drivers.hypervisor.libvirt.pool_disks import PoolDisks


class RootDisks:
    """`pool`: that of this host."""

    def __init__(self, pool: PoolDisks | None) -> None:
        self._pool = pool

    @property
    def name(self) -> str:
        """FSID/POOL; empty where there is none, or it was not reached yet."""
        return "" if self._pool is None else self._pool.pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

    async def sweep(self) -> None:
        if self._pool is not None:
            with contextlib.suppress(HypervisorRefused, HypervisorDown):  # the next one will look again
                await self._pool.sweep()

    async def capacity(self, store: StoreWatch) -> tuple[StoreCapacity, str]:
        """Where disks are made: the pool; else the instance store. Trouble of the store is trouble of both: consoles
        and config drives lie there. Raises HypervisorDown."""
        found, trouble = await store.headroom()
        if self._pool is None:
            return found, trouble
        found, of_pool = await self._pool.capacity()
        return found, trouble or of_pool

    def _there(self, root_pool: str, instance_id: str) -> PoolDisks:
        """Raises HypervisorRefused."""
        if self._pool is None:
            raise HypervisorRefused(
                f"The root disk of guest {instance_id} lies in {root_pool}, and this host works with no pool: see "
                "images_type and images_rbd_pool."
            )
        return self._pool

    async def check(self, spec: GuestSpec) -> None:
        await self._there(spec.root_pool, spec.instance_id).check(spec)

    async def check_there(self, spec: GuestSpec) -> None:
        """Before it starts."""
        if spec.root_pool:
            pool = self._there(spec.root_pool, spec.instance_id)
            await pool.check(spec)
            if not await pool.has(spec.instance_id):
                raise HypervisorRefused(f"Guest {spec.instance_id} has no disk in {spec.root_pool}: prepare it first.")

    async def make(self, spec: GuestSpec, ticket: ImageTicket | None, beside: str = "") -> None:
        await self._there(spec.root_pool, spec.instance_id).make(spec, ticket, beside)

    async def replace(self, instance_id: str, beside: str) -> None:
        if self._pool is not None:
            await self._pool.replace(instance_id, beside)

    async def drop(self, instance_id: str, beside: str) -> None:
        if self._pool is not None:
            await self._pool.drop(instance_id, beside)

    async def remove(self, instance_id: str, root_pool: str) -> None:
        pool = self._there(root_pool, instance_id)
        await pool.check(GuestSpec(instance_id, "", 0, 0, 0, root_pool=root_pool))
        await pool.remove_all(instance_id)

    async def listing(self) -> tuple[str, tuple[str, ...]]:
        """The pool, and the instances of which there is a disk in it."""
        return ("", ()) if self._pool is None else await self._pool.listing()

    # -- test objects ---------------------------------------------------------------------------------------------
    async def write_probe(self, name: str) -> None:
        if self._pool is not None:
            await self._pool.write_probe(name)

    async def sees_probe(self, name: str) -> bool:
        return self._pool is not None and await self._pool.sees_probe(name)

    async def remove_probe(self, name: str) -> None:
        if self._pool is not None:
            await self._pool.remove_probe(name)
