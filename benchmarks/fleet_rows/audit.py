"""After the storms: what the rows claim against what runs, counted here and, independently, by `droveway audit`."""

from __future__ import annotations

from benchmarks.claims import Claim, progress
from benchmarks.fleet_rows.rig import Cloud

PLACED = "select host, id, vm_state from instances where deleted is false and host is not null"
NOWHERE = "select count(*) from instances where deleted is false and vm_state = 'active' and host is null"
OVER = """select count(*) from (select host, sum(vcpus) as vcpus, sum(ram_mb) as ram_mb, sum(disk_gb) as disk_gb
 from instances where deleted is false and host is not null group by host) as held
 join hosts on hosts.name = held.host where held.vcpus > (resources::json ->> 'vcpus')::int * 16
 or held.ram_mb > (resources::json ->> 'memory_mb')::int or held.disk_gb > (resources::json ->> 'disk_gb')::int"""


def measure(cloud: Cloud) -> list[Claim]:
    progress("audit")
    rows = {(host, one): state for host, one, state in cloud.ask(PLACED)}
    guests = {(host, one) for host, some in cloud.hosts.guests().items() for one in some}
    strangers = guests - rows.keys()
    missing = {key for key, state in rows.items() if state == "active"} - guests
    nowhere = cloud.number(
        "select count(*) from instances where deleted is false and vm_state = 'active' and host is null"
    )
    laws = int(cloud.hosts.counted()["violations"])
    status, told = cloud.control.compute().call("GET", "/droveway/v1/audit")
    found = told.get("audit", told).get("findings", []) if status == 200 else []
    said = f"`droveway audit` finds {len(found)}" if status == 200 else f"`droveway audit` was answered with {status}"
    return [
        Claim(
            "audit after the storms: orphans",
            len(strangers) + len(missing) + nowhere + len(found),
            0,
            "",
            f"{len(rows)} claims, {len(guests)} guests: {len(strangers)} guests without their row there, "
            f"{len(missing)} rows without their guest, {nowhere} without a host; {said}",
        ),
        Claim("... hosts claimed beyond their ratios", cloud.number(OVER), 0, "", "vcpus 16, memory 1, disk 1"),
        Claim("... laws of physics broken", laws, 0, "", "a guest in two places, without its disk, …"),
    ]
