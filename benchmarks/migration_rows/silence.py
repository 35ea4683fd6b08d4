"""How long a guest is silent while it is moved, as others hear it, and whether a word of it is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.claims import Claim, median
from benchmarks.cloud_rows.bare_guest import BareGuest
from benchmarks.migration_rows import moves
from benchmarks.migration_rows.beacons import Heard, Listener, user_data
from benchmarks.network_rows.moved import BRIDGE, static_bridge
from droveway.domain.migration_ladder import DOWNTIME_KEY
from lab.cloud import Cloud
from lab.compute import Compute
from lab.login import Login
from lab.quickstart import KEY
from lab.visitor import Visitor

PAIRS, TARGETED, ROUND_TRIPS = 20, 20, 10
QUIET_S = 1.0
TARGET_MS = 20


def measure(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud() as (cloud, compute):
        yield _beside_libvirt(cloud, compute, max(2, PAIRS // fewer))
        yield from _with_target(cloud, compute, max(2, TARGETED // fewer))


def there_and_back(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud() as (cloud, compute):
        yield from _there_and_back(cloud, compute, max(1, ROUND_TRIPS // fewer))


def _speaker(compute: Compute, name: str, target_ms: int | None = None) -> str:
    own = {"config_drive": True, "user_data": user_data(), "key_name": KEY, **moves.on_network(compute)}
    if target_ms is not None:
        own["metadata"] = {DOWNTIME_KEY: str(target_ms)}
    server = compute.create(name, compute.image_id(), **own)
    compute.wait(server, "ACTIVE")
    return server


def _moved(compute: Compute, server: str, listener: Listener) -> Heard:
    listener.look()
    moves.move(compute, server)
    time.sleep(QUIET_S)
    return listener.look()


def _beside_libvirt(cloud: Cloud, compute: Compute, pairs: int) -> Claim:
    ears = Listener(cloud.lab.outside)
    server = _speaker(compute, "speaks")
    static_bridge(cloud)
    ears.wait()
    bare = BareGuest(cloud, server, BRIDGE)
    bare_ears = Listener(cloud.lab.host(bare.host).netns)
    bare_ears.wait()
    idle = ears.during(5.0)

    def move_bare() -> float:
        bare_ears.look()
        bare.move()
        time.sleep(QUIET_S)
        return bare_ears.look().silence_ms

    try:
        ours_ms, bare_ms = moves.in_turn(
            pairs, "longest silence", lambda: _moved(compute, server, ears).silence_ms, move_bare
        )
    finally:
        bare.end()
        bare_ears.end()
        ears.end()
    compute.delete(server)
    floor = median(bare_ms)
    note = (
        f"{pairs} pairs in turn; bare libvirt {floor:.0f} ms, ratio {median(ours_ms) / floor:.2f}; at worst ours "
        f"{max(ours_ms):.0f}, bare {max(bare_ms):.0f}; idle {idle.silence_ms:.0f}"
    )
    return Claim("longest silence, by a UDP beacon every 10 ms", median(ours_ms), floor * 1.15 + 10, "ms", note)


def _with_target(cloud: Cloud, compute: Compute, times: int) -> Iterator[Claim]:
    ears = Listener(cloud.lab.outside)
    server = _speaker(compute, "brief", TARGET_MS)
    ears.wait()
    time.sleep(moves.SETTLE_S)
    try:
        found = [_moved(compute, server, ears).silence_ms for _ in range(times)]
    finally:
        ears.end()
    compute.delete(server)
    what = f"… with a downtime target of {TARGET_MS} ms"
    yield Claim(what, median(found), 90, "ms", f"median of {times}")
    yield Claim(f"{what}, at worst", max(found), 150, "ms", f"of {times}")


def _there_and_back(cloud: Cloud, compute: Compute, times: int) -> Iterator[Claim]:
    ears = Listener(cloud.lab.outside)
    server = _speaker(compute, "visited")
    login = Login(cloud)
    address = login.address(login.server("visited"))
    login.wait_for_sshd("visited", address)
    visitor = Visitor(cloud, address)
    visitor.look()
    ears.wait()
    try:
        heard = [_moved(compute, server, ears) for _ in range(2 * times)]
        seen = visitor.look()  # raises where the session has ended or a word of it is missing
        words = visitor.said()
    finally:
        visitor.leave()
        ears.end()
    compute.delete(server)
    lost, said = sum(one.lost for one in heard), sum(one.words for one in heard)
    note = (
        f"{2 * times} moves, {said} words, longest silence {max(one.silence_ms for one in heard):.0f} ms; the ssh "
        f"session counted to {words} and lives; {seen.lost} pings were lost, longest gap {seen.gap_ms:.0f} ms"
    )
    yield Claim(f"{times} times there and back: beacons lost", lost, 0, "", note)
