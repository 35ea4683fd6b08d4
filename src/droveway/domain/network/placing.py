"""On which host each router is: one that can carry it, and that has few others. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from droveway.domain.liveness import State

ENDED = frozenset({State.DEAD, State.STOPPED, State.HUNG})  # of an agent: what became of its process is known


class Placed(NamedTuple):
    """A router where it is; `host` empty: nowhere. `needs`: the physical network that its gateway is on, if any."""

    router_id: str
    host: str
    needs: str = ""


class Agent(NamedTuple):
    """The network agent of a host, as the failure detector has it."""

    host: str
    is_up: bool
    is_disabled: bool
    state: str
    physical_networks: Collection[str] = ()


class Carrier(NamedTuple):
    """A host that keeps the routers that it has. `is_open`: it may be given others."""

    physical_networks: Collection[str]
    is_open: bool = True


def ended(agents: Iterable[Agent]) -> set[str]:
    """The hosts whose agent has ended: as long as the host is there, what it made works on."""
    return {agent.host for agent in agents if not agent.is_up and agent.state in ENDED}


def carriers(agents: Iterable[Agent], awaited: Collection[str]) -> dict[str, Carrier]:
    """By host: those whose agent is up, and those whose agent is `awaited`."""
    return {
        agent.host: Carrier(frozenset(agent.physical_networks), agent.is_up and not agent.is_disabled)
        for agent in agents
        if agent.is_up or agent.host in awaited
    }


def moves(routers: Iterable[Placed], carriers: Mapping[str, Carrier]) -> list[tuple[Placed, str]]:
    """Those that must go elsewhere, each with its new host. One stays as long as its host can carry it; where
    no host can, it stays, too: moving it away would help none of its guests."""
    known = sorted(routers)
    counts = dict.fromkeys(carriers, 0)
    for router in known:
        if router.host in counts:
            counts[router.host] += 1
    found = []
    for router in known:
        carrier = carriers.get(router.host)
        if carrier is not None and _can(router, carrier):
            continue
        able = [host for host, one in carriers.items() if one.is_open and _can(router, one)]
        if not able:
            continue
        chosen = min(able, key=lambda host: (counts[host], host))
        counts[chosen] += 1
        found.append((router, chosen))
    return found


def _can(router: Placed, carrier: Carrier) -> bool:
    return not router.needs or router.needs in carrier.physical_networks
