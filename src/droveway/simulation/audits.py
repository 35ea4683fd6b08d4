"""An audit during faults reports nothing that is not so, and after the last fault it finds nothing at all.

In turbulence a finding that the guests loop heals may be true: the loop has not looked yet. Any other would be a row,
a claim or a guest that no saga and no loop sees to, or an accusation of what a saga is at work on.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from droveway.domain.audit_findings import Repair
from droveway.domain.faults import Fault

if TYPE_CHECKING:
    from droveway.simulation.machines import ControlProcess
    from droveway.simulation.world import World

EVERY_S = 4.0
STOPPED = "unserved backend"  # an operator stops its service for a while
PATIENCE_S = 60.0
LOOKS_AGAIN, LOOK_AGAIN_S = 10, 2.0


class Auditors:
    """Each control in its turn is asked for an audit."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._task = asyncio.get_running_loop().create_task(self._run(), name="auditors")

    async def _run(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(EVERY_S)
            processes = [self._world.controls[name] for name in sorted(self._world.controls)]
            if processes:
                process = processes[turn % len(processes)]
                process.spawn(self._audit(process))
                turn += 1

    async def _audit(self, process: ControlProcess) -> None:
        with contextlib.suppress(Fault):  # the store refuses, or it has not started yet
            seen = await process.control.audit.look()
            self._world.counts["audits in turbulence"] += 1
            for finding in seen.findings:
                self._world.counts["audits: " + finding.kind] += 1
                if finding.repair is not Repair.COMPARE and finding.kind != STOPPED:
                    self._world.broken(
                        f"{process.name} audits {finding.kind}: {finding.what} on {finding.where}: {finding.reason}"
                    )

    def stop(self) -> None:
        self._task.cancel()


async def at_peace(world: World) -> list[str]:
    """What any control finds, once everything has ended."""
    found: list[str] = []
    for name in sorted(world.controls):
        process = world.controls[name]

        async def audit(process: ControlProcess = process) -> None:
            seen = await process.control.audit.look()
            for _ in range(LOOKS_AGAIN):  # a host that has just come back may not have found each control yet
                if not seen.not_looked_at:
                    break
                await asyncio.sleep(LOOK_AGAIN_S)
                seen = await process.control.audit.look()
            world.counts["audits at peace"] += 1
            found.extend(
                f"{process.name} audits {finding.kind}: {finding.what} on {finding.where}: {finding.reason}"
                for finding in seen.findings
            )
            found.extend(f"{process.name} cannot look at {host}: {why}" for host, why in seen.not_looked_at.items())

        _, pending = await asyncio.wait({process.spawn(audit())}, timeout=PATIENCE_S)
        found.extend(f"the audit of {process.name} does not end" for _ in pending)
    return found
