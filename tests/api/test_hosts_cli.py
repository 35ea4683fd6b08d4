"""`droveway host …` as an operator types it, against an API that is really served."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.domain.liveness import State
from droveway.domain.placement import NumaCell
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import host_reports
from tests.api.test_services_cli import SOON_S, Served
from tests.api.world import RESOURCES


class Hosts(Served):
    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "droveway.main", "host", *words]

    def write(self, host: str, **values: Any) -> None:
        """That host reports something else."""

        def report(tx: Tx) -> None:
            said = msgspec.to_builtins(msgspec.structs.replace(RESOURCES, hypervisor_hostname=f"{host}.lab", **values))
            host_reports.report(tx, host, said, True, "", 7)

        self.run(report)

    def run(self, write: Any, *arguments: Any) -> None:
        asyncio.run_coroutine_threadsafe(self.world.store.run(write, *arguments), self.loop).result(SOON_S)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.stop()


def test_the_list_says_which_hosts_can_be_used_and_why_not_in_short(served: Hosts) -> None:
    served.becomes(State.HUNG, "h2")
    code, lines = served.says("list")
    assert code == 0
    assert lines[0].split() == ["Host", "Zone", "State", "Usable", "Vcpus", "Memory", "Disk", "Guests", "Hypervisor"]
    assert lines[1].split()[:6] == ["h1", "nova", "up", "yes", "0/32", "0/3584"]
    assert lines[1].split()[6:] == ["MiB", "0/40", "GiB", "0", "QEMU", "7.2.22"]
    assert lines[2].split()[:6] == ["h2", "nova", "down", "no:", "down", "0/32"]
    code, lines = served.says("list", "--json")
    assert [one["usable"] for one in json.loads("\n".join(lines))] == [True, False]


def test_a_host_is_shown_with_all_there_is_to_say(served: Hosts) -> None:
    machine = "11111111-2222-4333-8444-555555555555"
    served.write("h1", host_uuid=machine, cells=(NumaCell(0, (0, 1), 4096),))
    served.write("h2", host_uuid=machine)
    served.becomes(State.HOST_GONE, "h2")
    served.run(host_reports.refuse, "h1", "it says 0 vcpus; 1 to 65536 can be")
    code, lines = served.says("show", "h1")
    assert code == 0
    assert lines[0] == "h1 in zone nova is up and not usable"
    assert lines[1] == "  ! its last report was refused: it says 0 vcpus; 1 to 65536 can be"
    text = "\n".join(lines)
    for expected in (
        "generation 7 of",
        "QEMU 7.2.22 on h1.lab",
        "4096 MiB, 0/3584 promised, 512 kept back",
        "2 CPUs, 0/4096 MiB held",
        "! this machine was called h2: that name holds nothing any more",
    ):
        assert expected in text
    assert json.loads("\n".join(served.says("show", "h1", "--json")[1]))["report"]["generation"] == 7
    code, lines = served.says("show", "h9")
    assert (code, "there is no host h9" in lines[0]) == (1, True)


def test_what_is_said_under_a_name_that_a_machine_no_longer_has(served: Hosts) -> None:
    machine = "11111111-2222-4333-8444-555555555555"
    served.write("h1", host_uuid=machine)
    served.write("h2", host_uuid=machine)

    def names(host: str) -> str:
        return "\n".join(line for line in served.says("show", host)[1] if line.startswith("! "))

    assert names("h1") == "! h2 says that it is the same machine, and is up too: give each a uuid of its own"
    served.becomes(State.HOST_GONE, "h1")
    assert names("h1") == (
        "! this machine now reports as h2: the name h1 holds nothing any more, delete its compute service"
    )
    assert names("h2") == "! this machine was called h1: that name holds nothing any more, delete its compute service"
    served.becomes(State.HOST_GONE, "h2")
    assert "neither name reports" in names("h1")


def test_two_hosts_with_one_hypervisor_hostname_are_told(served: Hosts) -> None:
    assert not [line for line in served.says("list")[1] if line.startswith("!")]
    served.write("h1")

    def report(tx: Tx) -> None:
        host_reports.report(
            tx, "h2", msgspec.to_builtins(msgspec.structs.replace(RESOURCES, hypervisor_hostname="h1.lab")), True, "", 7
        )

    served.run(report)
    said = [line for line in served.says("list")[1] if line.startswith("!")]
    assert [line[:5] for line in said] == ["! h1:", "! h2:"]
    assert "its hypervisor calls itself h1.lab, and so does that of h2: " in said[0]
    assert said[0][6:] in "\n".join(served.says("show", "h1")[1])


def test_a_host_that_will_not_come_back_is_declared_gone(served: Hosts) -> None:
    served.becomes(State.HOST_GONE, "h2")
    code, lines = served.says("declare-gone", "h2", "--because", "its board is broken")
    assert code == 0, lines
    assert "started nowhere else" in " ".join(lines)
    code, lines = served.says("show", "h2")
    assert any("declared" in line and "its board is broken" in line for line in lines)
    code, lines = served.says("readmit", "h2")
    assert code == 0, lines
    code, lines = served.says("readmit", "h2")
    assert code != 0
