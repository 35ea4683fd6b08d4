"""Hosts and requests of every kind, small enough that each rule both holds and fails often."""

from __future__ import annotations

from hypothesis import strategies as st

from droveway.domain.placement import (
    GroupPolicy,
    GroupRequest,
    HeldCell,
    HostFacts,
    NumaCell,
    NumaRequest,
    PlacementRequest,
    PlacementSettings,
    Weights,
)

NAMES = tuple(f"host-{letter}" for letter in "abcdefgh")
names = st.sampled_from(NAMES)
mostly = st.sampled_from([True, True, True, True, True, False])


@st.composite
def cells(draw: st.DrawFn) -> tuple[tuple[NumaCell, ...], tuple[HeldCell, ...]]:
    """Cells with CPUs of their own, and guests that hold some of them without holding a CPU twice."""
    told, held, next_cpu = [], [], 0
    for number in range(draw(st.integers(0, 3))):
        count = draw(st.integers(1, 6))
        cpus = tuple(range(next_cpu, next_cpu + count))
        next_cpu += count
        told.append(NumaCell(number, cpus, draw(st.integers(0, 4)) * 1024))
        pinned = draw(st.integers(0, count))
        if pinned:
            held.append(HeldCell(number, pinned, draw(st.integers(0, 2)) * 512, cpus[:pinned]))
        if draw(st.booleans()) and count > pinned:
            held.append(HeldCell(number, draw(st.integers(1, count - pinned)), 512))
    return tuple(told), tuple(held)


@st.composite
def facts(draw: st.DrawFn, number: int = 1, name: str = "host-a") -> HostFacts:
    told, held = draw(st.one_of(st.just(((), ())), cells()))
    in_cells = sum(cell.vcpus for cell in held)
    return HostFacts(
        number,
        name,
        zone=draw(st.sampled_from(["nova", "nova", "az1"])),
        is_up=draw(mostly),
        reason="no heartbeat",
        disabled=not draw(mostly),
        refused="" if draw(mostly) else "memory_mb is -1",
        hypervisor_up=draw(mostly),
        store_trouble="" if draw(mostly) else "the instance store at /i does not answer",
        hypervisor_type=draw(st.sampled_from(["QEMU", "KVM", "simulated"])),
        hypervisor_version=draw(st.sampled_from([6_002_000, 7_000_000])),
        architecture=draw(st.sampled_from(["x86_64", "x86_64", "aarch64"])),
        machine_types=draw(st.sampled_from([(), ("pc", "q35"), ("pc",)])),
        firmwares=draw(st.sampled_from([(), ("bios",), ("bios", "uefi")])),
        cpu_features=draw(st.sampled_from([(), ("aes",), ("aes", "avx2")])),
        aggregates=draw(
            st.dictionaries(
                st.sampled_from(["ssd", "gpu", "filter_tenant_id", "filter_tenant_id2"]),
                st.sampled_from([("true",), ("true, false",), ("p1",), ("p1", "p2")]),
                max_size=2,
            )
        ),
        cells=told,
        held_cells=held,
        vcpus=max(draw(st.integers(0, 8)), sum(len(cell.cpus) for cell in told)),
        memory_mb=draw(st.integers(0, 8)) * 1024,
        reserved_memory_mb=draw(st.sampled_from([0, 512])),
        disk_gb=draw(st.integers(0, 40)),
        reserved_disk_gb=draw(st.sampled_from([0, 1])),
        vcpus_used=in_cells + draw(st.integers(0, 8)),
        ram_mb_used=draw(st.integers(0, 8)) * 512,
        disk_gb_used=draw(st.integers(0, 20)),
        instances=draw(st.integers(0, 5)),
        claims=draw(st.integers(0, 9)),
        failures=draw(st.sampled_from([0, 0, 0, 2])),
    )


@st.composite
def hosts(draw: st.DrawFn, least: int = 0) -> list[HostFacts]:
    chosen = draw(st.lists(names, unique=True, min_size=least, max_size=len(NAMES)))
    numbers = draw(st.lists(st.integers(1, 40), unique=True, min_size=len(chosen), max_size=len(chosen)))
    return [draw(facts(number, name)) for number, name in zip(numbers, chosen, strict=True)]


groups = st.builds(
    GroupRequest,
    st.just("group"),
    st.sampled_from(list(GroupPolicy)),
    st.dictionaries(names, st.integers(0, 2), max_size=3),
    st.integers(1, 2),
    st.one_of(st.just(()), st.lists(names, max_size=2).map(tuple)),
)
extra_specs = st.fixed_dictionaries(
    {},
    optional={
        "ssd": st.just("true"),
        "aggregate_instance_extra_specs:gpu": st.sampled_from(["true", "p1"]),
        "capabilities:cpu_info:features": st.sampled_from(["<in> aes", "<all-in> aes avx2"]),
        "trait:HW_CPU_X86_AVX2": st.sampled_from(["required", "forbidden"]),
        "hw_rng:allowed": st.just("True"),
    },
)
some_names = st.lists(names, max_size=2).map(tuple)


def _seldom(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.none(), st.none(), st.none(), st.none(), strategy)


numa_asks = st.builds(NumaRequest, st.integers(1, 3), st.booleans())
asks = st.builds(
    PlacementRequest,
    st.integers(1, 6),
    st.integers(0, 8).map(lambda n: n * 512),
    st.integers(0, 12),
    only=_seldom(names),
    zone=_seldom(st.sampled_from(["nova", "az1", "az9"])),
    never=st.dictionaries(names, st.just("it is out"), max_size=1),
    project_id=st.sampled_from(["", "p1", "p2", "p3"]),
    hypervisor_type=_seldom(st.sampled_from(["qemu", "kvm"])),
    least_hypervisor_version=st.sampled_from([0, 0, 0, 7_000_000]),
    architecture=_seldom(st.just("x86_64")),
    machine_type=_seldom(st.just("q35")),
    firmware=_seldom(st.just("uefi")),
    extra_specs=st.one_of(st.just({}), extra_specs),
    same_host=_seldom(some_names),
    different_host=some_names,
    group=_seldom(groups),
    numa=st.one_of(st.none(), st.none(), numa_asks),
    failed=some_names,
)
plain_asks = st.builds(
    PlacementRequest,
    st.integers(1, 6),
    st.integers(0, 8).map(lambda n: n * 512),
    st.integers(0, 12),
    numa=st.one_of(st.none(), numa_asks),
)
multipliers = st.sampled_from([-1.0, 0.0, 1.0, 2.5])
weights = st.builds(Weights, multipliers, multipliers, multipliers, multipliers, multipliers, multipliers)
settings = st.builds(
    PlacementSettings,
    cpu_ratio=st.sampled_from([0.5, 1.0, 1.5, 16.0]),
    ram_ratio=st.sampled_from([0.29, 1.0, 1.5]),
    disk_ratio=st.sampled_from([1.0, 2.0]),
    reserved_memory_mb=st.sampled_from([0, 512]),
    reserved_disk_gb=st.sampled_from([0, 2]),
    weights=weights,
    alternatives=st.integers(1, 4),
)
