"""Hosts as an operator sees them: what they have, what is held of it, and whether they can be used, and why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from droveway.domain.liveness import State
from droveway.domain.model import of_host
from droveway.domain.placement import HeldCell, NumaCell
from droveway.domain.resources import GuestUse, HostUsage, LastReport
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import host_reports, hosts, services
from droveway.store.schema import hosts as host_rows
from droveway.store.work import events
from tests.api.world import NOVA, RESOURCES, World, booted, in_world, make_image, make_server, reason

OWN = "/droveway/v1/hosts"
HYPERVISORS = f"{NOVA}/os-hypervisors"
DAY_S = 86_400


async def get(world: World, path: str, version: str = "2.1") -> Any:
    reply = await world.ask("GET", path, token=await world.token(), version=version)
    assert reply.status_code == 200, reply.text
    return reply.json()


def tell(tx: Tx, host: str, **values: Any) -> None:
    """That host reports something else."""
    said = msgspec.structs.replace(RESOURCES, hypervisor_hostname=f"{host}.lab", **values)
    assert host_reports.report(tx, host, msgspec.to_builtins(said), True, "", 5)


def hear(world: World, measured: HostUsage, *names: str) -> None:
    """Those hosts have just reported that."""
    known = {name: LastReport(world.api.clock.now_us(), 5, measured) for name in names}

    async def last_reports(*wanted: str) -> dict[str, LastReport]:
        return {name: one for name, one in known.items() if not wanted or name in wanted}

    world.control.last_reports = last_reports


async def test_hosts_are_listed_with_what_is_promised_and_for_what_they_can_be_used(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await booted(world, await make_server(world, token, await make_image(world, token)))
        first, second = (await get(world, OWN))["hosts"]
        assert (first["name"], first["usable"], first["guests"], first["word"]) == ("h1", True, 1, "")
        assert first["memory_mb"] == {"has": 4096, "most": 4096 - 512, "promised": 128}
        assert first["vcpus"] == {"has": 2, "most": 32, "promised": 1}
        assert second["disk_gb"] == {"has": 40, "most": 40, "promised": 0}
        await world.store.run(hosts.join, "a-late-one", "nova")
        await world.store.run(services.register, "a-late-one", "nova-compute", "nova")
        assert [one["name"] for one in (await get(world, OWN))["hosts"]] == ["a-late-one", "h1", "h2"]


@pytest.mark.parametrize(
    ("what", "word", "words"),
    [
        ("down", "down", "its nova-compute is down: no heartbeat for 9 s"),
        ("disabled", "disabled", "a new fan"),
        ("refused", "refused", "its last report was refused: it says 0 vcpus"),
        ("hypervisor", "hypervisor", "libvirtd hangs"),
        ("shrunk", "shrunk", "128 of 88 MiB of memory; they run on"),
    ],
)
async def test_a_host_that_cannot_be_used_says_why(tmp_path: Path, what: str, word: str, words: str) -> None:
    def spoil(tx: Tx) -> None:
        if what == "down":
            services.record_verdicts(
                tx, [services.Verdict("h1", "nova-compute", State.DEAD, "no heartbeat for 9 s", tx.now_us)]
            )
        elif what == "disabled":
            (row,) = services.list_all(tx, "h1", "nova-compute")
            services.set_(tx, row["uuid"], disabled=True, disabled_reason="a new fan")
        elif what == "refused":
            assert host_reports.refuse(tx, "h1", "it says 0 vcpus")
        elif what == "hypervisor":
            assert host_reports.report(tx, "h1", None, False, "libvirtd hangs", 5)
        else:
            tell(tx, "h1", memory_mb=600, memory_free_mb=0)

    async with in_world(tmp_path) as world:
        token = await world.token()
        await booted(world, await make_server(world, token, await make_image(world, token)))
        await world.store.run(spoil)
        one = (await get(world, f"{OWN}/h1"))["host"]
        assert (one["usable"], one["word"]) == (False, word)
        assert words in one["why_not"][0]
        listed = (await get(world, OWN))["hosts"]
        assert [each["usable"] for each in listed] == [False, True]
        assert listed[0]["word"] == word


async def test_a_host_is_shown_with_its_guests_its_cells_and_what_has_happened(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token)
        here, elsewhere = [await make_server(world, token, image_id, name) for name in ("g1", "g2")]
        await booted(world, here)
        await booted(world, elsewhere, "h2")

        def write(tx: Tx) -> None:
            tell(tx, "h1", cells=(NumaCell(0, (0,), 2048), NumaCell(1, (1,), 2048)))
            instances.set_(tx, here, held_cells=msgspec.to_builtins([HeldCell(1, 1, 128, (1,))]))
            events.record(tx, "alarm", of_host("h1"), {"reason": "guest x: it runs twice"})

        await world.store.run(write)
        uses = (GuestUse(here, 2500, 90, 12), GuestUse(elsewhere, 1, 1, 1))
        hear(world, HostUsage(3 * DAY_S, (0.5, 0.4, 0.3), 1, 3000, 30, 20, uses), "h1")
        one = (await get(world, f"{OWN}/h1"))["host"]
        assert one["service"]["state"] == "alive" and one["report"]["generation"] == 5
        (guest,) = one["servers"]
        assert (guest["name"], guest["use"]) == ("g1", {"cpu_time_ms": 2500, "memory_mb": 90, "disk_mb": 12})
        assert one["strangers"] == [{"id": elsewhere, "name": "g2", "place": "h2"}]
        assert one["cells"][1]["pinned_cpus"] == [1] and one["cells"][1]["memory_mb_held"] == 128
        assert one["cells"][1]["servers"][0]["id"] == here and one["cells"][0]["servers"] == []
        assert [each["reason"] for each in one["events"]] == ["guest x: it runs twice"]
        assert one["measured"]["load"] == [0.5, 0.4, 0.3]


async def test_a_machine_under_another_name_is_recognised(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        await booted(world, await make_server(world, token, await make_image(world, token)))

        def write(tx: Tx) -> None:
            for host in ("h1", "h2"):
                tell(tx, host, host_uuid="11111111-2222-4333-8444-555555555555")
            services.record_verdicts(
                tx, [services.Verdict("h1", "nova-compute", State.HOST_GONE, "nobody reaches it", 1)]
            )

        await world.store.run(write)
        assert (await get(world, f"{OWN}/h2"))["host"]["names"] == [{"name": "h1", "state": "down", "servers": 1}]


async def test_a_host_that_is_not_there_and_one_that_never_reported(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        reply = await world.ask("GET", f"{OWN}/h9", token=token)
        assert reply.status_code == 404 and "there is no host h9" in reason(reply)

        def forget(tx: Tx) -> None:
            tx.execute(update(host_rows).where(host_rows.c.name == "h1").values(resources=None, reported_at_us=None))

        await world.store.run(forget)
        one = (await get(world, f"{OWN}/h1"))["host"]
        assert (one["usable"], one["why_not"]) == (False, ["it has not reported yet what it has"])
        alice = await world.token("alice", "red")
        assert (await world.ask("GET", f"{OWN}/h1", token=alice)).status_code == 403


async def test_hypervisors_tell_their_uptime_in_the_way_of_each_microversion(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        hear(world, HostUsage(3 * DAY_S + 7_500, (0.5, 0.4, 0.3), 2, 3000, 30, 21), "h1")
        up = "up 3 days, 2:05,  2 users,  load average: 0.50, 0.40, 0.30"
        old = (await get(world, f"{HYPERVISORS}/1/uptime"))["hypervisor"]
        assert old["uptime"].endswith(up) and old["hypervisor_hostname"] == "h1.lab"
        assert (await get(world, f"{HYPERVISORS}/2/uptime"))["hypervisor"]["uptime"] is None  # it has not said
        (first, second) = (await get(world, f"{HYPERVISORS}/detail", "2.88"))["hypervisors"]
        assert first["uptime"].endswith(up) and second["uptime"] is None
        assert not {"vcpus", "memory_mb", "cpu_info", "disk_available_least"} & set(first)
        one = (await get(world, f"{HYPERVISORS}/{first['id']}", "2.88"))["hypervisor"]
        assert one["uptime"].endswith(up) and "servers" not in one  # nobody asked for them
        (first, second) = (await get(world, f"{HYPERVISORS}/detail", "2.87"))["hypervisors"]
        assert (first["disk_available_least"], second["disk_available_least"]) == (21, 35)
        sums = (await get(world, f"{HYPERVISORS}/statistics"))["hypervisor_statistics"]
        assert sums["disk_available_least"] == 56


async def test_a_host_that_is_down_has_no_uptime(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        hear(world, HostUsage(DAY_S), "h1")
        verdict = services.Verdict("h1", "nova-compute", State.HOST_GONE, "nobody reaches it", 1)
        await world.store.run(services.record_verdicts, [verdict])
        assert (await get(world, f"{HYPERVISORS}/1/uptime"))["hypervisor"]["uptime"] is None


async def test_a_host_that_is_down_is_declared_gone_and_readmitted(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()

        async def say(what: str, body: Any = None) -> Any:
            return await world.ask("POST", f"{OWN}/h1/{what}", token=token, json=body or {})

        assert reason(await say("declare-gone", {"because": "fire"})).startswith("Host h1 is up, and only")
        (service,) = await world.store.read(services.list_all, "h1", hosts.COMPUTE)
        await world.store.run(lambda tx: services.set_(tx, service["uuid"], forced_down=True))
        assert (await say("declare-gone", {})).status_code == 400
        assert (await say("declare-gone", {"because": " "})).status_code == 400
        reply = await say("declare-gone", {"because": "fire"})
        assert reply.status_code == 200, reply.text
        word = reply.json()["host"]["declared"]
        assert (word["word"], word["because"]) == ("gone", "fire")
        assert "an operator declared it gone: fire" in [one["reason"] for one in reply.json()["host"]["events"]]
        assert (await say("readmit")).json()["host"]["declared"]["word"] == "readmitted"
        assert "was not declared gone" in reason(await say("readmit"))
