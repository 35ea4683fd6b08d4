"""Control is killed with -9 in the middle of a copy, which ends meanwhile: how long after it is back the migration is
done."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

from benchmarks.claims import Claim, median, progress
from benchmarks.migration_rows import moves
from lab import processes
from lab.client import Client
from lab.cloud import Cloud
from lab.compute import Compute

TIMES = 5  # its supervisor waits longer each time before it starts it again
SLOW_MIB_S, FAST_MIB_S = "8", "8000"
UNDER_WAY_S, BACK_S = 30.0, 60.0


def measure(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud() as (cloud, compute):
        server = compute.create("orphan", compute.image_id())
        compute.wait(server, "ACTIVE")
        time.sleep(moves.SETTLE_S)
        times = max(2, TIMES // fewer)
        took_s, away_s = [], []
        for number in range(times):
            away, took = _killed(cloud, compute, server)
            away_s.append(away)
            took_s.append(took)
            progress(f"control killed, {number + 1} of {times}: away {away:.2f} s, then done after {took:.2f}")
    note = f"median {median(took_s):.2f} of {times}; control is away for {median(away_s):.2f} s"
    yield Claim("control killed -9 in mid-copy: back to completed, worst", max(took_s), 2, "s", note)


def _killed(cloud: Cloud, compute: Compute, server: str) -> tuple[float, float]:
    """Seconds from the kill until the API answers, and from then until the migration has completed."""
    source = cloud.lab.host(compute.host_of(server))

    def virsh(*words: str) -> str:
        done = source.run("virsh", "-q", "-c", "qemu:///system", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    virsh("migrate-setspeed", server, SLOW_MIB_S)
    compute.migrate(server)
    assert processes.wait_for(lambda: "Outgoing migration" in virsh("domjobinfo", server), UNDER_WAY_S)
    compute.close()
    wanted = ["droveway.main", "control", str(cloud.config)]
    for one in processes.everyone():
        if all(word in one.command() for word in wanted):
            one.send(signal.SIGKILL)
    killed = time.monotonic()
    virsh("migrate-setspeed", server, FAST_MIB_S)
    client = Client(cloud.port)
    while not client.answers():
        assert time.monotonic() < killed + BACK_S, "control did not come back"
        time.sleep(0.01)
    back = time.monotonic()
    status = compute.wait_migrated(server)["status"]
    done = time.monotonic()
    assert status == "completed", f"the migration ended as {status}"
    compute.wait(server, "ACTIVE")
    return back - killed, done - back
