"""What a migration costs the program, and a queue of 200, on simulated hosts: there a copy takes as long as it is told,
so that all that is above it is the program's."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.claims import Claim, progress
from benchmarks.cloud_rows.program import ROUNDS, control, cpu_ms
from benchmarks.migration_rows import moves
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud
from lab.processes import wait_for

MOVES, GUESTS, AGAIN_S = 60, 10, 0.02
HOSTS, QUEUED, LIMIT, COPY_S = 20, 200, 2, 4.0
ENDS_S = 120.0
VOLUMES = "/volume/v3/volumes"


def cost(fewer: int) -> Iterator[Claim]:
    with own_cloud() as cloud:
        cloud.up(simulated=True, foreground=False, quiet=True)
        compute = Compute(cloud.port, cloud.clouds_yaml)
        plain = [compute.create(f"g{number}", compute.image_id()) for number in range(GUESTS)]
        whole = [
            compute.create(f"w{number}", compute.image_id(), **moves.on_network(compute)) for number in range(GUESTS)
        ]
        for server in (*plain, *whole):
            compute.wait(server, "ACTIVE")
        for server in whole:
            _give_volume(compute, server)
        kinds = (
            ("", plain, 0.06, 13, "764"),
            (", with a port and a volume", whole, 0.15, 16, "1,409 with a port"),
        )
        for what, servers, done_s, bar, nova in kinds:
            progress(f"live migrations on simulated hosts{what}")
            pids = control(cloud)
            used, looks = _cpu_of_moves(pids, compute, servers, done_s, MOVES // fewer)
            note = f"median of {ROUNDS} rounds, {looks:.1f} looks each; Nova: {nova}"
            yield Claim(f"CPU of control a simulated migration{what}", used, bar, "ms", note)
        compute.close()


def _give_volume(compute: Compute, server: str) -> None:
    volume = str(compute.must("POST", VOLUMES, {"volume": {"size": 1}})["volume"]["id"])

    def shown() -> str:
        return str(compute.must("GET", f"{VOLUMES}/{volume}")["volume"]["status"])

    assert wait_for(lambda: shown() == "available", ENDS_S), shown()
    path = f"/compute/v2.1/servers/{server}/os-volume_attachments"
    compute.must("POST", path, {"volumeAttachment": {"volumeId": volume}})
    assert wait_for(lambda: shown() == "in-use", ENDS_S), shown()


def _cpu_of_moves(
    pids: list[int], compute: Compute, servers: list[str], done_s: float, times: int
) -> tuple[float, float]:
    """Milliseconds, and how often each was looked at: a look costs a millisecond, too. `done_s`: when it is likely to
    have ended."""
    looks = []

    def one(number: int) -> None:
        server = servers[number % len(servers)]
        compute.migrate(server)
        time.sleep(done_s)
        looks.append(1)
        while (status := compute.migrations(server, limit=1)[0]["status"]) not in ("completed", "error"):
            time.sleep(AGAIN_S)
            looks[-1] += 1
        assert status == "completed", f"the migration ended as {status}"

    for number in range(len(servers)):  # the statements are prepared once
        one(number)
    looks.clear()
    used = cpu_ms(pids, times, one)
    return used, sum(looks) / len(looks)


def queue(fewer: int) -> Iterator[Claim]:
    """Ten guests on each of 20 hosts, all asked for at once. The ideal: each host has two copies under way all the
    time, and nothing but them takes time."""
    each = max(2 * LIMIT, QUEUED // HOSTS // fewer)
    with own_cloud() as cloud:
        cloud.simulated_hosts, cloud.of_simulated = HOSTS, {"simulated_copy_s": COPY_S}
        cloud.settings["migration"] = {"max_concurrent_live_migrations": LIMIT}
        cloud.up(simulated=True, foreground=False, quiet=True)
        compute = Compute(cloud.port, cloud.clouds_yaml)
        image = compute.image_id()
        servers = []
        for number in range(each):
            for host in range(1, HOSTS + 1):
                servers.append(compute.create(f"q{host}-{number}", image, availability_zone=f"nova:sim{host}"))
        for server in servers:
            compute.wait(server, "ACTIVE")
        progress(f"{len(servers)} migrations are asked for")
        before_us = time.time_ns() // 1000
        for server in servers:
            compute.migrate(server)
        asked_s = (time.time_ns() // 1000 - before_us) / 1e6
        rows: list[dict[str, Any]] = []

        def have_ended() -> bool:
            rows[:] = _rows(cloud)
            return all(row["status"] in ("completed", "error", "cancelled") for row in rows)

        assert _wait(have_ended), f"{sum(row['status'] == 'completed' for row in rows)} have ended"
        compute.close()
    assert len(rows) == len(servers) and all(row["status"] == "completed" for row in rows)
    ideal_s = each / LIMIT * COPY_S
    took_s = (max(row["updated_at_us"] for row in rows) - before_us) / 1e6
    what = f"{len(rows)} migrations queued on {HOSTS} hosts, {LIMIT} at once, copies of {COPY_S:g} s"
    note = f"asked for within {asked_s:.1f} s; ideal {ideal_s:.0f} s: {ideal_s / took_s:.0%} of the ideal throughput"
    yield Claim(f"{what}: all", took_s, ideal_s / 0.9, "s", note)
    yield Claim("… most that one was overtaken by", _overtaken(rows), LIMIT - 1, "", "later ones of the same host")


def _wait(condition: Callable[[], bool]) -> bool:
    """Looks seldom: what looks is beside what is measured."""
    deadline = time.monotonic() + ENDS_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _rows(cloud: Cloud) -> list[dict[str, Any]]:
    """From the store: the API tells whole seconds."""
    with contextlib.closing(sqlite3.connect(f"file:{cloud.home}/droveway.sqlite?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        return [
            dict(row) for row in store.execute("SELECT id, source, status, updated_at_us FROM migrations ORDER BY id")
        ]


def _overtaken(rows: list[dict[str, Any]]) -> int:
    """How many that were asked for later ended before one by more than half a copy, at most."""
    most = 0
    for row in rows:
        late_us = row["updated_at_us"] - int(COPY_S * 1e6 / 2)
        later = [one for one in rows if one["source"] == row["source"] and one["id"] > row["id"]]
        most = max(most, sum(one["updated_at_us"] < late_us for one in later))
    return most
