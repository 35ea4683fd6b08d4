"""Networks with one law taken out: the simulation must catch each."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from droveway.agents.network import NetworkAgent
from droveway.control.control import Control
from droveway.control.engine.saga import Context
from droveway.control.loops.networks import NetworksLoop
from droveway.control.sagas import live_migration
from droveway.control.sagas.live_migration import LIVE_MIGRATION
from droveway.domain.model import SagaKind
from droveway.domain.network import placing
from droveway.domain.network_change import PlanChange
from droveway.domain.network_plan import HostNetworks
from droveway.drivers.network.simulated import SimulatedNetwork
from droveway.ports.replies import Answer
from droveway.simulation import guest_networks, interface_users
from droveway.simulation.together import TOGETHER
from droveway.simulation.world import Parts
from droveway.store.compute import server_attributes, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.network import addressing, bindings, changes, planning
from tests.simulation.caught import SEEDS_MAX, caught_by

PLAYED = [seed for seed in range(1, 1000) if guest_networks.are_played(seed)][:SEEDS_MAX]
INTERFACES = [seed for seed in PLAYED if interface_users.are_played(seed)]


def migration(**changed: dict[str, Any]) -> Parts:
    """Of a guest, with some steps changed."""
    steps = tuple(dataclasses.replace(step, **changed.get(step.name, {})) for step in LIVE_MIGRATION.steps)
    return Parts(stories=TOGETHER | {SagaKind.LIVE_MIGRATION: dataclasses.replace(LIVE_MIGRATION, steps=steps)})


def bound_before_the_switch(tx: Tx, ctx: Context) -> None:
    live_migration.bind_ports(tx, ctx)
    server_ports.arrived(tx, ctx.instance_id, ctx.notes.destination)


def not_unbound(tx: Tx, ctx: Context) -> None:
    """The port stays bound to the source."""
    ctx.notes.network_revision = 0
    live_migration.record_switch(tx, ctx)


class TakesOldPlans(NetworkAgent):
    """Makes whatever plan came last."""

    async def _apply(self, plan: HostNetworks, change: PlanChange | None = None) -> Answer:
        if self._plan is not None and plan.revision < self._plan.revision:
            self._plan = msgspec.structs.replace(self._plan, revision=-1)
        return await super()._apply(plan, change)


class KeepsRules(SimulatedNetwork):
    """Of groups that are gone."""

    async def _put_rules(self, plan: HostNetworks) -> None:
        before = dict(self._place.groups)
        await super()._put_rules(plan)
        self._place.groups = before | self._place.groups


class KeepsDhcp(SimulatedNetwork):
    """Of networks that are gone."""

    async def _make_servers(self, plan: HostNetworks) -> None:
        before = dict(self._place.served)
        await super()._make_servers(plan)
        self._place.served = before | self._place.served


class OpensFirst(SimulatedNetwork):
    """A port passes packets, and a moment later its rules come."""

    async def _put_rules(self, plan: HostNetworks) -> None:
        self._place.ports = {one.id: one for one in plan.ports}
        self._place.changed(plan)
        await self._place.pause()
        await super()._put_rules(plan)


class TakesAllForOld(NetworksLoop):
    """What a host has is taken to be what it is to have."""

    def _due(self, newest: int, by: Any) -> set[str]:
        return {host for host in super()._due(newest, by) if host not in self._known}


class TellsOnce(Control):
    """Hosts are told their networks when they come, and not again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._networks = TakesAllForOld(self._store, self._bus, self.observer, self.nudges, self._clock, self.plans)


MUTANTS = {
    "a port bound before the switch": migration(bind_ports={"write": bound_before_the_switch}),
    "a port not unbound at the source": migration(record_switch={"write": not_unbound}),
    "the revision of a plan is ignored": Parts(network_agent=TakesOldPlans),
    "rules of a deleted group are kept": Parts(network=KeepsRules),
    "DHCP of a deleted network is kept": Parts(network=KeepsDhcp),
    "rules come after the port opens": Parts(network=OpensFirst),
    "hosts are told their networks once": Parts(control=TellsOnce),
}

CAUGHT_BY = {
    "rules of a deleted group are kept": 5,
    "a port bound before the switch": 23,
    **dict.fromkeys(("a port not unbound at the source", "the revision of a plan is ignored"), 26),
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    seed, reason = caught_by(MUTANTS[name], CAUGHT_BY.get(name, PLAYED[0]), PLAYED)
    print(f"{name}: caught by seed {seed}: {reason}")


def test_an_address_without_its_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is chosen and told, and another port may have it."""
    monkeypatch.setattr(addressing, "claim", lambda _tx, _port_id, _chosen: None)
    seed, reason = caught_by(Parts(), PLAYED[0], PLAYED)
    print(f"an address without its row: caught by seed {seed}: {reason}")


def test_a_change_that_is_not_written_down_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are told that there is something new, and control does not see what."""
    monkeypatch.setattr(bindings, "changed", lambda tx, table, *_of: changes.changed(tx, table))
    seed, reason = caught_by(Parts(), PLAYED[0], PLAYED)
    print(f"a change that is not written down: caught by seed {seed}: {reason}")


def test_a_port_that_is_released_without_its_address_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressing, "release", lambda _tx, _port_id: None)
    seed, reason = caught_by(Parts(), PLAYED[0], PLAYED)
    print(f"an address that is kept: caught by seed {seed}: {reason}")


def test_address_pairs_that_hosts_are_not_told_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    told = planning.port_fact
    monkeypatch.setattr(planning, "port_fact", lambda row: msgspec.structs.replace(told(row), pairs=()))
    seed, reason = caught_by(Parts(), INTERFACES[0], INTERFACES)
    print(f"address pairs that are not told: caught by seed {seed}: {reason}")


def test_metadata_of_which_hosts_are_not_told_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest would be told its old name."""
    monkeypatch.setattr(server_attributes, "changes", SimpleNamespace(changed=lambda _tx, _table, *_of: None))
    seed, reason = caught_by(Parts(), INTERFACES[0], INTERFACES)
    print(f"metadata that are not told: caught by seed {seed}: {reason}")


def test_routers_that_stay_on_a_host_that_is_off_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = placing.moves
    monkeypatch.setattr(
        placing, "moves", lambda routers, carriers: moves([one for one in routers if not one.host], carriers)
    )
    seed, reason = caught_by(Parts(), PLAYED[0], PLAYED)  # in which a host with a router stays off
    print(f"routers that stay: caught by seed {seed}: {reason}")
