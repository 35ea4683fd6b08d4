"""Users who change the interfaces of servers that are there: one more, one less, what a port may send from, and what a
guest is told of itself. In half of the worlds that have networks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from droveway.domain.model import VmState
from droveway.simulation.client import Client
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.tables import networks, ports
from droveway.store.schema import server_ports

if TYPE_CHECKING:
    from droveway.simulation.world import World

SHARE = 0.5  # of the worlds with networks
PAUSE_S = 0.8
INTERFACES_MOST = 3  # of a server
FITS = 0.85  # of the wishes are of a server that is idle
NET, SERVERS = "/network/v2.0", "/compute/v2.1/servers"
_NETWORKS = Prepared(select(networks.c.id).order_by(networks.c.created_at_us, networks.c.id))
_FREE = Prepared(select(ports.c.id).where(ports.c.device_id == "", ports.c.device_owner == "").order_by(ports.c.id))
_PLUGGED = Prepared(select(server_ports.c.port_id, server_ports.c.instance_id).order_by(server_ports.c.port_id))
_OF = Prepared(select(server_ports.c.port_id).where(server_ports.c.instance_id == bindparam("of")))


def are_played(seed: int) -> bool:
    return random.Random(f"are there users of interfaces in {seed}").random() < SHARE


class InterfaceUsers:
    """One person. `stop` ends it after its present act."""

    def __init__(self, world: World) -> None:
        self._world, self._rng = world, random.Random(f"interfaces of {world.seed}")
        self._client, self._stopped, self._number = Client(world), False, 0
        self._acts = {
            self._attach: 12,
            self._detach: 10,
            self._change_pairs: 8,
            self._change_security: 3,
            self._set_metadata: 6,
            self._rename: 3,
        }
        world.loop.create_task(self._person(), name="user of interfaces")

    def stop(self) -> None:
        self._stopped = True

    async def _person(self) -> None:
        while not self._stopped:
            await asyncio.sleep(self._rng.expovariate(1.0 / PAUSE_S))
            if not self._stopped:
                (act,) = self._rng.choices(list(self._acts), list(self._acts.values()))
                await act()

    async def _ask(self, what: str, method: str, target: str, body: Any = None) -> None:
        control = self._client.any_control()
        if control is not None:
            reply = await self._client.ask(control, method, target, body)
            self._world.counts[f"asked to {what}: {reply.word}"] += 1
            self._world.trace.note(f"user of interfaces: {what} {target} by {control.name}: {reply.word}")

    def _any(self, query: Prepared, **of: str) -> Any:
        found = self._world.database.look(lambda tx: list(tx.execute(query, of)))
        return self._rng.choice(found) if found else None

    def _any_server(self) -> str | None:
        states = (VmState.ACTIVE.value, VmState.STOPPED.value)
        found = [one for one in self._world.database.living() if one.vm_state in states]
        if self._rng.random() < FITS:
            found = [one for one in found if one.task_state is None]
        return self._rng.choice(found).id if found else None

    # -- interfaces ---------------------------------------------------------------------------------------------------
    async def _attach(self) -> None:
        server_id, network, free = self._any_server(), self._any(_NETWORKS), self._any(_FREE)
        if server_id is None or network is None or self._interfaces(server_id) >= INTERFACES_MOST:
            return
        given = {"net_id": network.id}
        if free is not None and self._rng.random() < 0.4:
            given = {"port_id": free.id}
        await self._ask(
            "attach an interface", "POST", f"{SERVERS}/{server_id}/os-interface", {"interfaceAttachment": given}
        )

    def _interfaces(self, server_id: str) -> int:
        return self._world.database.look(lambda tx: _count(tx, server_id))

    async def _detach(self) -> None:
        one = self._any(_PLUGGED)
        if one is not None:
            await self._ask("detach an interface", "DELETE", f"{SERVERS}/{one.instance_id}/os-interface/{one.port_id}")

    # -- what a port may send from ------------------------------------------------------------------------------------
    async def _change_pairs(self) -> None:
        count = self._rng.randint(0, 2)
        pairs = [{"ip_address": f"10.0.0.{self._rng.randint(100, 120)}"} for _ in range(count)]
        await self._change_port({"allowed_address_pairs": pairs})

    async def _change_security(self) -> None:
        """Off only where nothing of it is left: mostly refused."""
        if self._rng.random() < 0.5:
            await self._change_port({"port_security_enabled": True})
        else:
            off = {"port_security_enabled": False, "security_groups": [], "allowed_address_pairs": []}
            await self._change_port(off)

    async def _change_port(self, given: dict[str, Any]) -> None:
        one = self._any(_PLUGGED)
        if one is not None:
            await self._ask(f"change {next(iter(given))}", "PUT", f"{NET}/ports/{one.port_id}", {"port": given})

    # -- what a guest is told of itself -------------------------------------------------------------------------------
    async def _set_metadata(self) -> None:
        server_id = self._any_server()
        if server_id is not None:
            self._number += 1
            given = {"metadata": {"number": str(self._number)}}
            await self._ask("change metadata", "POST", f"{SERVERS}/{server_id}/metadata", given)

    async def _rename(self) -> None:
        server_id = self._any_server()
        if server_id is not None:
            self._number += 1
            given = {"server": {"name": f"renamed{self._number}"}}
            await self._ask("rename a server", "PUT", f"{SERVERS}/{server_id}", given)


def _count(tx: Tx, server_id: str) -> int:
    return len(list(tx.execute(_OF, {"of": server_id})))
