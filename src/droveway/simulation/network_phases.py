"""What is asked of networks after the turbulence, and must be so within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from droveway.control.loops import networks as networks_loop
from droveway.control.loops import router_places
from droveway.simulation import verdict_laws
from droveway.simulation.network_laws import NetworkSnapshot

if TYPE_CHECKING:
    from droveway.domain.network_plan import GroupRule
    from droveway.simulation.guest_networks import HostWires
    from droveway.simulation.network_users import NetworkUsers
    from droveway.simulation.world import World

# A rule that was answered is in force, or out of force, on every host that can be reached within that time: what was
# under way there ends, it was not to be asked for a while, nothing nudged, and a late message told it something else.
RULE_S = networks_loop.CONFIRM_S + networks_loop.TIMEOUT_S + networks_loop.AGAIN_MAX_S + networks_loop.INTERVAL_S
# A router of a host that is off is on another one: that host is found to be down, be it at first for its agent alone,
# and the new one is told.
MOVED_S = verdict_laws.SHOWN_DOWN_S + router_places.INTERVAL_S + RULE_S
LOOK_S = 1.0
CHANGES_A_RULE = 0.6  # of the seeds


async def rule_in_force(world: World, users: NetworkUsers | None) -> list[str]:
    """One more, on every host where a port has its group; and when it is gone, on none."""
    if world.networks is None or users is None or world.networks.rng.random() >= CHANGES_A_RULE:
        return []
    made = await users.add_rule_in_use()
    if made is None:
        return []
    group_id, rule_id, rule = made
    late = await _until(RULE_S, lambda: _where(world, group_id, rule, is_there=False))
    if late:
        return [f"a rule of group {group_id} was answered {RULE_S:.0f} s ago and is not in force on {late}"]
    if not await users.remove_rule(rule_id):
        return []
    late = await _until(RULE_S, lambda: _where(world, group_id, rule, is_there=True))
    return [f"a rule of group {group_id} was removed {RULE_S:.0f} s ago and is in force on {late}"] if late else []


def _where(world: World, group_id: str, rule: GroupRule, *, is_there: bool) -> list[str]:
    """The hosts that have that group, and where the rule is, or is not."""

    def differs(wires: HostWires) -> bool:
        group = wires.place.groups.get(group_id)
        uses = any(group_id in port.groups for port in wires.place.ports.values())
        return uses and group is not None and (rule in group.rules) is is_there

    assert world.networks is not None, "it has networks"
    return [name for name, wires in world.networks.hosts.items() if differs(wires)]


async def routers_moved(world: World, off: str) -> list[str]:
    """While a host is off, every router is on exactly one of the others."""
    if world.networks is None:
        return []
    left = await _until(MOVED_S, lambda: _homeless(world, off))
    return [f"{off} has been off for {MOVED_S:.0f} s: {reason}" for reason in left]


def _homeless(world: World, off: str) -> list[str]:
    assert world.networks is not None, "it has networks"
    seen = world.database.look(NetworkSnapshot)
    able = {name for name, wires in world.networks.hosts.items() if wires.facts.physical_networks} - {off}
    found = []
    for router in seen.routers.values():
        places = [name for name, wires in world.networks.hosts.items() if router.id in wires.place.routers]
        if len(places) != 1 and (able or router.external_network_id is None):
            found.append(f"router {router.id} is on {places}")
    return found


async def _until(bound_s: float, wrong: Callable[[], list[str]]) -> list[str]:
    """What is still wrong when that time is over."""
    until_s = asyncio.get_running_loop().time() + bound_s
    while found := wrong():
        if asyncio.get_running_loop().time() >= until_s:
            return found
        await asyncio.sleep(LOOK_S)
    return []
