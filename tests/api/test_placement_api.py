"""Placement as OpenStack's clients see it: versions and providers, as views of hosts."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from droveway.api.placement import queries, view
from droveway.domain.model import NumaCell
from droveway.domain.placement import HeldCell, HostFacts, PlacementRequest, PlacementSettings
from droveway.scheduler import capacity
from droveway.scheduler import reasons as said
from droveway.store.compute import instances
from droveway.store.compute.inventories import Provider
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import aggregates, hosts, services
from droveway.store.schema import hosts as host_rows
from tests.api.placement_operator import LATEST, PLC, RPS, detail, operator, report
from tests.api.world import in_world


# -- versions ---------------------------------------------------------------------------------------------------------
async def test_versions_are_agreed_on(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        root = await world.http.get(f"{PLC}/")
        (said,) = root.json()["versions"]
        assert (said["id"], said["min_version"], said["max_version"]) == ("v1.0", "1.0", "1.39")
        for minor in (0, 1, 29, 39):
            reply = await op.ask("GET", RPS, minor)
            assert (reply.status_code, reply.headers["openstack-api-version"]) == (200, f"placement 1.{minor}")
            assert "OpenStack-API-Version" in reply.headers["vary"]
        assert (await op.ask("GET", RPS, "latest")).headers["openstack-api-version"] == "placement 1.39"
        plain = await world.ask("GET", RPS, token=op.token)
        assert plain.headers["openstack-api-version"] == "placement 1.0"
        compute = await world.ask("GET", RPS, token=op.token, headers={"OpenStack-API-Version": "compute 2.90"})
        assert compute.headers["openstack-api-version"] == "placement 1.0"
        for wrong in ("1.40", "2.0"):
            for path in (RPS, f"{PLC}/"):
                reply = await op.ask("GET", path, wrong)
                (error,) = reply.json()["errors"]
                assert (reply.status_code, error["status"]) == (406, 406)
                assert (error["min_version"], error["max_version"]) == ("1.0", "1.39")
        assert all([(await op.ask("GET", RPS, wrong)).status_code == 400 for wrong in ("one", "0.9", "1.", "1.01")])


async def test_what_came_with_which_version(tmp_path: Path) -> None:
    since = {
        "/resource_classes": 2,
        "/traits": 6,
        "/usages?project_id=x": 9,
        "/allocation_candidates?resources=VCPU:1": 10,
    }
    async with in_world(tmp_path) as world:
        op = await operator(world)
        uuid = await op.uuid()
        of_provider = {"inventories": 0, "usages": 0, "aggregates": 1, "traits": 6, "allocations": 0}
        paths = {PLC + path: minor for path, minor in since.items()}
        paths |= {f"{RPS}/{uuid}/{what}": minor for what, minor in of_provider.items()}
        for path, first in paths.items():
            for minor in {first - 1, first, LATEST} - {-1}:
                assert (await op.ask("GET", path, minor)).status_code == (200 if minor >= first else 404), (path, minor)
        links = {"self", "inventories", "usages"}
        for minor, more in ((0, ()), (1, ("aggregates",)), (6, ("traits",)), (11, ("allocations",))):
            links |= set(more)
            body = await op.get(f"{RPS}/{uuid}", minor)
            assert {link["rel"] for link in body["links"]} == links
            assert "root_provider_uuid" not in body
        body = await op.get(f"{RPS}/{uuid}", 14)
        assert (body["root_provider_uuid"], body["parent_provider_uuid"]) == (uuid, None)
        assert "last-modified" not in (await op.ask("GET", RPS, 14)).headers
        fresh = (await op.ask("GET", RPS, 15)).headers
        assert fresh["cache-control"] == "no-cache"
        assert abs(parsedate_to_datetime(fresh["last-modified"]).timestamp() - world.clock.now_us() / 1e6) < 60
        assert "resource_provider_generation" not in await op.get(f"{RPS}/{uuid}/aggregates", 18)
        assert "resource_provider_generation" in await op.get(f"{RPS}/{uuid}/aggregates", 19)
        for minor, is_coded in ((22, False), (23, True)):
            (error,) = (await op.ask("GET", f"{RPS}/{uuid[:-4]}0000", minor)).json()["errors"]
            assert (error["status"], error["title"], "code" in error) == (404, "Not Found", is_coded)
            assert error["request_id"].startswith("req-")
        assert error["code"] == "placement.resource_provider.not_found"


# -- providers --------------------------------------------------------------------------------------------------------
async def test_a_host_that_has_reported_is_a_provider(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)

        def write(tx: Tx) -> None:
            hosts.join(tx, "h3", "nova")
            services.register(tx, "h3", "nova-compute", "nova")

        await world.store.run(write)
        assert await op.names() == ["h1.lab", "h2.lab"]
        h1, h2 = await op.uuid("h1"), await op.uuid("h2")
        h3 = await op.uuid("h3")
        assert (await op.ask("GET", f"{RPS}/{h3}")).status_code == 404
        facts = await world.store.read(hosts.facts, "h1")
        shown = await op.get(f"{RPS}/{h1}")
        assert (shown["uuid"], shown["name"], shown["generation"]) == (h1, "h1.lab", facts.claims)
        await world.store.run(hosts.touch, "h1")
        assert (await op.get(f"{RPS}/{h1}"))["generation"] == facts.claims + 1
        assert await op.names("?name=h2.lab") == ["h2.lab"]
        assert await op.names(f"?uuid={h1}") == ["h1.lab"]
        assert await op.names(f"?uuid={h1}&name=h2.lab") == []
        assert await op.names(f"?in_tree={h2}") == ["h2.lab"]
        assert await op.names("?resources=VCPU:2,MEMORY_MB:3584") == ["h1.lab", "h2.lab"]
        assert await op.names("?resources=MEMORY_MB:3585") == []
        assert await op.names("?resources=VCPU:3") == []  # no guest is larger than its host


async def test_inventories_and_usages_follow_from_report_and_guests(tmp_path: Path) -> None:
    settings = PlacementSettings(cpu_ratio=4.0, ram_ratio=1.5, reserved_memory_mb=96, reserved_disk_gb=2)
    async with in_world(tmp_path, placement=settings) as world:
        op = await operator(world)
        server_id = await op.server()
        uuid = await op.uuid()
        facts = await world.store.read(hosts.facts, "h1")
        told = await op.get(f"{RPS}/{uuid}/inventories")
        units = {"min_unit": 1, "step_size": 1}
        assert told["resource_provider_generation"] == facts.claims
        assert told["inventories"] == {
            "VCPU": {"total": 2, "reserved": 0, "max_unit": 2, "allocation_ratio": 4.0, **units},
            "MEMORY_MB": {"total": 4096, "reserved": 608, "max_unit": 4096, "allocation_ratio": 1.5, **units},
            "DISK_GB": {"total": 40, "reserved": 2, "max_unit": 40, "allocation_ratio": 1.0, **units},
        }
        one = await op.get(f"{RPS}/{uuid}/inventories/VCPU")
        assert one == {**told["inventories"]["VCPU"], "resource_provider_generation": facts.claims}
        for absent in ("PCPU", "VGPU", "%00", "x" * 300):
            assert (await op.ask("GET", f"{RPS}/{uuid}/inventories/{absent}")).status_code in (400, 404)
        used = {"VCPU": 1, "MEMORY_MB": 128, "DISK_GB": 1}
        assert (await op.get(f"{RPS}/{uuid}/usages"))["usages"] == used
        held = (await op.get(f"{RPS}/{uuid}/allocations"))["allocations"]
        assert list(held) == [server_id]
        assert held[server_id]["resources"] == used
        assert "consumer_generation" not in (await op.get(f"{RPS}/{uuid}/allocations", 27))["allocations"][server_id]
        capacities = capacity.capacities(facts, capacity.ratios_of(settings))
        there = view.inventories_of(facts, settings)
        assert tuple(there[name].capacity for name in ("MEMORY_MB", "VCPU", "DISK_GB")) == capacities


async def test_pinned_guests_take_cpus_out_of_both_inventories(tmp_path: Path) -> None:
    cells = (NumaCell(0, (0, 1, 2, 3), 2048), NumaCell(1, (4, 5, 6, 7), 2048))
    async with in_world(tmp_path) as world:
        op = await operator(world)
        await report(world, "h1", vcpus=8, cells=cells)
        pinned, floating = await op.server(), await op.server()
        held = [msgspec.to_builtins(HeldCell(0, 3, 128, (1, 2, 3)))]
        await world.store.run(instances.set_, pinned, vcpus=3, held_cells=held)
        await world.store.run(instances.set_, floating, vcpus=17)
        uuid = await op.uuid()
        told = (await op.get(f"{RPS}/{uuid}/inventories"))["inventories"]
        vcpu = (told["VCPU"]["total"], told["VCPU"]["reserved"], told["VCPU"]["max_unit"])
        pcpu = (told["PCPU"]["total"], told["PCPU"]["reserved"], told["PCPU"]["allocation_ratio"])
        assert (vcpu, pcpu) == ((8, 3, 5), (8, 2, 1.0))  # 17 floating vcpus need two CPUs at 16 to 1
        usages = (await op.get(f"{RPS}/{uuid}/usages"))["usages"]
        assert (usages["VCPU"], usages["PCPU"]) == (17, 3)
        allocation = (await op.get(f"{PLC}/allocations/{pinned}"))["allocations"][uuid]["resources"]
        assert allocation == {"PCPU": 3, "MEMORY_MB": 128, "DISK_GB": 1}
        free = capacity.headroom_of(await world.store.read(hosts.facts, "h1"), capacity.ratios_of(PlacementSettings()))
        assert free["own_cpu"] == 3
        assert await op.candidates("resources=PCPU:3") == [uuid]
        assert await op.candidates("resources=PCPU:4") == []
        assert await op.candidates("resources=VCPU:5") == [uuid]
        assert await op.candidates("resources=VCPU:6") == []


async def test_traits_and_aggregates_narrow_the_list(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        await report(world, "h2", cpu_features=("sse", "avx2", "aes", "vmx", "unheard-of"), cpu_arch="aarch64")

        def write(tx: Tx) -> tuple[str, str]:
            first, second = aggregates.create(tx, "a", "east"), aggregates.create(tx, "b", None)
            aggregates.add_host(tx, first["id"], "h1")
            aggregates.add_host(tx, second["id"], "h1")
            aggregates.add_host(tx, second["id"], "h2")
            return first["uuid"], second["uuid"]

        a, b = await world.store.run(write)
        h1, h2 = await op.uuid("h1"), await op.uuid("h2")
        assert (await op.get(f"{RPS}/{h1}/aggregates"))["aggregates"] == [a, b]
        assert (await op.get(f"{RPS}/{h2}/traits"))["traits"] == [
            "COMPUTE_NODE",
            "HW_ARCH_AARCH64",
            "HW_CPU_X86_AESNI",
            "HW_CPU_X86_AVX2",
            "HW_CPU_X86_INTEL_VMX",
            "HW_CPU_X86_SSE",
            "HW_CPU_X86_VMX",
        ]
        other = "0" * 8 + a[8:]
        for query, expected in (
            ("required=HW_CPU_X86_AVX2", ["h2.lab"]),
            ("required=COMPUTE_NODE,!HW_CPU_X86_AVX2", ["h1.lab"]),
            ("required=in:HW_ARCH_AARCH64,HW_ARCH_X86_64", ["h1.lab", "h2.lab"]),
            ("required=in:HW_CPU_X86_AVX2,HW_CPU_X86_AVX&required=HW_CPU_X86_SSE", ["h2.lab"]),
            (f"member_of={a}", ["h1.lab"]),
            (f"member_of=in:{a},{b}", ["h1.lab", "h2.lab"]),
            (f"member_of={a}&member_of={b}", ["h1.lab"]),
            (f"member_of=!{a}", ["h2.lab"]),
            (f"member_of={b}&member_of=!in:{a},{other}", ["h2.lab"]),
            (f"member_of={other}", []),
        ):
            assert await op.names(f"?{query}") == expected, query

        def close(tx: Tx) -> None:
            (row,) = services.list_all(tx, "h1")
            services.set_(tx, row["uuid"], disabled=True)
            tx.execute(update(host_rows).where(host_rows.c.name == "h2").values(refused="it said -1 CPUs"))

        await world.store.run(close)
        assert await op.names("?required=COMPUTE_STATUS_DISABLED") == ["h1.lab", "h2.lab"]
        assert await op.names("?required=!COMPUTE_STATUS_DISABLED") == []


async def test_the_query_of_providers_is_checked(tmp_path: Path) -> None:
    uuid = "6d0e6c37-0000-4000-8000-000000000000"
    bad = (
        ("colour=blue", LATEST),
        ("uuid=7", LATEST),
        ("in_tree=h1", LATEST),
        ("name=a&name=b", LATEST),
        ("member_of=h1", LATEST),
        ("member_of=in:", LATEST),
        ("member_of=", LATEST),
        (f"member_of=!{uuid}", 31),
        (f"member_of={uuid}&member_of={uuid}", 23),
        ("required=", LATEST),
        ("required=CUSTOM_MINE", LATEST),
        ("required=!HW_CPU_X86_SSE", 21),
        ("required=HW_CPU_X86_SSE&required=COMPUTE_NODE", 38),
        ("required=in:HW_CPU_X86_SSE", 38),
        ("required=COMPUTE_NODE,!COMPUTE_NODE", LATEST),
        ("resources=", LATEST),
        ("resources=VCPU", LATEST),
        ("resources=VCPU:0", LATEST),
        ("resources=VCPU:-1", LATEST),
        ("resources=VCPU:one", LATEST),
        ("resources=VCPU:1,VCPU:2", LATEST),
        ("resources=VGPU:1", LATEST),
        ("resources=VCPU:99999999999", LATEST),
        ("resources=VCPU:1", 3),
        (f"member_of={uuid}", 2),
        (f"in_tree={uuid}", 13),
        ("required=COMPUTE_NODE", 17),
        ("name=%ff", LATEST),
    )
    async with in_world(tmp_path) as world:
        op = await operator(world)
        for query, minor in bad:
            reply = await op.ask("GET", f"{RPS}?{query}", minor)
            assert (reply.status_code, "\n" in detail(reply)) == (400, False), (query, reply.text)


@pytest.mark.parametrize("name", ["AESNI", "SSE42", "AVX2", "VMX", "INTEL_VMX", "SSE4A"])
def test_a_trait_means_the_same_in_a_flavor_as_in_a_query(name: str) -> None:
    facts = HostFacts(1, "h", cpu_features=("aes", "sse4.2", "vmx"))
    trait = f"HW_CPU_X86_{name}"
    asked, _ = queries.traits([trait], LATEST, "required")
    in_query = queries.suits(Provider("h", facts), queries.CandidateRequest(required=asked))
    in_flavor = PlacementRequest(1, 1, 1, extra_specs={f"trait:{trait}": "required"})
    assert (said.capabilities(facts, in_flavor, PlacementSettings()) == "") == in_query


@given(
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(0, 60),
    st.integers(0, 9000),
    st.integers(0, 30),
    st.sampled_from((1.0, 1.5, 4.0, 16.0)),
    st.integers(1, 16),
    st.integers(1, 5000),
)
def test_it_offers_exactly_what_placing_would_give(
    vcpus: int, pinned: int, floating: int, ram_mb_used: int, reserved_mb: int, ratio: float, ask: int, ask_mb: int
) -> None:
    pinned = min(pinned, vcpus)
    facts = HostFacts(
        1,
        "h",
        vcpus=vcpus,
        memory_mb=8192,
        reserved_memory_mb=reserved_mb,
        disk_gb=40,
        ram_mb_used=ram_mb_used,
        vcpus_used=pinned + floating,
        cells=(NumaCell(0, tuple(range(vcpus)), 8192),),
        held_cells=(HeldCell(0, pinned, 0, tuple(range(pinned))),),
    )
    settings = PlacementSettings(cpu_ratio=ratio, ram_ratio=1.5)
    free = capacity.headroom_of(facts, capacity.ratios_of(settings))
    for name, field, amount in (("VCPU", "cpu", ask), ("PCPU", "own_cpu", ask), ("MEMORY_MB", "ram", ask_mb)):
        assert queries.has_capacity(Provider("h", facts), {name: amount}, settings) == (amount <= free[field]), (
            name,
            free,
        )
