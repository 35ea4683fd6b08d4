"""Placement as OpenStack's clients see it: who holds what, what would fit, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from droveway.domain.model import SagaKind
from droveway.domain.traits import KNOWN, traits_of
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.schema import instances as instance_rows
from droveway.store.schema import migrations
from tests.api.placement_operator import LATEST, PLC, RPS, detail, operator, report
from tests.api.world import in_world


# -- consumers --------------------------------------------------------------------------------------------------------
async def test_allocations_are_the_rows_of_guests_and_migrations(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        server_id = await op.server("h1")
        h1, h2 = await op.uuid("h1"), await op.uuid("h2")
        held = {"VCPU": 1, "MEMORY_MB": 128, "DISK_GB": 1}
        told = await op.get(f"{PLC}/allocations/{server_id}")
        row = await world.store.read(instances.get, server_id)
        assert told["allocations"][h1]["resources"] == held
        assert told["allocations"][h1]["generation"] == (await op.get(f"{RPS}/{h1}"))["generation"]
        assert (told["project_id"], told["user_id"]) == (row["project_id"], row["user_id"])
        assert (told["consumer_type"], told["consumer_generation"]) == ("INSTANCE", row["fence"])
        fields = {"allocations"}
        for minor, more in (
            (11, ()),
            (12, ("project_id", "user_id")),
            (28, ("consumer_generation",)),
            (38, ("consumer_type",)),
        ):
            fields |= set(more)
            assert set(await op.get(f"{PLC}/allocations/{server_id}", minor)) == fields
        await world.store.run(instances.intend, server_id, SagaKind.LIVE_MIGRATION, {})

        def claim(tx: Tx) -> str:
            tx.execute(update(migrations).values(holds_claim=True, destination="h2"))
            return str(tx.execute(select(migrations.c.uuid)).scalar_one())

        migration = await world.store.run(claim)
        told = await op.get(f"{PLC}/allocations/{migration}")
        assert (told["consumer_type"], told["allocations"][h2]["resources"]) == ("MIGRATION", held)
        assert list((await op.get(f"{RPS}/{h2}/allocations"))["allocations"]) == [migration]
        assert (await op.get(f"{RPS}/{h2}/usages"))["usages"] == held
        project, user = row["project_id"], row["user_id"]
        twice = {name: 2 * amount for name, amount in held.items()}
        usages = f"{PLC}/usages?project_id={project}"
        assert (await op.get(usages, 37))["usages"] == twice
        assert (await op.get(f"{usages}&user_id={user}", 9))["usages"] == twice
        assert (await op.get(f"{usages}&user_id=nobody"))["usages"] == {}
        kinds = {"INSTANCE": {"consumer_count": 1, **held}, "MIGRATION": {"consumer_count": 1, **held}}
        assert (await op.get(usages))["usages"] == kinds
        assert (await op.get(f"{usages}&consumer_type=MIGRATION"))["usages"] == {"MIGRATION": kinds["MIGRATION"]}
        assert (await op.get(f"{usages}&consumer_type=all"))["usages"] == {"all": {"consumer_count": 2, **twice}}
        assert (await op.get(f"{usages}&consumer_type=unknown"))["usages"] == {}

        def gone(tx: Tx) -> None:
            tx.execute(update(migrations).values(holds_claim=False))
            tx.execute(update(instance_rows).values(host=None, deleted=True))

        await world.store.run(gone)
        for consumer in (server_id, migration, "7", "%F0%9F%98%80"):
            assert await op.get(f"{PLC}/allocations/{consumer}") == {"allocations": {}}
        assert (await op.get(usages))["usages"] == {}
        for bad in ("", "?user_id=x", "?project_id=", "?project_id=x&consumer_type=VOLUME", "?project_id=x&a=b"):
            assert (await op.ask("GET", f"{PLC}/usages{bad}")).status_code == 400
        assert (await op.ask("GET", f"{PLC}/usages?project_id=x&consumer_type=all", 37)).status_code == 400


# -- candidates -------------------------------------------------------------------------------------------------------
async def test_candidates_are_the_hosts_where_it_fits(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        await op.server("h1")
        h1, h2 = await op.uuid("h1"), await op.uuid("h2")
        path = f"{PLC}/allocation_candidates?resources=VCPU:1,MEMORY_MB:3500"
        asked = {"VCPU": 1, "MEMORY_MB": 3500}
        oldest = await op.get(path, 10)
        assert oldest["allocation_requests"] == [
            {"allocations": [{"resource_provider": {"uuid": h2}, "resources": asked}]}
        ]
        assert oldest["provider_summaries"] == {
            h2: {"resources": {"VCPU": {"capacity": 32, "used": 0}, "MEMORY_MB": {"capacity": 3584, "used": 0}}}
        }
        by_provider = {"allocations": {h2: {"resources": asked}}}
        assert (await op.get(path, 12))["allocation_requests"] == [by_provider]
        assert (await op.get(path, 33))["allocation_requests"] == [by_provider]
        assert (await op.get(path, 34))["allocation_requests"] == [{**by_provider, "mappings": {"": [h2]}}]
        for minor, fields, classes in (
            (16, {"resources"}, 2),
            (17, {"resources", "traits"}, 2),
            (27, {"resources", "traits"}, 3),
            (29, {"resources", "traits", "parent_provider_uuid", "root_provider_uuid"}, 3),
        ):
            summary = (await op.get(path, minor))["provider_summaries"][h2]
            assert (set(summary), len(summary["resources"])) == (fields, classes)
        assert await op.candidates("resources=VCPU:1") == [h1, h2]
        assert await op.candidates("resources=VCPU:1&limit=1") == [h1]
        assert await op.candidates(f"resources=VCPU:1&in_tree={h2}") == [h2]
        assert await op.candidates("resources=DISK_GB:41") == []


async def test_groups_of_a_request_go_to_one_host(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        await report(world, "h2", cpu_features=("sse", "avx"))
        h1, h2 = await op.uuid("h1"), await op.uuid("h2")
        two = "resources1=MEMORY_MB:1800&resources2=MEMORY_MB:1700"
        body = await op.get(f"{PLC}/allocation_candidates?{two}&group_policy=none")
        assert body["allocation_requests"][0] == {
            "allocations": {h1: {"resources": {"MEMORY_MB": 3500}}},
            "mappings": {"1": [h1], "2": [h1]},
        }
        assert await op.candidates(f"{two}&resources=MEMORY_MB:100&group_policy=none") == []
        assert await op.candidates(f"{two}&group_policy=isolate") == []
        assert await op.candidates("resources_NET=VCPU:1&group_policy=isolate", 33) == [h1, h2]
        assert await op.candidates("resources=VCPU:1&resources1=DISK_GB:1&required1=HW_CPU_X86_AVX", 25) == [h2]
        assert await op.candidates("resources=VCPU:1&root_required=!HW_CPU_X86_AVX", 35) == [h1]
        assert await op.candidates("resources1=VCPU:1&required2=HW_CPU_X86_AVX&same_subtree=1,2", 36) == [h2]
        bad = (
            ("", LATEST),
            ("required=COMPUTE_NODE", LATEST),
            (two, LATEST),
            (f"{two}&group_policy=some", LATEST),
            ("resources=VCPU:1&required1=COMPUTE_NODE", LATEST),
            ("resources=VCPU:1&same_subtree=7", LATEST),
            ("resources=VCPU:1&same_subtree=", LATEST),
            ("resources1=VCPU:1&same_subtree=1", 35),
            ("resources=VCPU:1&limit=0", LATEST),
            ("resources=VCPU:1&limit=many", LATEST),
            ("resources=VCPU:1&limit=1", 15),
            ("resources1=VCPU:1", 24),
            ("resources_NET=VCPU:1", 32),
            ("resources=VCPU:1&in_tree1=x&resources1=VCPU:1", LATEST),
            ("resources=VCPU:1&required=COMPUTE_NODE", 16),
            ("resources=VCPU:1&root_required=COMPUTE_NODE", 34),
            ("resources=VCPU:1&resources=VCPU:2", LATEST),
            ("resources=VCPU:1&member_of=" + h1, 20),
            ("resources=VCPU:1&in_tree=" + h1, 30),
        )
        for query, minor in bad:
            reply = await op.ask("GET", f"{PLC}/allocation_candidates?{query}", minor)
            assert (reply.status_code, bool(detail(reply))) == (400, True), (query, reply.text)


# -- names ------------------------------------------------------------------------------------------------------------
async def test_classes_and_traits_are_those_that_hosts_can_have(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        listed = (await op.get(f"{PLC}/resource_classes"))["resource_classes"]
        assert [each["name"] for each in listed] == ["VCPU", "PCPU", "MEMORY_MB", "DISK_GB"]
        assert await op.get(f"{PLC}/resource_classes/VCPU") == listed[0]
        assert (await op.ask("GET", f"{PLC}/resource_classes/VGPU")).status_code == 404

        async def traits(query: str) -> list[str]:
            return list((await op.get(f"{PLC}/traits{query}"))["traits"])

        assert await traits("") == sorted(KNOWN)
        assert await traits("?name=in:HW_CPU_X86_AVX,COMPUTE_NODE,CUSTOM_X") == ["COMPUTE_NODE", "HW_CPU_X86_AVX"]
        assert await traits("?name=startswith:HW_CPU_X86_SSE4") == [
            "HW_CPU_X86_SSE41",
            "HW_CPU_X86_SSE42",
            "HW_CPU_X86_SSE4A",
        ]
        assert await traits("?associated=true") == ["COMPUTE_NODE", "HW_ARCH_X86_64", "HW_CPU_X86_SSE"]
        assert "HW_CPU_X86_SSE" not in await traits("?associated=false")
        found = await op.ask("GET", f"{PLC}/traits/COMPUTE_NODE")
        assert (found.status_code, found.content, found.headers["cache-control"]) == (204, b"", "no-cache")
        assert (await op.ask("GET", f"{PLC}/traits/CUSTOM_MINE")).status_code == 404
        for bad in ("name=AVX", "name=in:", "name=like:X", "associated=perhaps", "colour=blue"):
            assert (await op.ask("GET", f"{PLC}/traits?{bad}")).status_code == 400
        assert traits_of(("svm",), "sparc", closed=False) == {
            "COMPUTE_NODE",
            "HW_CPU_X86_SVM",
            "HW_CPU_X86_AMD_SVM",
        }


# -- what is refused --------------------------------------------------------------------------------------------------
WRITES = (
    ("POST", "/resource_providers", "hosts"),
    ("PUT", "/resource_providers/{p}", "hosts"),
    ("DELETE", "/resource_providers/{p}", "hosts"),
    ("PUT", "/resource_providers/{p}/inventories", "report"),
    ("POST", "/resource_providers/{p}/inventories", "report"),
    ("DELETE", "/resource_providers/{p}/inventories", "report"),
    ("PUT", "/resource_providers/{p}/inventories/VCPU", "report"),
    ("DELETE", "/resource_providers/{p}/inventories/VCPU", "report"),
    ("PUT", "/resource_providers/{p}/aggregates", "aggregate add host"),
    ("PUT", "/resource_providers/{p}/traits", "CPU"),
    ("DELETE", "/resource_providers/{p}/traits", "CPU"),
    ("POST", "/allocations", "servers"),
    ("PUT", "/allocations/{p}", "servers"),
    ("DELETE", "/allocations/{p}", "servers"),
    ("POST", "/reshaper", "servers"),
    ("POST", "/resource_classes", "one's own"),
    ("PUT", "/resource_classes/CUSTOM_X", "one's own"),
    ("DELETE", "/resource_classes/VCPU", "one's own"),
    ("PUT", "/traits/CUSTOM_X", "one's own"),
    ("DELETE", "/traits/CUSTOM_X", "one's own"),
)


async def test_nothing_is_written_and_the_refusal_says_what_it_follows_from(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        uuid = await op.uuid()
        for method, path, word in WRITES:
            more = {} if method == "DELETE" else {"json": {"name": "x"}}
            reply = await op.ask(method, PLC + path.format(p=uuid), **more)
            assert (reply.status_code, word in detail(reply), "allow" in reply.headers) == (405, True, True), path
        assert (await op.ask("POST", f"{PLC}/reshaper", 29, json={})).status_code == 404
        assert await op.names() == ["h1.lab", "h2.lab"]


@pytest.mark.parametrize(
    "path",
    [
        "/resource_providers",
        "/traits",
        "/usages?project_id=x",
        "/allocations/7",
        "/allocation_candidates?resources=VCPU:1",
        "/resource_classes",
    ],
)
async def test_placement_is_for_operators(tmp_path: Path, path: str) -> None:
    async with in_world(tmp_path) as world:
        headers = {"OpenStack-API-Version": "placement 1.39"}
        alice = await world.ask("GET", PLC + path, token=await world.token("alice", "red"), headers=headers)
        assert (alice.status_code, bool(detail(alice))) == (403, True)
        nobody = await world.http.get(PLC + path, headers=headers)
        assert (nobody.status_code, bool(detail(nobody))) == (401, True)
        assert (await world.ask("GET", f"{PLC}/nothing", token="x")).status_code == 404
