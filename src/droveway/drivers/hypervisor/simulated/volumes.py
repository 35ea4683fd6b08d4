"""The volumes of a simulated guest, and its file systems held for a moment."""

from __future__ import annotations

from collections.abc import Callable

from droveway.domain.model import GuestSpec, GuestState
from droveway.domain.volume.disks import VolumeDisk
from droveway.drivers.hypervisor.promises import no_such_volume, volume_not_let_go
from droveway.drivers.hypervisor.simulated.fleet import Domain, Fleet, SimulatedHost, Span
from droveway.ports.hypervisor import FROZEN_MAX_S, HypervisorRefused


class SimulatedVolumes:
    """Of one host. `act` is the driver's: a call takes its time, and may fail."""

    _fleet: Fleet
    _host: SimulatedHost

    async def _act(self, instance_id: str, span: Span, act: Callable[[], None], *, on_store: bool = False) -> None:
        raise NotImplementedError

    def _with_devices(self, instance_id: str) -> Domain | None:
        raise NotImplementedError

    def _check_opens(self, disk: VolumeDisk) -> None:
        if why := self._fleet.openings.why_not(self._host.name, disk):
            raise HypervisorRefused(f"Volume {disk.volume_id} cannot be opened on host {self._host.name}: {why}.")

    def _check_volumes(self, spec: GuestSpec) -> None:
        for disk in spec.volumes:
            self._check_opens(disk)

    async def attach_disk(self, instance_id: str, disk: VolumeDisk) -> None:
        def act() -> None:
            domain = self._with_devices(instance_id)
            if domain is not None and disk.volume_id not in domain.volumes:
                self._check_opens(disk)
                self._fleet.open_volume(self._host, instance_id, disk)

        await self._act(instance_id, self._fleet.durations.plug, act)

    async def detach_disk(self, instance_id: str, volume_id: str, within_s: float) -> None:
        shortest, longest = self._fleet.durations.plug

        def act() -> None:
            domain = self._with_devices(instance_id)
            if domain is None or volume_id not in domain.volumes:
                return
            is_kept = instance_id in self._fleet.keeps_nics or self._fleet.happens(self._fleet.faults.keeps_volume)
            if is_kept or domain.state is GuestState.PAUSED:
                raise volume_not_let_go(instance_id, volume_id, within_s)
            self._fleet.close_volume(self._host, domain, volume_id)

        await self._act(instance_id, (min(shortest, within_s), min(longest, within_s)), act)

    async def grow_disk(self, instance_id: str, volume_id: str, size_gb: int) -> None:
        def act() -> None:
            domain = self._with_devices(instance_id)
            if domain is None:
                return
            if volume_id not in domain.volumes:
                raise no_such_volume(instance_id, volume_id)
            domain.volume_sizes[volume_id] = max(size_gb, domain.volume_sizes.get(volume_id, 0))

        await self._act(instance_id, self._fleet.durations.plug, act)

    async def freeze(self, instance_id: str) -> bool:
        """Every simulated guest has an agent."""
        held: list[bool] = []

        def act() -> None:
            domain = self._with_devices(instance_id)
            held.append(domain is not None and domain.state is GuestState.RUNNING)
            if domain is not None and held[-1]:
                domain.frozen_until_s = self._fleet.clock.monotonic_s() + FROZEN_MAX_S

        await self._act(instance_id, self._fleet.durations.plug, act)
        return held[-1]

    async def thaw(self, instance_id: str) -> None:
        def act() -> None:
            domain = self._with_devices(instance_id)
            if domain is not None:
                domain.frozen_until_s = 0.0

        await self._act(instance_id, self._fleet.durations.plug, act)
