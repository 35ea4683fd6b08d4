"""The broker is killed while guests are created, and is back after ten seconds: nothing is lost, nothing is doubled."""

from __future__ import annotations

import threading
import time

from benchmarks.claims import Claim, progress
from benchmarks.fleet_rows import clients
from benchmarks.fleet_rows.clients import Api
from benchmarks.fleet_rows.creates import SETTLED
from benchmarks.fleet_rows.rig import Cloud

CLIENTS, PAUSE_S = 8, 0.4  # about twenty requests a second
BEFORE_S, AWAY_S, AFTER_S = 4.0, 10.0, 12.0
ENDS_S, LOOK_S = 120.0, 0.02
ACTIVE = "select count(*) from instances where deleted is false and vm_state = 'active'"


def measure(cloud: Cloud, api: Api) -> list[Claim]:
    progress(f"the broker is killed for {AWAY_S:.0f} s while guests are created")
    settled, errors = cloud.number(SETTLED), _errors(cloud)
    is_over = threading.Event()
    posted: list[clients.Posted] = []
    work = threading.Thread(target=lambda: posted.extend(clients.until(api, is_over.is_set, CLIENTS, PAUSE_S)))
    work.start()
    try:
        time.sleep(BEFORE_S)
        cloud.broker.kill()
        time.sleep(AWAY_S)
        stood = cloud.number(ACTIVE)
        cloud.broker.start()
        back_s = time.monotonic()
        cloud.wait(lambda: cloud.number(ACTIVE) > stood, ENDS_S, "nothing works again", LOOK_S)
        first_s = time.monotonic() - back_s
        waited = [row[0] for row in cloud.ask("select id from instances where vm_state = 'building'")]
        cloud.wait(lambda: _building(cloud, waited) == 0, ENDS_S, "not all that waited goes on", LOOK_S)
        waited_s = time.monotonic() - back_s
        time.sleep(max(0.0, AFTER_S - waited_s))
    finally:
        is_over.set()
        work.join()
    taken = sum(one.status == 202 for one in posted)
    cloud.wait(lambda: cloud.number(SETTLED) >= settled + taken, ENDS_S, "not all creations have ended")
    boots = [times for some in cloud.hosts.guests().values() for times in some.values()]
    lost = _errors(cloud) - errors + len(posted) - taken
    down = cloud.hosts.count_of_hosts - cloud.usable()
    return [
        Claim(
            f"broker killed for {AWAY_S:.0f} s under load: working again after it is back",
            first_s,
            3.0,
            "s",
            f"the first guest that becomes ACTIVE; the {len(waited)} that waited run after {waited_s:.1f} s; "
            f"{taken} were asked for",
        ),
        Claim("... requests refused, and guests that failed", lost, 0, "", "; ".join(_faults(cloud))),
        Claim("... guests booted twice", sum(times != 1 for times in boots), 0, "", f"of {len(boots)} that run"),
        Claim("... hosts not usable", down, 0, "", "nobody is judged by a silence that is the broker's"),
    ]


def _building(cloud: Cloud, ids: list[str]) -> int:
    return cloud.number("select count(*) from instances where vm_state = 'building' and id = any(%s)", ids)


def _errors(cloud: Cloud) -> int:
    return cloud.number("select count(*) from instances where deleted is false and vm_state = 'error'")


def _faults(cloud: Cloud) -> list[str]:
    rows = cloud.ask("select fault from instances where deleted is false and vm_state = 'error' limit 3")
    return [str(row[0]) for row in rows]
