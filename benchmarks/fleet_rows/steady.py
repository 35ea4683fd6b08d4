"""A fleet that joins all at once, and then a fleet at rest: what it costs each part."""

from __future__ import annotations

import os
import time

from benchmarks.claims import Claim, progress, pss_mib
from benchmarks.fleet_rows.rig import ALIVE, COMMITS, ROWS_WRITTEN, SIZE_BYTES, Cloud, used

IS_LONG = os.environ.get("DROVEWAY_BENCH_LONG", "") not in ("", "0")
WATCHED_S = 625.0 if IS_LONG else 125.0  # whole rounds of the snapshot of 10,000 hosts
SETTLE_S, STATISTICS_S = 10.0, 1.5
JOIN_ENDS_S = 300.0


def join(cloud: Cloud) -> list[Claim]:
    """From the moment in which all agents begin until the last host is usable."""
    count = cloud.hosts.count_of_hosts
    progress(f"{count:,} agents begin at once")
    before, began_s = cloud.cpu(), time.monotonic()
    cloud.hosts.tell("go")
    cloud.wait(lambda: cloud.number(ALIVE) >= count, JOIN_ENDS_S, f"{cloud.usable()} of {count} hosts are usable")
    alive_s = time.monotonic() - began_s
    cloud.wait(lambda: cloud.usable() >= count, JOIN_ENDS_S, f"{cloud.usable()} of {count} hosts are usable")
    took_s = time.monotonic() - began_s
    return [
        Claim(
            f"{count:,} agents begin at once: until all are usable",
            took_s,
            60.0,
            "s",
            f"all are up after {alive_s:.1f} s; CPU ms a host: {used(before, cloud.cpu(), count / 1000, '')}",
        )
    ]


def rest(cloud: Cloud) -> list[Claim]:
    """Beats, reports and the slow snapshot; nobody asks for anything."""
    count = cloud.hosts.count_of_hosts
    progress(f"{count:,} hosts at rest for {WATCHED_S:.0f} s")
    time.sleep(SETTLE_S)
    before, sent, rows, commits = cloud.cpu(), cloud.hosts.counted(), cloud.number(ROWS_WRITTEN), cloud.number(COMMITS)
    marks, began_s = cloud.writes(), time.monotonic()
    time.sleep(WATCHED_S)
    after, now = cloud.cpu(), cloud.hosts.counted()
    took_s = time.monotonic() - began_s
    time.sleep(STATISTICS_S)  # a backend tells its numbers once a second
    wrote = (cloud.number(ROWS_WRITTEN) - rows) / took_s
    transactions = (cloud.number(COMMITS) - commits) / took_s
    writes = (cloud.writes() - marks) / took_s
    messages, size = ((now[key] - sent[key]) / took_s / count for key in ("sent", "sent_bytes"))
    size_bytes = cloud.number(SIZE_BYTES)
    heard = (now["heard"] - sent["heard"]) / took_s / count
    late = f"the hosts' own beats were late by up to {now['late_ms']:.0f} ms; {now['violations']:.0f} laws of physics "
    return [
        Claim(
            f"{count:,} hosts at rest: CPU of control and api",
            (after["control"] - before["control"]) / took_s,
            0.3,
            "core",
            f"{took_s:.0f} s; {used(before, after, took_s, 'core', 3)}; {late}broken; "
            f"memory of control and api {pss_mib([cloud.control.pid]):.0f} MiB",
        ),
        Claim(
            "... transactions that write",
            writes,
            100,
            "1/s",
            f"with those that only read {transactions:.0f}/s; hosts and services take "
            f"{size_bytes / count / 1024:.1f} KiB a host",
        ),
        Claim("... rows written", wrote, 100, "1/s", cloud.written_most()),
        Claim(
            "... messages a host on the bus",
            messages,
            2,
            "1/s",
            f"{size:.0f} bytes/s with their subjects, {size * count / 1e6:.2f} MB/s for all; to each {heard:.3f}/s",
        ),
    ]
