"""A guest of 512 MiB that writes over 256 of them again and again, and a link of 16 MiB a second before post-copy."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.claims import Claim, median, progress
from benchmarks.migration_rows import moves
from benchmarks.migration_rows.beacons import Listener, user_data
from droveway.domain.migration_ladder import POLICY_KEY
from lab.processes import wait_for

TIMES = 5
BOOTS_S, QUIET_S = 120.0, 1.0
LINK_MIB_S, WRITTEN_MIB = 16, 256
WRITES = (
    f"dd if=/dev/urandom of=/tmp/blob bs=1M count={WRITTEN_MIB}\necho WRITTEN >/dev/console\n"
    f"while :; do dd if=/dev/urandom of=/tmp/blob bs=1M count={WRITTEN_MIB} conv=notrunc 2>/dev/null; done &\n"
)


def measure(fewer: int) -> Iterator[Claim]:
    with moves.real_cloud() as (cloud, compute):
        ears = Listener(cloud.lab.outside)
        own = {"config_drive": True, "user_data": user_data(WRITES), **moves.on_network(compute)}
        server = compute.create(
            "writer", compute.image_id(), moves.flavor(compute, 512), metadata={POLICY_KEY: "post-copy"}, **own
        )
        compute.wait(server, "ACTIVE")
        console = cloud.lab.shared / "instances" / server / "console.log"
        wrote = wait_for(lambda: console.exists() and "WRITTEN" in console.read_text(errors="replace"), BOOTS_S)
        assert wrote, f"the guest has not written {WRITTEN_MIB} MiB within {BOOTS_S:.0f} s"
        ears.wait()
        idle = ears.during(10.0)
        took_s, silent_ms, times = [], [], -(-TIMES // fewer)
        for number in range(times):
            host = cloud.lab.host(compute.host_of(server))
            limited = host.run("virsh", "-q", "-c", "qemu:///system", "migrate-setspeed", server, str(LINK_MIB_S))
            assert limited.returncode == 0, limited.stderr
            ears.look()
            took_s.append(moves.move(compute, server) / 1000)
            time.sleep(QUIET_S)
            silent_ms.append(ears.look().silence_ms)
            progress(f"a guest that writes, {number + 1} of {times}: {took_s[-1]:.1f} s, {silent_ms[-1]:.0f} ms silent")
        ears.end()
        compute.delete(server)
    what = f"512 MiB writing over {WRITTEN_MIB}, {LINK_MIB_S} MiB/s, post-copy"
    note = f"median of {times}; auto-converge alone took 123 s with bare libvirt (measured once)"
    yield Claim(what, median(took_s), 15, "s", f"{note}; at worst {max(took_s):.1f}")
    note = f"of {times}: {', '.join(f'{one:.0f}' for one in silent_ms)}; where nothing moves {idle.silence_ms:.0f}"
    yield Claim("… its longest silence, at worst", max(silent_ms), 400, "ms", note)
