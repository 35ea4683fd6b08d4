"""What hosts report, in each database: newer wins, older is nothing, a refusal is written once."""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.domain.model import Resources
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import host_reports, hosts, services
from tests.store.test_both import in_store

MACHINE = "11111111-2222-4333-8444-555555555555"
HAS = msgspec.to_builtins(Resources("KVM", 7002022, "h", 8, 16384, 12000, 500, 400, host_uuid=MACHINE))


def make(tx: Tx) -> None:
    assert hosts.join_all(tx, ["h1", "h2"], "nova", {"h2": 1}) == ["h1", "h2"]
    assert hosts.join_all(tx, ["h1", "h3"], "nova") == ["h3"]
    services.register_all(tx, dict.fromkeys(("h1", "h2", "h3"), ("nova-compute",)), "nova")


async def test_the_newest_report_stands(url: str) -> None:
    async with in_store(url) as store:

        async def report(generation: int, **more: Any) -> bool:
            return await store.run(host_reports.report, "h1", HAS | more, True, "", generation)

        await store.run(make)
        assert await report(10)
        assert await report(11, vcpus=4)
        assert not await report(10)
        row = await store.read(hosts.get, "h1")
        assert (row["generation"], row["resources"]["vcpus"], row["claims"]) == (11, 4, 2)
        assert await store.run(host_reports.report, "h1", None, False, "libvirtd hangs", 12)
        row = await store.read(hosts.get, "h1")
        assert (row["hypervisor_up"], row["reason"], row["resources"]["vcpus"]) == (False, "libvirtd hangs", 4)
        standing = await store.read(host_reports.standing, ["h1", "h2", "h9"])
        assert standing["h1"].sizes == {"vcpus": 4, "memory_mb": 16384, "disk_gb": 500}
        assert (standing["h2"], len(standing)) == (host_reports.ReportedState(0, "", {}), 2)


async def test_a_refusal_is_written_once_and_lifted_by_a_good_report(url: str) -> None:
    async with in_store(url) as store:
        await store.run(make)
        assert await store.run(host_reports.refuse, "h1", "it says 0 vcpus")
        assert not await store.run(host_reports.refuse, "h1", "it says 0 vcpus")
        assert await store.run(host_reports.refuse, "h1", "its agent speaks protocol 0", 0)
        row = await store.read(hosts.get, "h1")
        assert (row["refused"], row["protocol"], row["claims"]) == ("its agent speaks protocol 0", 0, 2)
        await store.run(hosts.join_all, ["h1"], "nova", {"h1": 1})
        await store.run(host_reports.report, "h1", HAS, True, "", 1)
        row = await store.read(hosts.get, "h1")
        assert (row["refused"], row["protocol"], row["claims"]) == ("", 1, 3)


async def test_a_machine_is_found_under_all_its_names_and_no_pattern_gets_in(url: str) -> None:
    async with in_store(url) as store:
        await store.run(make)
        for name in ("h1", "h3"):
            await store.run(host_reports.report, name, HAS, True, "", 1)
        assert await store.read(host_reports.who_say, "host_uuid", MACHINE, 9) == ["h1", "h3"]
        assert await store.read(host_reports.who_say, "host_uuid", MACHINE, 1) == ["h1"]
        for other in ("", "%", "11111111-2222-4333-8444-55555555555_"):
            assert await store.read(host_reports.who_say, "host_uuid", other, 9) == []
