"""The CPU that the hosts of an aggregate have in common; and a boot that warns of a guest which could move nowhere."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from droveway.domain.cpu_baseline import described
from droveway.domain.cpu_xml import WrongCpu
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.model import of_host, of_instance
from droveway.domain.placement import HostFacts, PlacementRequest, PlacementSettings
from droveway.scheduler.columns import Columns
from droveway.scheduler.plan import why_immovable
from droveway.store.compute import instances
from droveway.store.fleet import aggregates, hosts, services
from droveway.store.schema import hosts as table
from droveway.store.work import events
from tests.control.world import World, world

HOST = HostFacts(1, "h1", hypervisor_type="KVM", vcpus=8, memory_mb=8192, disk_gb=100, cpu_features=("aes", "sse"))
ASK, SETTINGS = PlacementRequest(1, 128, 1), PlacementSettings()


async def rack(w: World, *names: str) -> None:
    def write(tx: Any) -> None:
        one = aggregates.create(tx, "rack-1", None)
        for name in names:
            aggregates.add_host(tx, one["id"], name)

    await w.store.run(write)


def _reports_cpu(tx: Any, host: str, cpu_xml: str) -> None:
    row = hosts.get(tx, host)
    resources = msgspec.to_builtins(dict(row["resources"] or {}) | {"cpu_xml": cpu_xml})
    tx.execute(update(table).where(table.c.name == host).values(resources=resources))


async def test_the_least_of_them_is_what_all_can_run() -> None:
    async with world() as w:
        await rack(w, "h1", "h2")
        w.fleet.hosts["h2"].cpu_level = 3
        await w.store.run(_reports_cpu, "h2", '<cpu level="3"/>')
        found = await w.control.answers.cpu_baseline("rack-1")
        assert (found.model, found.reason, found.asked) == ("simulated-1", "", "h1")
        assert [(one.host, one.runs) for one in found.hosts] == [("h1", True), ("h2", True)]
        w.fleet.hosts["h1"].cpu_level = 0  # it was exchanged, and has not reported yet
        found = await w.control.answers.cpu_baseline("rack-1")
        assert [(one.host, one.runs, "lacks features" in one.reason) for one in found.hosts] == [
            ("h1", False, True),
            ("h2", True, False),
        ]


async def test_hosts_that_cannot_be_asked_are_named() -> None:
    async with world() as w:
        await rack(w, "h1", "h2")
        w.fleet.hosts["h2"].hypervisor_is_up, w.fleet.hosts["h2"].why = False, "it hangs"
        found = await w.control.answers.cpu_baseline("rack-1")
        assert found.model == "simulated-1"
        assert [(one.host, one.runs) for one in found.hosts] == [("h1", True), ("h2", None)]
        assert "it hangs" in found.hosts[1].reason
        await w.store.run(_reports_cpu, "h2", "<cpu><model>alien</model></cpu>")
        found = await w.control.answers.cpu_baseline("rack-1")
        assert found.model == "" and "no model in common" in found.reason
        with pytest.raises(NotFound):
            await w.control.answers.cpu_baseline("rack-9")
        await w.store.run(aggregates.create, "empty", None)
        with pytest.raises(BadRequest, match="has no hosts"):
            await w.control.answers.cpu_baseline("empty")


def test_what_a_hypervisor_says_is_told_by_its_features() -> None:
    text = (
        '<cpu mode="custom"><model fallback="forbid">Skylake</model><vendor>Intel</vendor>'
        '<feature policy="require" name="aes"/><feature policy="disable" name="hle"/></cpu>'
    )
    found = described("rack-1", text, "h1", ())
    assert (found.model, found.vendor, found.features, found.without) == ("Skylake", "Intel", ("aes",), ("hle",))
    assert described("rack-1", "", "h1", ()).model == "emulated"
    with pytest.raises(WrongCpu):
        described("rack-1", "<cpu><evil/></cpu>", "h1", ())


# -- a guest that could move nowhere ----------------------------------------------------------------------------------
def columns(*facts: HostFacts) -> Columns:
    made = Columns()
    for one in facts:
        made.put(one)
    return made


def other(**changes: Any) -> HostFacts:
    return msgspec.structs.replace(HOST, id=2, name="h2", **changes)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (other(), ""),
        (other(cpu_features=("aes", "avx", "sse")), ""),
        (other(cpu_features=("sse",)), "every feature of the processor of h1"),
        (other(hypervisor_type="QEMU"), "no other host could take it"),
        (other(disabled=True, disabled_reason="its fan"), "no other host could take it"),
        (other(memory_mb=64), "no other host could take it"),
    ],
)
def test_who_could_take_it_is_asked_of_the_rules_and_the_processors(there: HostFacts, words: str) -> None:
    found = why_immovable(columns(HOST, there), "h1", ASK, SETTINGS)
    assert words in found and bool(words) == bool(found)


def test_one_host_alone_is_no_news_and_an_emulated_guest_touches_no_processor() -> None:
    assert why_immovable(columns(HOST), "h1", ASK, SETTINGS) == ""
    emulated = msgspec.structs.replace(HOST, hypervisor_type="QEMU")
    there = other(hypervisor_type="QEMU", cpu_features=())
    assert why_immovable(columns(emulated, there), "h1", ASK, SETTINGS) == ""


async def test_a_boot_warns_when_its_guest_could_move_nowhere() -> None:
    async with world() as w:
        free = await w.create()
        assert not [one for one in await w.store.read(events.of_subject, of_instance(free)) if one["kind"] == "warning"]

        def disable(tx: Any) -> None:
            (service,) = services.list_all(tx, host="h2", binary="nova-compute")
            services.set_(tx, service["uuid"], disabled=True, disabled_reason="its fan is loud")

        await w.store.run(disable)
        await w.control.placer.refresh()
        bound = await w.create()
        assert (await w.store.read(instances.get, bound))["host"] == "h1"
        for subject in (of_instance(bound), of_host("h1")):
            (warned,) = [one for one in await w.store.read(events.of_subject, subject) if one["kind"] == "warning"]
            assert bound in warned["body"]["reason"] and "its fan is loud" in warned["body"]["reason"]
