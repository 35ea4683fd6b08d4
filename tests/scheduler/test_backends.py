"""Where a volume may lie: each rule with its sentence, the order, and what is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from droveway.domain.volume.model import BackendSettings
from droveway.domain.volume.placement import BackendFacts, VolumeRequest
from droveway.drivers.storage.simulated import GUARANTEES
from droveway.scheduler.backends import RULES, as_plain, place, reason, to_tenants, words

THICK = msgspec.structs.replace(GUARANTEES, thin=False)


def backend(name: str = "h1@fast", **more: Any) -> BackendFacts:
    values: dict[str, Any] = {"total_gb": 100.0, "free_gb": 100.0, "allocated_gb": 0, "guarantees": THICK}
    settings = more.pop("settings", BackendSettings())
    values |= more
    return BackendFacts(name, "dir", settings=settings, **values)


CASES: tuple[tuple[str, BackendFacts, VolumeRequest, str], ...] = (
    ("asked", backend(), VolumeRequest(1, only="h2@slow"), "h2@slow was asked for"),
    ("up", backend(is_up=False, reason="killed"), VolumeRequest(1), "its service is down: killed"),
    ("disabled", backend(disabled=True, disabled_reason="rack moves"), VolumeRequest(1), "disabled: rack moves"),
    ("frozen", backend(frozen=True), VolumeRequest(1), "an operator froze it"),
    ("trouble", backend(trouble="the pool is away"), VolumeRequest(1), "the pool is away"),
    ("zone", backend(zone="east"), VolumeRequest(1, zone="west"), "it is in zone east, west was asked for"),
    ("tried", backend(), VolumeRequest(1, never={"h1@fast": "it refused: full"}), "it refused: full"),
    ("same_host", backend(), VolumeRequest(1, same_host=("h2@slow",)), "same_host names volumes elsewhere"),
    ("different_host", backend(), VolumeRequest(1, different_host=("h1@fast",)), "names a volume there"),
    ("capabilities", backend(), VolumeRequest(1, "gold", {"volume_backend_name": "ssd"}), "is fast, ssd is wanted"),
    ("capacity", backend(allocated_gb=95), VolumeRequest(6), "6 GiB wanted, 5 of 100 GiB that may be promised"),
    ("free", backend(free_gb=3.0), VolumeRequest(6), "6 GiB wanted, its pool has 3.0 of 100 GiB free"),
)


@pytest.mark.parametrize(("rule", "facts", "ask", "sentence"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_says_why(rule: str, facts: BackendFacts, ask: VolumeRequest, sentence: str) -> None:
    plan = place([facts], ask, 1)
    assert not plan.ranked and [one.rule for one in plan.fallen] == [rule]
    assert sentence in reason(plan) and reason(plan).startswith("No valid backend was found: ")
    assert "h1@fast" not in to_tenants(plan) and "killed" not in to_tenants(plan)


def test_every_rule_has_its_case() -> None:
    assert [case[0] for case in CASES] == [rule.name for rule in RULES]


@pytest.mark.parametrize(
    ("key", "wanted", "fits"),
    [
        ("capabilities:thin_provisioning", "<is> True", False),
        ("thin_provisioning", "<is> False", True),
        ("capabilities:iops", ">= 500", True),
        ("capabilities:iops", ">= 5000", False),
        ("capabilities:media", "<or> ssd <or> nvme", True),
        ("volume_backend_name", "fast", True),
        ("storage_protocol", "dir", True),
        ("capabilities:unknown", "1", False),
        ("quota:anything", "7", True),
    ],
)
def test_types_ask_for_capabilities(key: str, wanted: str, fits: bool) -> None:
    facts = backend(settings=BackendSettings("fast", capabilities={"iops": "900", "media": "ssd"}))
    assert bool(place([facts], VolumeRequest(1, "gold", {key: wanted}), 1).ranked) is fits


def test_a_thin_pool_is_promised_beyond_what_it_has_but_for_what_is_kept_back() -> None:
    settings = BackendSettings(max_over_subscription_ratio=2.0, reserved_percentage=10)
    thin = backend(guarantees=GUARANTEES, settings=settings, allocated_gb=170)
    assert place([thin], VolumeRequest(10), 1).ranked, "180 may be promised"
    assert not place([thin], VolumeRequest(11), 1).ranked
    nearly_full = msgspec.structs.replace(thin, allocated_gb=0, free_gb=12.0)
    assert place([nearly_full], VolumeRequest(4), 1).ranked, "2 GiB are free beside what is kept back"
    assert not place([nearly_full], VolumeRequest(5), 1).ranked


def test_the_most_left_comes_first_and_lots_are_drawn_by_the_seed() -> None:
    few, most, same = backend("a@x", allocated_gb=50), backend("b@x", allocated_gb=10), backend("c@x", allocated_gb=10)
    orders = {tuple(one.name for one in place([few, most, same], VolumeRequest(1), seed).ranked) for seed in range(9)}
    assert orders == {("b@x", "c@x", "a@x"), ("c@x", "b@x", "a@x")}
    assert "no backend yet" in reason(place([], VolumeRequest(1), 1))


def test_it_is_told_in_words() -> None:
    ask = VolumeRequest(5, "gold", {"capabilities:iops": ">= 500"}, zone="east", different_host=("h2@slow",))
    assert words(ask) == "5 GiB; type gold; iops=>= 500; in zone east; not on h2@slow"
    plan = place([backend(zone="east")], ask, 7)
    told = as_plain(msgspec.to_builtins({"kind": "create_volume", "ask": ask, "plan": plan}), None)
    assert (told["host"], told["hosts"], told["fallen"][0]["rule"], told["seed"]) == (None, 1, "capabilities", 7)
