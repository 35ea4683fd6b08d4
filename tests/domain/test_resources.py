"""What a host may say of itself, and what it is worth: absurd numbers are told from large ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from droveway.domain.model import Guest, GuestState, Resources
from droveway.domain.placement import HostFacts, NumaCell
from droveway.domain.resources import (
    GuestUse,
    HostUsage,
    LastReport,
    is_free_amount_changed,
    lost_capacity,
    unusable,
    uptime_text,
    validation_error,
    without_free_amounts,
    without_guests,
)

GOOD = Resources(
    hypervisor_type="KVM",
    hypervisor_version=7002022,
    hypervisor_hostname="h1",
    vcpus=8,
    memory_mb=16384,
    memory_free_mb=12000,
    disk_gb=500,
    disk_free_gb=400,
    machine_types=("pc", "q35"),
    cells=(NumaCell(0, (0, 1, 2, 3), 8192), NumaCell(1, (4, 5, 6, 7), 8192)),
)
HOST = HostFacts(1, "h1", vcpus=8, memory_mb=16384, disk_gb=500)
MOST = (16384, 128, 500)


def test_what_real_hosts_say_is_believed() -> None:
    assert validation_error(GOOD) is None
    assert validation_error(None) is None
    large = replace(GOOD, vcpus=1024, memory_mb=32 * 1024 * 1024, disk_gb=4_000_000, cells=())
    measured = HostUsage(90_000_000, (900.0, 1.0, 0.0), 3, 1, 1, 5, (GuestUse("i", 1, 1, 1),))
    assert validation_error(large, measured=measured) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vcpus": 0}, "0 vcpus; 1 to 65536 can be"),
        ({"vcpus": -3}, "-3 vcpus"),
        ({"vcpus": 70_000}, "70000 vcpus"),
        ({"memory_mb": (1 << 40) + 1}, "MiB of memory"),
        ({"memory_mb": -1}, "-1 MiB of memory"),
        ({"memory_free_mb": 16385}, "16385 MiB of free memory; 0 to 16384 can be"),
        ({"disk_free_gb": -1}, "-1 GiB of free disk"),
        ({"disk_gb": 1 << 31}, "GiB of disk"),
        ({"reserved_memory_mb": 20_000}, "kept back"),
        ({"hypervisor_version": -1}, "version of its hypervisor"),
        ({"hypervisor_hostname": ""}, "no name"),
        ({"hypervisor_hostname": "h" * 300}, "hypervisor hostname"),
        ({"hypervisor_type": "K\x1b[31m"}, "hypervisor type"),
        ({"machine_types": ("x" * 300,)}, "machine types"),
        ({"cpu_features": ("f",) * 5000}, "CPU features"),
        ({"cpu_topology": {"cores": -2}}, "-2 cores"),
        ({"cpu_topology": {"a\0": -2}}, "name of a part of its CPU topology"),
        ({"cpu_xml": "x" * 300_000}, "description of its CPU"),
        ({"cells": (NumaCell(0, (0, 1), 100), NumaCell(0, (2,), 100))}, "same number"),
        ({"cells": (NumaCell(0, (0, 1), 100), NumaCell(1, (1,), 100))}, "same CPU"),
        ({"cells": (NumaCell(0, tuple(range(9)), 100),)}, "(9) are not those of the host (8)"),
        ({"cells": (NumaCell(0, (70_000,), 100),)}, "are not those of the host"),
        ({"cells": (NumaCell(1 << 63, (0,), 100),)}, "above 65535"),
        ({"cells": (NumaCell(0, (0,), 40_000),)}, "40000 MiB of memory and the host 16384 MiB"),
    ],
)
def test_what_cannot_be_is_doubted_with_a_reason(values: dict[str, Any], words: str) -> None:
    reason = validation_error(replace(GOOD, **values))
    assert reason is not None and words in reason


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (HostUsage(load=(float("nan"), 0.0, 0.0)), "a load of nan"),
        (HostUsage(load=(float("inf"), 0.0, 0.0)), "a load of inf"),
        (HostUsage(load=(-1.0, 0.0, 0.0)), "a load of -1"),
        (HostUsage(load=(1e308, 0.0, 0.0)), "a load of 1e+308"),
        (HostUsage(uptime_s=-1), "-1 seconds of uptime"),
        (HostUsage(users=-1), "-1 users"),
        (HostUsage(memory_free_mb=1 << 63), "MiB of memory free now"),
        (HostUsage(disk_available_least_gb=-(1 << 63)), "GiB of disk available at least"),
        (HostUsage(guests=(GuestUse("i", 1 << 63),)), "more than there is"),
        (HostUsage(guests=(GuestUse("i\0", 1),)), "a guest whose name is not 1 to 255"),
        (HostUsage(guests=(GuestUse("i", -1),)), "guest i has used less than nothing"),
        (HostUsage(guests=(GuestUse("i", 1, 20_000),)), "20000 MiB of a host that has 16384 MiB"),
    ],
)
def test_so_is_what_cannot_be_measured(measured: HostUsage, words: str) -> None:
    reason = validation_error(GOOD, measured=measured)
    assert reason is not None and words in reason


def test_guests_are_bounded() -> None:
    one = Guest("i" * 300, GuestState.RUNNING)
    assert "300" not in (validation_error(GOOD, [one]) or "") and validation_error(GOOD, [one])
    assert "10001 guests" in (validation_error(GOOD, [Guest("i", GuestState.RUNNING)] * 10_001) or "")
    assert "10001 guests" in (validation_error(GOOD, admitted=["i"] * 10_001) or "")
    for name in ("", "i\0", "i\n"):  # no database could be asked for some of these
        assert "names a guest by none" in (validation_error(GOOD, [Guest(name, GuestState.RUNNING)]) or "")
        assert "names a guest by none" in (validation_error(GOOD, admitted=[name]) or "")


def test_so_are_generation_and_reason() -> None:
    assert validation_error(GOOD, generation=0, reason="a\nb") is None
    for generation in (-1, (1 << 40) + 1, 1 << 63):
        assert f"it says {generation} as the generation" in (validation_error(GOOD, generation=generation) or "")
    for reason in ("a\0b", "a" * 4097):
        assert "or holds a nul" in (validation_error(None, reason=reason) or "")


def test_what_moves_by_itself_is_no_news_until_it_is_far() -> None:
    later = replace(GOOD, memory_free_mb=11_000, disk_free_gb=380)
    assert without_free_amounts(later) == without_free_amounts(GOOD)
    assert not is_free_amount_changed(later, GOOD.memory_free_mb, GOOD.disk_free_gb)
    assert is_free_amount_changed(replace(GOOD, memory_free_mb=10_000), GOOD.memory_free_mb, GOOD.disk_free_gb)
    assert is_free_amount_changed(replace(GOOD, disk_free_gb=340), GOOD.memory_free_mb, GOOD.disk_free_gb)


def test_a_host_that_has_less_than_it_had_has_shrunk() -> None:
    before = {"vcpus": 8, "memory_mb": 16384, "disk_gb": 500}
    assert lost_capacity(before, GOOD) is None
    assert lost_capacity({}, GOOD) is None
    assert lost_capacity(before, replace(GOOD, vcpus=4, memory_mb=8192)) == (
        "it has shrunk from 8 to 4 vcpus and from 16384 to 8192 MiB of memory"
    )


@pytest.mark.parametrize(
    ("values", "word", "words"),
    [
        ({"is_up": False, "reason": "no heartbeat for 9 s"}, "down", "no heartbeat for 9 s"),
        ({"disabled": True, "disabled_reason": "a new fan"}, "disabled", "a new fan"),
        ({"refused": "it says 0 vcpus"}, "refused", "last report was refused: it says 0 vcpus"),
        ({"hypervisor_up": False}, "hypervisor", "did not answer"),
        ({"vcpus": 0, "memory_mb": 0}, "never reported", "not reported yet"),
        ({"ram_mb_used": 16384}, "full", "16384 of 16384 MiB of memory"),
        ({"ram_mb_used": 20000}, "shrunk", "20000 of 16384 MiB of memory; they run on"),
        ({"vcpus_used": 128}, "full", "128 of 128 vcpus"),
    ],
)
def test_why_a_host_is_not_usable(values: dict[str, Any], word: str, words: str) -> None:
    assert unusable(HOST, MOST) == []
    (one,) = unusable(replace(HOST, **values), MOST)
    assert one.word == word and words in one.reason


def test_a_disk_that_is_all_promised_leaves_room_for_guests_without_one() -> None:
    assert unusable(replace(HOST, disk_gb_used=500), MOST) == []
    assert unusable(replace(HOST, disk_gb_used=501), MOST)[0].word == "shrunk"


@pytest.mark.parametrize(
    ("uptime_s", "text"),
    [
        (8_101_500, " 12:34:56 up 93 days, 18:26,  1 user,  load average: 0.20, 0.12, 0.14"),
        (3_600, " 12:34:56 up 1:01,  1 user,  load average: 0.20, 0.12, 0.14"),
        (60, " 12:34:56 up 2 min,  1 user,  load average: 0.20, 0.12, 0.14"),
        (86_400, " 12:34:56 up 1 day, 1 min,  1 user,  load average: 0.20, 0.12, 0.14"),
    ],
)
def test_uptime_reads_as_the_command_says_it_and_goes_on_between_reports(uptime_s: int, text: str) -> None:
    now_us = (12 * 3600 + 34 * 60 + 56) * 1_000_000
    heard = LastReport(now_us - 60_000_000, 7, HostUsage(uptime_s, (0.2, 0.12, 0.14), 1))
    assert uptime_text(heard, now_us) == text
    assert uptime_text(None, now_us) is None
    assert uptime_text(LastReport(now_us, 7), now_us) is None


def test_what_was_heard_crosses_from_process_to_process() -> None:
    heard = {
        "h1": LastReport(5, 7, HostUsage(1, (0.5, 1.0, 2.0), guests=(GuestUse("i", 1, 2, 3),))),
        "h2": LastReport(6, 8),
    }
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(heard)))
    assert msgspec.convert(wire, dict[str, LastReport]) == heard
    short = without_guests(heard["h1"])
    assert short.measured is not None and (short.measured.guests, short.measured.load) == ((), (0.5, 1.0, 2.0))
