"""One of two processes that want the same things of one database, from the end of its input on:
`python -m tests.store.racer URL NAME`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.engine.transaction import DiskStore
from droveway.store.fleet import hosts
from droveway.store.work import counters, leases, sagas

ROUNDS, HOST = 200, "h1"


async def race(url: str, name: str) -> dict[str, Any]:
    store = DiskStore(url, SystemClock(), SystemNames())
    won: dict[str, Any] = {"leases": [], "claims": [], "numbers": [], "sagas": []}
    found = await store.read(sagas.open_sagas)
    print("ready", flush=True)
    sys.stdin.read()

    async def one(number: int) -> None:
        if await store.run(leases.take, f"lease {number}", name, 0) is not None:
            won["leases"].append(number)
        seen = await store.read(hosts.facts, HOST)
        if await store.run(hosts.claim, seen):
            won["claims"].append(seen.claims)
        won["numbers"].append(await store.run(counters.next_number, "race"))

    for row in found:
        won["sagas"] += [row["id"] for row in await store.run(sagas.adopt, [row], name, 1)]
    for start in range(0, ROUNDS, 8):
        await asyncio.gather(*(one(number) for number in range(start, start + 8)))
    await store.close()
    return won


if __name__ == "__main__":
    print(json.dumps(asyncio.run(race(sys.argv[1], sys.argv[2]))))
