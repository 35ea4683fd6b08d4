"""Run by the system's own Python, whose packages hold the bindings of Ceph: pools and users of a cluster that starts.

python3 ceph_pools.py CONF POOL,POOL… USER=POOL,POOL…
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

READY_S = 60.0


def main(conf: str, pools: list[str], users: list[str], *, has_manager: bool) -> None:
    import rados
    import rbd

    cluster = rados.Rados(conffile=conf, name="client.admin", conf={"rados_osd_op_timeout": "30"})
    cluster.connect(timeout=int(READY_S))

    def ask(**command: Any) -> Any:
        code, out, words = cluster.mon_command(json.dumps({**command, "format": "json"}), b"")
        if code:
            raise SystemExit(f"{command}: {code} {words}")
        return json.loads(out) if out.strip() else None

    def wait(condition: Callable[[], Any], trouble: str) -> None:
        deadline = time.monotonic() + READY_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(trouble)
            time.sleep(0.02)

    wait(lambda: ask(prefix="osd stat").get("num_up_osds"), "its OSD did not come up")
    there = cluster.list_pools()
    for pool in pools:
        if pool not in there:
            ask(prefix="osd pool create", pool=pool, pg_num=8, pgp_num=8, size=1, yes_i_really_mean_it=True)
            ask(prefix="osd pool application enable", pool=pool, app="rbd")
    for pool in pools:
        with cluster.open_ioctx(pool) as io:
            if pool not in there:
                rbd.RBD().pool_init(io, True)
            io.write_full("lab-probe", b"x")  # after a restart an old map says that the OSD is up
            io.remove_object("lab-probe")
    for user in users:
        name, _, reached = user.partition("=")
        rights = ", ".join(f"profile rbd pool={pool}" for pool in reached.split(","))
        # A service that fences clients needs what the profile of the monitors holds: the blocklist.
        made = ask(prefix="auth get-or-create", entity=f"client.{name}", caps=["mon", "profile rbd", "osd", rights])
        path = os.path.join(os.path.dirname(conf), f"ceph.client.{name}.keyring")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"[client.{name}]\n\tkey = {made[0]['key']}\n")
    if has_manager:
        wait(lambda: any(one["stats"]["max_avail"] for one in ask(prefix="df")["pools"]), "its manager counts nothing")
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), sys.argv[4:], has_manager=sys.argv[3] == "manager")
