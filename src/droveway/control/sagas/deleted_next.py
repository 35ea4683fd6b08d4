"""Whether a server is deleted as soon as the saga about it has ended: then whatever is left of its guest goes with it,
and no host is waited for."""

from __future__ import annotations

from droveway.control.engine.saga import Context
from droveway.domain.model import TaskState
from droveway.store.compute import instances


async def is_deleted_next(ctx: Context) -> bool:
    return (await ctx.store.read(instances.get, ctx.instance_id))["task_state"] == TaskState.DELETING
