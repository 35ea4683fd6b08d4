"""The ladder: what is decided from what a source counts of a copy. Each rule has a mutant that this file notices."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from droveway.domain import migration_ladder as ladder
from droveway.domain.migration_ladder import CopyTarget, LadderAction, LadderDecision, Policy, next_action
from droveway.domain.model import CopyProgress
from droveway.drivers.hypervisor.simulated.passes import MIB, Passes, Writing

GIB = 1024 * MIB
QUICK = Writing(600 * MIB, 256 * MIB)  # over a link of 256 MiB a second
LOOK_S = 0.5


def seen(iteration: int, remaining_mib: int, *, dirty: int = 0, rate: int = 100, throttle: int = 0) -> CopyProgress:
    return CopyProgress(
        GIB,
        0,
        remaining_mib * MIB,
        iteration,
        1000 * iteration,
        rate_bytes_s=rate * MIB,
        dirty_bytes_s=dirty * MIB,
        throttle_percent=throttle,
    )


def climb(target: CopyTarget, *looks: CopyProgress) -> list[LadderDecision]:
    state, decided = ladder.begin(target), []
    for look in looks:
        state, decision = next_action(target, state, look)
        if decision is not None:
            decided.append(decision)
    return decided


def carry(
    policy: Policy, writing: Writing, most_s: float = 120.0, **more: int
) -> tuple[list[LadderDecision], Passes, bool]:
    """A guest of 512 MiB, copied as a simulated host does it and looked at twice a second: what was decided, how far it
    was then, and whether it was switched."""
    target = msgspec.structs.replace(CopyTarget(policy), **more)
    passes, state, decided = Passes.of(512, target), ladder.begin(target), list[LadderDecision]()
    looked_s, paused = 0.0, False
    while passes.elapsed_s < most_s:
        if passes.advance(passes.next_s(), Writing(0, 0) if paused else writing):
            return decided, passes, True
        if passes.elapsed_s - looked_s < LOOK_S:
            continue
        looked_s = passes.elapsed_s
        state, decision = next_action(target, state, passes.progress())
        if decision is None or paused:
            continue
        decided.append(decision)
        passes.downtime_ms = decision.downtime_ms or passes.downtime_ms
        paused = decision.action is LadderAction.PAUSE
        if decision.action in (LadderAction.STOP, LadderAction.POST_COPY):
            return decided, passes, False
    raise AssertionError(f"nothing ended it within {most_s:.0f} s; decided was {decided}")


@pytest.mark.parametrize("policy", Policy)
def test_a_guest_that_converges_is_left_alone(policy: Policy) -> None:
    decided, passes, switched = carry(policy, Writing(60 * MIB, 256 * MIB))
    assert switched and decided == [] and passes.throttle_percent == 0


@pytest.mark.parametrize("policy", Policy)
def test_a_small_part_written_over_and_over_needs_a_little_more_downtime_and_nothing_else(policy: Policy) -> None:
    """128 MiB over 256 MiB/s are half a second, and 300 ms are allowed at first."""
    decided, passes, switched = carry(policy, Writing(2000 * MIB, 128 * MIB))
    assert switched and passes.iteration <= 9
    assert [one.action for one in decided] == [LadderAction.RAISE_DOWNTIME]
    assert 500 <= decided[0].downtime_ms <= 1000
    assert policy is Policy.AUTO_CONVERGE or passes.throttle_percent == 0


def test_post_copy_takes_over_once_the_first_pass_has_shown_that_it_must() -> None:
    decided, passes, switched = carry(Policy.POST_COPY, QUICK, downtime_max_ms=500)
    assert not switched and [one.action for one in decided] == [LadderAction.POST_COPY]
    assert passes.iteration == 2 and passes.elapsed_s < 4


def test_a_first_pass_that_takes_long_is_not_waited_for_by_post_copy_alone() -> None:
    long = seen(1, 500)
    assert climb(CopyTarget(Policy.POST_COPY, post_copy_after_s=1.0), long)[0].action is LadderAction.POST_COPY
    assert climb(CopyTarget(Policy.POST_COPY, post_copy_after_s=1.1), long) == []
    for policy in set(Policy) - {Policy.POST_COPY}:
        assert climb(CopyTarget(policy, post_copy_after_s=0.1), long) == []


def test_pause_stops_the_guest_and_then_it_ends() -> None:
    decided, passes, switched = carry(Policy.PAUSE, QUICK, downtime_max_ms=500)
    assert switched and [one.action for one in decided] == [LadderAction.PAUSE]
    assert passes.elapsed_s < 10


def test_never_slow_gives_up_and_says_what_would_help() -> None:
    decided, passes, switched = carry(Policy.NEVER_SLOW, QUICK, downtime_max_ms=500)
    assert not switched and passes.throttle_percent == 0 and passes.elapsed_s < 20
    assert [one.action for one in decided] == [LadderAction.STOP]
    assert "256.0 MiB remain" in decided[0].reason and "policy never-slow" in decided[0].reason


def test_auto_converge_slows_the_guest_down_until_it_fits() -> None:
    decided, passes, switched = carry(Policy.AUTO_CONVERGE, QUICK, downtime_max_ms=500)
    assert switched and passes.throttle_percent == 80
    assert all(one.action is LadderAction.RAISE_DOWNTIME for one in decided)


def test_auto_converge_gives_up_where_slowing_down_could_not_do() -> None:
    """It writes to more than five times what the link carries: at a fifth of its speed to more than that still."""
    looks = (seen(2, 900, dirty=600), seen(3, 900, dirty=600), seen(4, 900, dirty=600))
    (decision,) = climb(CopyTarget(), *looks)
    assert decision.action is LadderAction.STOP and "600.0 MiB a second" in decision.reason
    fits = tuple(msgspec.structs.replace(look, dirty_bytes_s=400 * MIB) for look in looks)
    assert climb(CopyTarget(), *fits) == []


def test_auto_converge_gives_up_before_its_guest_stands_still() -> None:
    def at(throttle: int) -> list[LadderDecision]:
        return climb(
            CopyTarget(),
            seen(2, 400, dirty=200),
            seen(4, 400, dirty=90, throttle=throttle),
            seen(6, 400, dirty=150, throttle=throttle),
        )

    assert at(55) == []
    (decision,) = at(80)
    assert decision.action is LadderAction.STOP and "slowed down by 80 %" in decision.reason


def test_a_dirty_rate_while_it_is_slowed_down_is_not_that_of_a_free_guest() -> None:
    looks = [seen(iteration, 900, dirty=900, throttle=30) for iteration in (2, 3, 4)]
    assert climb(CopyTarget(), *looks) == [], "only what was seen without throttle tells that it cannot converge"


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        (Policy.POST_COPY, LadderAction.POST_COPY),
        (Policy.PAUSE, LadderAction.PAUSE),
        (Policy.AUTO_CONVERGE, LadderAction.STOP),
        (Policy.NEVER_SLOW, LadderAction.STOP),
    ],
)
def test_one_that_takes_longer_than_it_may_is_ended_by_its_policy(policy: Policy, action: LadderAction) -> None:
    for iteration in (0, 1, 2):  # while its disks are copied, too
        look = msgspec.structs.replace(seen(iteration, 10), elapsed_ms=60_001)
        (decision,) = climb(CopyTarget(policy, timeout_s=60.0), look)
        assert decision.action is action and "60 s" in decision.reason
        assert climb(CopyTarget(policy, timeout_s=61.0, post_copy_after_s=99.0), look) == []
        assert climb(CopyTarget(policy, timeout_s=0.0, post_copy_after_s=99.0), look) == []


def test_headway_is_a_fifth_less_in_two_passes() -> None:
    never = CopyTarget(Policy.NEVER_SLOW, downtime_max_ms=300)
    first = (seen(2, 100, dirty=10), seen(4, 100, dirty=10))

    def after(remaining_mib: int) -> list[LadderDecision]:
        looks = [seen(iteration, remaining_mib, dirty=10) for iteration in (5, 6, 7, 8, 9)]
        return climb(never, *first, *looks)

    assert after(100) and after(100)[0].action is LadderAction.STOP
    shrinking = [seen(4 + n, int(100 * 0.85**n), dirty=10) for n in range(1, 6)]
    assert climb(never, *first, *shrinking) == []


def test_what_is_raised_is_never_more_than_may_be() -> None:
    decided = climb(CopyTarget(downtime_max_ms=700), *(seen(n, 65, dirty=200) for n in range(2, 9)))
    assert [one.downtime_ms for one in decided if one.downtime_ms] == [700]


def test_nothing_is_decided_while_nothing_is_known() -> None:
    for look in (CopyProgress(), seen(0, 100), seen(5, 100, rate=0), seen(1, 500, dirty=900)):
        assert climb(CopyTarget(Policy.PAUSE), look) == []


@pytest.mark.parametrize("policy", Policy)
def test_forced_it_completes_as_its_policy_allows(policy: Policy) -> None:
    wanted = LadderAction.POST_COPY if policy is Policy.POST_COPY else LadderAction.PAUSE
    assert ladder.forced(CopyTarget(policy)).action is wanted


def test_time_left_is_that_of_passes_that_become_shorter() -> None:
    assert ladder.time_left_s(seen(2, 100)) == pytest.approx(1.0)
    assert ladder.time_left_s(seen(2, 100, dirty=50)) == pytest.approx(2.0)
    assert ladder.time_left_s(seen(2, 100, dirty=100)) is None
    assert ladder.time_left_s(seen(2, 100, rate=0)) is None
    with_disk = msgspec.structs.replace(seen(0, 100), disk_remaining_bytes=100 * MIB)
    assert ladder.time_left_s(with_disk) == pytest.approx(2.0)


# -- what a server wants ----------------------------------------------------------------------------------------------
def test_a_server_comes_before_its_flavor_and_that_before_the_configuration() -> None:
    default = CopyTarget(Policy.PAUSE, 100, 400)
    flavor = {ladder.POLICY_KEY: "never-slow", ladder.DOWNTIME_KEY: "50", "hw:numa_nodes": "1"}
    assert ladder.target_of(default, {}, {"other": "x"}) == default
    assert ladder.target_of(default, flavor, {}) == CopyTarget(Policy.NEVER_SLOW, 50, 400)
    own = ladder.target_of(default, flavor, {ladder.POLICY_KEY: "post-copy", ladder.DOWNTIME_KEY: "900"})
    assert own == CopyTarget(Policy.POST_COPY, 900, 900)


@pytest.mark.parametrize(
    "wrong", [{ladder.POLICY_KEY: "fast"}, *({ladder.DOWNTIME_KEY: v} for v in ("", "0", "60001", "-5", "1e3", "٣"))]
)
def test_a_wish_that_is_none_is_said(wrong: dict[str, str]) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: ladder.target_of(CopyTarget(), wrong, {}),
        lambda: ladder.target_of(CopyTarget(), {}, wrong),
    )
    for call, place in zip(calls, ("extra spec", "metadata"), strict=True):
        with pytest.raises(ValueError, match=f"its {place} droveway:migration_"):
            call()
