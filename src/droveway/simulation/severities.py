"""How often each fault happens in a world of each severity, and which severity a seed draws."""

from __future__ import annotations

import random

import msgspec

from droveway.drivers.hypervisor.simulated import fleet
from droveway.drivers.images.simulated import ImageFaults


class Severity(msgspec.Struct, frozen=True):
    """Chances of each single thing, and mean seconds between those that happen to the whole world."""

    loss: float
    double: float
    late: float
    busy: float
    slow_s: float
    hypervisor: fleet.Faults
    kill_control_s: float
    kill_agent_s: float
    steal_s: float
    crash_host_s: float
    crash_guest_s: float
    hypervisor_down_s: float
    cut_s: float
    hang_agent_s: float
    end_agent_s: float
    kill_heart_s: float
    hang_heart_s: float
    silence_s: float
    deafen_s: float
    stop_control_s: float
    step_clock_s: float
    trouble_s: float
    hang_store_s: float
    cut_off_s: float = 40.0
    misconfigure_s: float = 90.0
    fail_networks_s: float = 40.0  # where there are networks
    harm_networks_s: float = 30.0
    fail_pool_s: float = 25.0  # where there are volumes


NEVER_S = 1e12


CALM = Severity(
    loss=0,
    double=0,
    late=0,
    busy=0,
    slow_s=0.004,
    kill_control_s=4,
    kill_agent_s=5,
    steal_s=12,
    crash_host_s=NEVER_S,
    crash_guest_s=NEVER_S,
    hypervisor_down_s=NEVER_S,
    cut_s=NEVER_S,
    hang_agent_s=40,
    end_agent_s=60,
    kill_heart_s=30,
    hang_heart_s=60,
    silence_s=60,
    deafen_s=25,
    stop_control_s=60,
    step_clock_s=20,
    trouble_s=90,
    hang_store_s=120,
    hypervisor=fleet.Faults(
        base_swept=0.2,
        images=ImageFaults(0.02, 0.02),
        copy_fails=0.02,
        post_copy_cut=0.0,
        half_switched=0.01,
        paused_arrival=0.01,
        refused=0.01,
    ),
)


FAIR = Severity(
    loss=0.01,
    double=0.03,
    late=0.01,
    busy=0.01,
    slow_s=0.02,
    kill_control_s=5,
    kill_agent_s=6,
    steal_s=8,
    crash_host_s=90,
    crash_guest_s=60,
    hypervisor_down_s=60,
    cut_s=60,
    hang_agent_s=30,
    end_agent_s=60,
    kill_heart_s=20,
    hang_heart_s=45,
    silence_s=40,
    deafen_s=22,
    stop_control_s=45,
    step_clock_s=15,
    trouble_s=60,
    hang_store_s=80,
    hypervisor=fleet.Faults(
        base_swept=0.3,
        images=ImageFaults(0.03, 0.03),
        copy_fails=0.1,
        post_copy_cut=0.02,
        half_switched=0.02,
        paused_arrival=0.02,
        refused=0.01,
        refused_after_acting=0.01,
        down_after_acting=0.01,
        hint_lost=0.02,
    ),
)


ROUGH = Severity(
    loss=0.08,
    double=0.15,
    late=0.06,
    busy=0.05,
    slow_s=0.05,
    kill_control_s=6,
    kill_agent_s=10,
    steal_s=3,
    crash_host_s=40,
    crash_guest_s=30,
    hypervisor_down_s=30,
    cut_s=25,
    hang_agent_s=25,
    end_agent_s=50,
    kill_heart_s=15,
    hang_heart_s=40,
    silence_s=30,
    deafen_s=30,
    stop_control_s=40,
    step_clock_s=10,
    trouble_s=50,
    hang_store_s=50,
    hypervisor=fleet.Faults(
        base_swept=0.4,
        images=ImageFaults(0.05, 0.05),
        copy_fails=0.25,
        post_copy_cut=0.05,
        half_switched=0.05,
        paused_arrival=0.05,
        refused=0.03,
        refused_after_acting=0.04,
        down_after_acting=0.04,
        hint_lost=0.05,
    ),
)


WILD = Severity(
    loss=0.2,
    double=0.3,
    late=0.15,
    busy=0.1,
    slow_s=0.2,
    kill_control_s=4,
    kill_agent_s=6,
    steal_s=2,
    crash_host_s=25,
    crash_guest_s=15,
    hypervisor_down_s=20,
    cut_s=15,
    hang_agent_s=20,
    end_agent_s=40,
    kill_heart_s=10,
    hang_heart_s=30,
    silence_s=30,
    deafen_s=40,
    stop_control_s=35,
    step_clock_s=8,
    trouble_s=45,
    hang_store_s=40,
    hypervisor=fleet.Faults(
        base_swept=0.5,
        images=ImageFaults(0.1, 0.1),
        copy_fails=0.35,
        post_copy_cut=0.1,
        half_switched=0.1,
        paused_arrival=0.1,
        refused=0.05,
        refused_after_acting=0.08,
        down_after_acting=0.08,
        hint_lost=0.2,
    ),
)


SEVERITIES = {"calm": CALM, "fair": FAIR, "rough": ROUGH, "wild": WILD}


def draw(rng: random.Random) -> str:
    return rng.choices(list(SEVERITIES), [2, 4, 3, 1])[0]
