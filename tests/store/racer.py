"""One of two processes that want the same things of one database, from the end of its input on:
`python -m tests.store.racer URL NAME`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from droveway.domain.faults import Conflict
from droveway.domain.scheduling import Ask, Ratios
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store import counters, hosts, leases, sagas
from droveway.store.transaction import DiskStore, Tx

ROUNDS, HOST = 200, "h1"
_PLENTY = Ratios(1e6, 1e6, 1e6)


def claim(tx: Tx, seen: Any) -> None:
    hosts.claim(tx, Ask(1, 1, 1), seen, _PLENTY)


async def race(url: str, name: str) -> dict[str, Any]:
    store = DiskStore(url, SystemClock(), SystemNames())
    won: dict[str, Any] = {"leases": [], "claims": [], "numbers": [], "sagas": []}
    found = await store.read(sagas.open_sagas)
    print("ready", flush=True)
    sys.stdin.read()

    async def one(number: int) -> None:
        if await store.run(leases.take, f"lease {number}", name, 0) is not None:
            won["leases"].append(number)
        seen = hosts.view(await store.read(hosts.get, HOST))
        try:
            await store.run(claim, seen)
            won["claims"].append(seen.claims)
        except Conflict:
            pass
        won["numbers"].append(await store.run(counters.next_number, "race"))

    for row in found:
        won["sagas"] += [row["id"] for row in await store.run(sagas.adopt, [row], name, 1)]
    for start in range(0, ROUNDS, 8):
        await asyncio.gather(*(one(number) for number in range(start, start + 8)))
    await store.close()
    return won


if __name__ == "__main__":
    print(json.dumps(asyncio.run(race(sys.argv[1], sys.argv[2]))))
