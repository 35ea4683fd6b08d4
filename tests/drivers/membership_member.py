"""A process that is a member of a group until it is killed: run by the contract suite, one JSON argument."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from droveway.config.membership import MembershipSettings
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.process.membership import service_group
from droveway.store.engine.transaction import DiskStore


class Orders(msgspec.Struct):
    settings: MembershipSettings
    group: str
    members: list[str]
    database: str = ""


async def be_members(orders: Orders) -> None:
    clock = SystemClock()
    store = DiskStore(orders.database, clock, SystemNames()) if orders.database else None
    end = service_group(orders.settings, clock, store)
    assert end is not None
    await end.open(lambda _group, _member: None, lambda is_up, said: print(f"{is_up} {said}", flush=True))
    for member in orders.members:
        await end.join(orders.group, member)
    print("joined", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(be_members(msgspec.json.decode(sys.argv[1], type=Orders)))
