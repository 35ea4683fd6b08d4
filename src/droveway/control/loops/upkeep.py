"""This control's own lease, the leases of the others timed by our clock, what `service list` shows of both, the keys
of tickets, and the ageing out of what is old."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from droveway.control.engine.runner import Runner
from droveway.control.engine.saga import ControlSettings
from droveway.control.liveness.duty import LEASE_TTL_S, DetectorDuty
from droveway.control.liveness.verdicts import DETECTOR
from droveway.control.loops import reclaiming
from droveway.domain.faults import Busy, Stale
from droveway.domain.liveness import State
from droveway.periodic.mark import periodic
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import services
from droveway.store.image import image_tickets
from droveway.store.work import ageing, leases

log = structlog.get_logger("droveway.upkeep")
RENEW_S, AGAIN_S = 5.0, 1.0
SHOW_S = 60.0
AGE_OUT_S = 600.0
RECLAIM_EVERY_S = 60.0
BATCH, ROUNDS_MAX = 2_000, 100
PREFIX = leases.CONTROLS


class Upkeep:
    """`stamps`: Updated_At of this control's services is written here, and not by a membership driver."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        runner: Runner,
        name: str,
        epoch: int,
        duty: DetectorDuty,
        settings: ControlSettings,
        *,
        stamps: bool = True,
    ) -> None:
        self._store, self._clock, self._runner, self._stamps = store, clock, runner, stamps
        self._name, self._epoch, self._duty, self._settings = name, epoch, duty, settings
        self._kept_us, ticket_key_s = int(settings.kept_s * 1_000_000), settings.ticket_key_s
        self._seen: dict[str, tuple[int, float]] = {}  # lease -> (counter, when it last moved, by our clock)
        self._renewals, self._ticket_key_s = 0, ticket_key_s
        self._show_due_s = clock.monotonic_s()
        self._ticket_key = (0, 0.0)  # the newest, and since when it is, by our clock

    async def run(self) -> None:
        """Until cancelled. Raises Stale when a newer process owns this control's name."""
        while True:
            pause_s = RENEW_S
            try:
                await self._once()
            except Busy as fault:
                log.warning("lease not renewed: the store is busy", control=self._name, because=fault.reason)
                pause_s = AGAIN_S  # three in a row at the usual pause, and the lease expires
            await self._clock.sleep(pause_s)

    async def _once(self) -> None:
        if not await self._store.run(_renew, self._name, self._epoch, self._duty.epoch_to_renew):
            raise Stale(f"another control named {self._name} has started: this one stops; names must differ")
        self._renewals += 1
        now_s = self._clock.monotonic_s()
        rows = await self._store.read(leases.listing)
        await self._duty.look(rows)
        for row in rows:
            counter, _ = self._seen.get(row["name"], (-1, 0.0))
            if counter != row["counter"]:
                self._seen[row["name"]] = (row["counter"], now_s)
        self._runner.dead_owners = tuple(
            name.removeprefix(PREFIX)
            for name, (_, moved_s) in sorted(self._seen.items())
            if name.startswith(PREFIX) and now_s - moved_s > LEASE_TTL_S and name != PREFIX + self._name
        )
        await self._show(now_s)
        await self._replace_ticket_key(now_s)

    async def _replace_ticket_key(self, now_s: float) -> None:
        """So tickets expire. The control that has seen the newest key long enough replaces it; the others read it."""
        newest = await self._store.read(image_tickets.newest)
        seen, since_s = self._ticket_key
        if newest == seen and newest and now_s - since_s >= self._ticket_key_s:
            newest = await self._store.run(image_tickets.replace, seen)
        if newest != seen:
            self._ticket_key = (newest, now_s)

    @periodic(every_s=AGE_OUT_S)
    async def age_out(self) -> None:
        for _ in range(ROUNDS_MAX):
            if not await self._store.run(ageing.forget_old, self._kept_us, BATCH):
                break

    @periodic(every_s=RECLAIM_EVERY_S)
    async def reclaim_servers(self) -> None:
        """What was deleted long enough ago is deleted for good; what was shelved long enough ago leaves its host; what
        was resized long enough ago is confirmed."""
        await self._store.run(reclaiming.reclaim, self._settings.reclaim_s, self._settings.shelved_offload_s)
        await self._store.run(reclaiming.confirm, self._settings.resize_confirm_s)

    async def _show(self, now_s: float) -> None:
        """The services of this control are heard once a minute; those of a control whose lease stands still go down,
        whether it has died, lost the store, or goes by another name now."""
        dead = self._runner.dead_owners
        is_shown_up, wrongly_up = await self._store.read(_shown, self._name, dead)
        if now_s >= self._show_due_s or not is_shown_up:  # another control may have declared this one dead
            await self._store.run(_note_renewal, self._name, self._renewals, self._stamps)
            self._show_due_s = now_s + SHOW_S
        if wrongly_up:
            await self._store.run(_gone, wrongly_up)


def _renew(tx: Tx, name: str, epoch: int, detector_epoch: int | None) -> bool:
    """Both leases of this control in one write. False when its name has another owner."""
    if detector_epoch is not None:
        leases.renew(tx, DETECTOR, detector_epoch)
    return leases.renew(tx, PREFIX + name, epoch)


def _shown(tx: Tx, name: str, dead: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether this control's services show up, and which of the dead still do."""
    return services.shows_control(tx, name), [other for other in dead if services.shows_control(tx, other)]


def _note_renewal(tx: Tx, name: str, renewals: int, stamps: bool) -> None:
    services.record_control_state(tx, name, State.ALIVE, "its lease is renewed")
    if stamps:
        services.snapshot(tx, [(name, binary, renewals, tx.now_us) for binary in services.CONTROL])


def _gone(tx: Tx, names: Sequence[str]) -> None:
    for name in names:
        services.record_control_state(tx, name, State.DEAD, f"its lease has not been renewed for {LEASE_TTL_S:.0f} s")
