"""Placement: what fits is ranked, what does not says why, and a host is never promised beyond its ratios."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from droveway.domain.scheduling import Ask, HostView, Ratios, first_failing, place, sentence


def host(name: str = "h1", **changes: object) -> HostView:
    values: dict[str, object] = {
        "name": name, "zone": "nova", "is_up": True, "sentence": "", "disabled": False, "disabled_reason": "",
        "hypervisor_up": True, "hypervisor_type": "QEMU", "vcpus": 4, "memory_mb": 8192, "reserved_memory_mb": 512,
        "disk_gb": 100, "vcpus_used": 0, "ram_mb_used": 0, "disk_gb_used": 0, "instances": 0, "claims": 0,
    }  # fmt: skip
    return HostView(**(values | changes))  # type: ignore[arg-type]


ASK = Ask(1, 1024, 10)


def test_the_emptiest_host_comes_first() -> None:
    plan = place(ASK, [host("a", ram_mb_used=4096), host("b"), host("c", instances=1)], Ratios())
    assert plan.ranked == ("b", "c", "a")


def test_each_host_that_falls_says_why() -> None:
    plan = place(Ask(1, 1024, 10, never={"d": "it runs there already"}), [
        host("a", disabled=True, disabled_reason="new fans"), host("b", is_up=False, sentence="no beat for 4.0 s"),
        host("c", ram_mb_used=7000), host("d"), host("e", hypervisor_up=False), host("f", disk_gb_used=95),
    ], Ratios())  # fmt: skip
    assert plan.ranked == ()
    assert plan.reasons == {
        "a": "it is disabled: new fans", "b": "it is down: no beat for 4.0 s",
        "c": "memory: 1024 MiB wanted, 680 MiB free", "d": "it runs there already",
        "e": "its hypervisor does not answer", "f": "disk: 10 GiB wanted, 5 GiB free",
    }  # fmt: skip
    assert "a: it is disabled: new fans" in sentence(plan)


def test_no_host_at_all_says_what_to_do() -> None:
    assert "droveway agent" in sentence(place(ASK, [], Ratios()))


def test_only_the_host_that_was_asked_for() -> None:
    assert place(Ask(1, 1, 1, only="b"), [host("a"), host("b")], Ratios()).ranked == ("b",)


sizes = st.integers(0, 20_000)


@given(st.integers(1, 64), st.integers(1, 16_384), st.integers(0, 200), sizes, sizes, sizes)
def test_what_fits_stays_within_the_ratios(cpu: int, ram: int, disk: int, cpus: int, rams: int, disks: int) -> None:
    view = host(vcpus_used=cpus, ram_mb_used=rams, disk_gb_used=disks)
    if first_failing(Ask(cpu, ram, disk), view, Ratios()) is None:
        assert cpus + cpu <= view.vcpus * 16
        assert rams + ram <= view.memory_mb - view.reserved_memory_mb
        assert disks + disk <= view.disk_gb
