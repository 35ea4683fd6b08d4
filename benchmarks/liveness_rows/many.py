"""100,000 services on 10,000 hosts: what control needs for them, how soon it sees that one is gone, and whom it
wrongly takes for dead."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.claims import Claim, median, progress
from benchmarks.liveness_rows.rig import IS_LONG, crowded, p99, spread

HOSTS, SERVICES = 10_000, 10
WATCHED_S = 600 if IS_LONG else 60
DEATHS_A_S = 1 if IS_LONG else 4  # of each of two crowds; far below a storm, which is 2 % of the hosts at once
SETTLE_S, LAST_S = 5.0, 8.0
LATE_S = 3.3  # service_down_time, a look, and the write


def measure() -> list[Claim]:
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory:
        progress(f"{HOSTS:,} hosts say hello")
        began_s = time.monotonic()
        with crowded(Path(directory) / "many", HOSTS, services=SERVICES) as (_, control, crowd):
            up_s = time.monotonic() - began_s
            time.sleep(SETTLE_S)
            progress(f"{HOSTS * SERVICES:,} services for {WATCHED_S} s")
            before, cpu_s, began_s = crowd.counted(), control.cpu_s(), time.monotonic()
            while time.monotonic() - began_s < WATCHED_S:
                if time.monotonic() - began_s < WATCHED_S - LAST_S:
                    crowd.tell(f"die {DEATHS_A_S} 1.0")
                time.sleep(1.0)
            core = (control.cpu_s() - cpu_s) / (time.monotonic() - began_s)
            after = crowd.counted()
            at_s = {(down.host, down.binary): down.at_s for down in control.downs}
            died, wrong = dict(crowd.died), sum(down.host not in crowd.died for down in control.downs)
    missed = sum(SERVICES for host in died if (host, "nova-compute") not in at_s)
    took_s = [seen_s - died[host] for (host, _), seen_s in at_s.items() if host in died]
    beats = after.beats - before.beats
    crowd_was = f"; the crowd itself was late by up to {after.late_s * 1000:.0f} ms" if after.late_s > 0.2 else ""
    hosts_s = [
        seen_s - died[host] for (host, binary), seen_s in at_s.items() if host in died and binary == "nova-compute"
    ]
    shorter = "" if IS_LONG else "; DROVEWAY_BENCH_LONG=1: 600 s"
    return [
        Claim(
            f"{HOSTS * SERVICES:,} services: CPU of control",
            core,
            0.5,
            "core",
            f"{beats / WATCHED_S:,.0f} beats/s for {WATCHED_S} s{shorter}; all were up after {up_s:.0f} s",
        ),
        Claim(
            "... a host dies -> its services are down in the store: p99",
            p99(took_s) if not missed else float("inf"),
            3.0,
            "s",
            f"from its death; {len(died)} hosts, {spread(hosts_s)}, {min(hosts_s):.2f} s at best, "
            f"{sum(one > LATE_S for one in hosts_s)} later than {LATE_S} s{crowd_was}",
        ),
        Claim("... false downs", wrong, 0, "", f"of {beats:,} beats; median verdict {median(took_s):.2f} s"),
    ]
