"""The verbs of the driver about a guest that is to move, or that is resized: a part of its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from droveway.domain.hardware import GIB
from droveway.domain.move_checks import Check, CheckAnswer
from droveway.domain.move_prediction import GuestLoad
from droveway.domain.resources import HostUsage
from droveway.drivers.hypervisor.libvirt import before_move
from droveway.drivers.hypervisor.libvirt import guest as acts
from droveway.drivers.hypervisor.libvirt.connection import LibvirtConnection
from droveway.drivers.hypervisor.libvirt.facts import check_cpu, cpu_baseline
from droveway.drivers.hypervisor.libvirt.instance_files import InstanceFiles
from droveway.drivers.hypervisor.libvirt.kept_disks import KeptDisks
from droveway.drivers.hypervisor.libvirt.root_disks import RootDisks
from droveway.drivers.hypervisor.promises import check_each, check_off
from droveway.ports.clock import Clock

if TYPE_CHECKING:
    from droveway.drivers.hypervisor.libvirt.driver import LibvirtSettings

MEASURED_AFTER_S = 0.25  # QEMU ends a measurement a little after its time


class BeforeMoves:
    _use_kvm: bool
    _clock: Clock
    _connection: LibvirtConnection
    _files: InstanceFiles
    _kept: KeptDisks
    _pool: RootDisks
    _settings: LibvirtSettings

    async def measure(self) -> HostUsage:
        raise NotImplementedError

    async def write_probe(self, name: str, *, in_pool: bool = False) -> None:
        await self._files.write_probe(name)
        if in_pool:
            await self._pool.write_probe(name)

    async def sees_probe(self, name: str) -> bool:
        return await self._files.sees_probe(name)

    async def sees_probe_in_pool(self, name: str) -> bool:
        return await self._pool.sees_probe(name)

    async def remove_probe(self, name: str, *, in_pool: bool = False) -> None:
        await self._files.remove_probe(name)
        if in_pool:
            await self._pool.remove_probe(name)

    async def root_disks(self) -> tuple[str, tuple[str, ...]]:
        return await self._pool.listing()

    async def cpu_baseline(self, cpus: Sequence[str]) -> str:
        if not self._use_kvm:
            return ""
        return await self._connection.call(lambda c: cpu_baseline(c, cpus))

    async def compare_cpu(self, cpu_xml: str) -> CheckAnswer:
        def work(connection: Any) -> CheckAnswer:
            return check_each((Check.CPU, lambda: check_cpu(connection, "", cpu_xml, self._use_kvm)))[0]

        return await self._connection.call(work)

    async def check_outgoing(self, instance_id: str) -> tuple[CheckAnswer, ...]:
        self._files.directory(instance_id)
        return await self._connection.call(lambda c: before_move.check(c, instance_id))

    async def loads(self, instance_ids: Sequence[str], measure_s: int = 0) -> dict[str, GuestLoad]:
        if measure_s > 0:
            await self._connection.call(lambda c: before_move.measure(c, instance_ids, measure_s))
            await self._clock.sleep(measure_s + MEASURED_AFTER_S)
        now_s = self._clock.monotonic_s()
        return await self._connection.call(lambda c: before_move.loads(c, instance_ids, now_s))

    async def store_room_bytes(self, *, over_commits: bool) -> int:
        kept_bytes = self._settings.reserved_disk_gb * GIB
        if over_commits:
            return await self._files.free_bytes() - kept_bytes
        return (await self.measure()).disk_available_least_gb * GIB - kept_bytes

    async def _check_off(self, instance_id: str) -> None:
        self._files.directory(instance_id)
        check_off(instance_id, (await self._connection.call(lambda c: acts.look(c, instance_id))).state)

    async def keep_disk(self, instance_id: str, mark: str) -> None:
        await self._check_off(instance_id)
        await self._kept.keep(instance_id, mark)

    async def grow_root(self, instance_id: str, size_gb: int) -> None:
        await self._check_off(instance_id)
        await self._kept.grow(instance_id, size_gb)

    async def restore_disk(self, instance_id: str, mark: str) -> None:
        await self._check_off(instance_id)
        await self._kept.restore(instance_id, mark)

    async def forget_kept(self, instance_id: str, mark: str) -> None:
        await self._kept.forget(instance_id, mark)
