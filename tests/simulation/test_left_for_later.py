"""What a saga leaves for later is done once its host is back, though nothing there tells of it."""

from __future__ import annotations

import asyncio

from droveway.domain.model import GuestState, SagaKind
from droveway.drivers.hypervisor.simulated.fleet import Domain
from droveway.simulation import checkers
from droveway.simulation.apis import IMAGE_ID
from droveway.simulation.loop import SimLoop
from droveway.simulation.many import silence
from droveway.simulation.world import FLAVORS, Parts, World
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx

BOOTS_S, DELETES_S, BACK_S = 30.0, 40.0, 30.0


def test_a_disk_is_removed_by_the_host_that_was_away_when_its_server_was_deleted() -> None:
    silence()
    loop = SimLoop()  # type: ignore[abstract] # what no simulated program calls is not there
    try:
        loop.run_until_complete(_play(World(loop, 1, Parts(), keep_trace=False)))
    finally:
        loop.close()


def test_a_husk_of_a_deleted_server_goes_without_the_disk_on_which_its_guest_lives_elsewhere() -> None:
    silence()
    loop = SimLoop()  # type: ignore[abstract] # what no simulated program calls is not there
    try:
        loop.run_until_complete(_husk(World(loop, 1, Parts(), keep_trace=False)))
    finally:
        loop.close()


async def _husk(world: World) -> None:
    world.start()
    await asyncio.sleep(BOOTS_S)
    server = _create(world)
    await asyncio.sleep(BOOTS_S)
    place = _row(world, server)["host"]
    other = next(name for name in world.hosts if name != place)
    for name in (place, other):
        for control in world.control_names:
            world.network.cut(control, name, silently=False)
    husk = Domain(GuestState.PAUSED, 512, is_defined=True, is_husk=True)
    world.fleet.hosts[other].domains[server] = husk
    world.fleet.hosts[other].used_mb += husk.ram_mb
    world.database.commit(lambda tx: instances.intend(tx, server, SagaKind.DELETE, {}), world.clock.now_us())
    await asyncio.sleep(DELETES_S)
    assert _row(world, server)["deleted"]
    for control in world.control_names:
        world.network.heal(control, other)
    await asyncio.sleep(BACK_S)
    assert server not in world.fleet.hosts[other].domains
    assert server in world.fleet.stores["shared"].disks, "its guest runs on it still"
    for control in world.control_names:
        world.network.heal(control, place)
    await asyncio.sleep(2 * BACK_S)
    assert checkers.broken_laws(world) == []
    assert checkers.unsettled(world) == []
    await world.end()


async def _play(world: World) -> None:
    world.start()
    await asyncio.sleep(BOOTS_S)
    server = _create(world)
    await asyncio.sleep(BOOTS_S)
    place = _row(world, server)["host"]
    host = world.hosts[place]
    # As of a guest that arrived a moment ago: it runs, and its host does not keep it over a crash.
    world.fleet.hosts[place].domains[server].is_defined = False
    host.crash()
    world.database.commit(lambda tx: instances.intend(tx, server, SagaKind.DELETE, {}), world.clock.now_us())
    await asyncio.sleep(DELETES_S)
    assert _row(world, server)["deleted"]
    assert _row(world, server)["host"] == place, "it is remembered who owes the removal"
    assert server in world.fleet.hosts[place].store.disks
    host.boot()
    await asyncio.sleep(BACK_S)
    assert checkers.unsettled(world) == []
    assert checkers.broken_laws(world) == []
    assert _row(world, server)["host"] is None
    await world.end()


def _create(world: World) -> str:
    new = instances.NewInstance("p", "u", "one", "one", FLAVORS[0], IMAGE_ID)
    return str(world.database.commit(lambda tx: instances.create(tx, new), world.clock.now_us())[0])


def _row(world: World, server: str) -> dict[str, object]:
    def look(tx: Tx) -> dict[str, object]:
        return dict(instances.get(tx, server, deleted=True))

    return world.database.look(look)
