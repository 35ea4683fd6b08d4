"""Whether a guest runs that its row takes for stopped: the command that started it was answered with a failure, or
an operator started it by hand, and the guests loop has not looked since.

A device is not said to be in no guest before its host was asked. A host that does not answer is not waited for: what is
attached to a stopped server of a host that is off is a row alone.
"""

from __future__ import annotations

from droveway.control.engine.saga import Context
from droveway.control.liveness.admission import DeclaredGone
from droveway.domain.faults import Unreachable
from droveway.domain.model import GuestState
from droveway.ports.bus import Inspect

ALIVE = frozenset({GuestState.RUNNING, GuestState.PAUSED})


async def runs_after_all(ctx: Context, host: str) -> bool:
    """Raises StepFailed where its hypervisor does not answer."""
    try:
        answer = await ctx.ask(host, Inspect(), ctx.settings.command_timeout_s)
    except (DeclaredGone, Unreachable):
        return False
    return answer.guest.state in ALIVE
