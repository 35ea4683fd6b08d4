"""Part of a fleet loses its network at once, and gets it back: when that is shown, and what happens to guests."""

from __future__ import annotations

import time

from benchmarks.claims import Claim, progress
from benchmarks.fleet_rows.rig import AGENTS, Cloud, used

HOLD_S, DOWN_S = 30.0, 3.0  # storm_hold_time and service_down_time
AFTER_HOLD_S, BACK_S = 12.0, 30.0
ENDS_S = 180.0
DOWN = "select count(*) from services where services.binary = 'nova-compute' and not is_up and host = any(%s)"
STAYS_S = 5.0  # watched once it is back


def measure(cloud: Cloud, count: int) -> list[Claim]:
    """In equal shares of each process; whole connections."""
    progress(f"{count:,} hosts lose their network at once")
    everybody, share = cloud.hosts.count_of_hosts, count // AGENTS
    guests, sagas = cloud.hosts.guests(), cloud.number("select count(*) from sagas")
    before, began_s = cloud.cpu(), time.monotonic()
    cut = {host for some in cloud.hosts.tell(f"cut {share}") for host in some}
    named = sorted(cut)
    cloud.wait(lambda: _down(cloud, named) > 0, ENDS_S, "none of the lost hosts is shown down")
    first_s = time.monotonic() - began_s
    cloud.wait(lambda: _down(cloud, named) >= len(cut), ENDS_S, "not all lost hosts are shown down")
    down_s = time.monotonic() - began_s
    wrong = everybody - len(cut) - cloud.usable()
    lost = used(before, cloud.cpu(), down_s, "core", 3)
    progress("... and are back")
    before, began_s = cloud.cpu(), time.monotonic()
    cloud.hosts.tell("mend")
    cloud.wait(lambda: cloud.usable() >= everybody, ENDS_S, "not all hosts are usable again")
    back_s = time.monotonic() - began_s
    time.sleep(STAYS_S)
    back = used(before, cloud.cpu(), back_s, "core", 3)
    on_them = sum(len(some) for host, some in guests.items() if host in cut)
    now = cloud.hosts.guests()
    touched = sum(now.get(host) != guests.get(host) for host in guests.keys() | now.keys())
    return [
        Claim(
            f"{len(cut):,} of {everybody:,} hosts lost at once: until all are shown down",
            down_s,
            HOLD_S + DOWN_S + AFTER_HOLD_S,
            "s",
            f"the first after {first_s:.1f} s: {HOLD_S:.0f} s of it are the storm's hold; CPU {lost}",
        ),
        Claim("... others shown down", wrong, 0, "", "hosts that were heard all the time"),
        Claim("... back: until all are usable", back_s, BACK_S, "s", f"CPU {back}"),
        Claim(
            "... guests touched",
            touched + cloud.number("select count(*) from sagas") - sagas,
            0,
            "",
            f"{on_them} run on the lost hosts; hosts whose guests or their boots differ, and sagas begun",
        ),
    ]


def _down(cloud: Cloud, hosts: list[str]) -> int:
    return cloud.number(DOWN, hosts)
