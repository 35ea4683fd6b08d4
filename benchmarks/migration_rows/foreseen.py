"""What `droveway migration plan` foresees of real migrations, beside how they are: duration and verdict. The predictor
is the program's, and learns while it goes as it does in any cloud."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.claims import Claim, median, progress
from benchmarks.migration_rows import moves
from benchmarks.migration_rows.beacons import user_data
from droveway.domain.migration_ladder import POLICY_KEY, Policy
from lab.cloud import Cloud
from lab.compute import Compute
from lab.processes import wait_for

BOOTS_S, SETTLE_S = 120.0, 2.0
ERROR_BAR, RIGHT_BAR = 25.0, 95.0


class Kind(NamedTuple):
    """Guests of which so many migrations are made. `writes_mib`: over and over, as fast as it can; 0: it is idle."""

    name: str
    ram_mb: int
    writes_mib: int
    policy: Policy
    times: int


KINDS = (
    Kind("small", 128, 0, Policy.AUTO_CONVERGE, 10),
    Kind("large", 512, 0, Policy.AUTO_CONVERGE, 10),
    Kind("writes", 256, 16, Policy.AUTO_CONVERGE, 8),
    Kind("splits", 256, 64, Policy.POST_COPY, 6),
    Kind("holds", 256, 64, Policy.PAUSE, 6),
    Kind("slows", 256, 64, Policy.NEVER_SLOW, 5),
)


class Seen(NamedTuple):
    kind: str
    foreseen_s: float | None  # None: it does not end
    was_s: float
    ended: bool  # well
    learnt_from: int


def measure(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud() as (cloud, compute):
        servers = {kind.name: _made(cloud, compute, kind) for kind in KINDS}
        seen = []
        turns = [[kind] * max(1, kind.times // fewer) for kind in KINDS]
        for kind in (one for turn in itertools.zip_longest(*turns) for one in turn if one is not None):
            seen.append(_one(compute, kind, servers[kind.name]))
            progress(str(seen[-1]))
    ended = [one for one in seen if one.foreseen_s is not None and one.ended]
    errors = [abs(one.foreseen_s - one.was_s) / one.was_s * 100 for one in ended if one.foreseen_s is not None]
    known = [error for error, one in zip(errors, ended, strict=True) if one.learnt_from]
    note = f"{len(ended)} that ended; of {len(known)} foreseen from what was learnt {median(known):.0f} %"
    yield Claim("prediction of a migration's duration: median error", median(errors), ERROR_BAR, "%", note)
    right = [(one.foreseen_s is not None) == one.ended for one in seen]
    wrong = [one.kind for one, is_right in zip(seen, right, strict=True) if not is_right]
    note = f"{sum(right)} of {len(seen)}{'; wrong of ' + ', '.join(wrong) if wrong else ''}"
    yield Claim("… whether it ends: right", 100 * sum(right) / len(seen), RIGHT_BAR, "%", note, is_floor=True)


def _made(cloud: Cloud, compute: Compute, kind: Kind) -> str:
    writes = f"of=/tmp/blob bs=1M count={kind.writes_mib}"
    own: dict[str, Any] = {"metadata": {POLICY_KEY: kind.policy.value}}
    if kind.writes_mib:
        more = (
            f"dd if=/dev/urandom {writes}\necho WRITTEN >/dev/console\n"
            f"while :; do dd if=/dev/urandom {writes} conv=notrunc 2>/dev/null; done &\n"
        )
        own |= {"config_drive": True, "user_data": user_data(more)}
    server = compute.create(kind.name, compute.image_id(), moves.flavor(compute, kind.ram_mb), **own)
    compute.wait(server, "ACTIVE")
    console = cloud.lab.shared / "instances" / server / "console.log"
    word = "WRITTEN" if kind.writes_mib else "tick 5 "
    said = wait_for(lambda: console.exists() and word in console.read_text(errors="replace"), BOOTS_S)
    assert said, f"{kind.name} has not said {word} within {BOOTS_S:.0f} s"
    _act(compute, server, "pause", "PAUSED")
    return server


def _act(compute: Compute, server: str, action: str, status: str) -> None:
    """Guests that are not moved rest: what they write would be the machine's load, and not that of a guest."""
    compute.must("POST", f"/compute/v2.1/servers/{server}/action", {action: None})
    compute.wait(server, status)


def _one(compute: Compute, kind: Kind, server: str) -> Seen:
    _act(compute, server, "unpause", "ACTIVE")
    time.sleep(SETTLE_S)
    plan = compute.must("POST", "/droveway/v1/migrations/plan", {"migration": {"server": server, "measure": True}})
    (there,) = plan["hosts"]
    foreseen = next(one["duration_s"] for one in there["predictions"] if one["mode"] == plan["mode"])
    assert plan["mode"] == kind.policy.value
    compute.migrate(server)
    ended = compute.wait_migrated(server, moves.ENDS_S)["status"] == "completed"
    compute.wait(server, "ACTIVE")
    shown = compute.must("GET", "/droveway/v1/migrations/predictions?limit=1")["predictions"][0]
    assert shown["server_id"] == server
    _act(compute, server, "pause", "PAUSED")
    return Seen(kind.name, foreseen, shown["duration_ms"] / 1000, ended, plan["way"]["learnt_from"])
