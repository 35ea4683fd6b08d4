"""Lists of servers make anew what has changed, and nothing else; and each tells what the server tells when it is asked
for by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.api.compute import server_bodies
from droveway.api.compute.server_bodies import ServerBodies
from tests.api.test_server_networks import NET, made, network, networked, post, wired
from tests.api.world import NOVA, World, booted, make_image


class Counting(ServerBodies):
    """Which it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def of(self, made_of: Any, make: Any) -> bytes:
        def counted() -> bytes:
            self.made += 1
            return bytes(make())

        return super().of(made_of, counted)


async def _listed(world: World, token: str, version: str = "2.70") -> list[dict[str, Any]]:
    """Before 2.71 a server in a list says as much as one by itself."""
    reply = await world.ask("GET", f"{NOVA}/servers/detail", token=token, version=version)
    found: list[dict[str, Any]] = reply.json()["servers"]
    for server in found:
        shown = await world.ask("GET", f"{NOVA}/servers/{server['id']}", token=token, version=version)
        assert shown.json()["server"] == server
    return found


async def test_whatever_changes_of_a_server_or_beside_it_is_in_the_next_list(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        image, red = await make_image(world, alice), await network(world, alice)
        flat = {"router:external": True, "provider:network_type": "flat", "provider:physical_network": "physnet1"}
        outside = await network(world, admin, "outside", "192.0.2.0/24", **flat)
        router = await made(world, alice, "router", external_gateway_info={"network_id": outside})
        subnet = (await world.ask("GET", f"{NET}/networks/{red}", token=alice)).json()["network"]["subnets"][0]
        joins = f"{NET}/routers/{router['id']}/add_router_interface"
        assert (await world.ask("PUT", joins, token=alice, json={"subnet_id": subnet})).status_code == 200
        ids = [await wired(world, await post(world, alice, image, networks=[{"uuid": red}])) for _ in range(3)]
        for server_id in ids:
            await booted(world, server_id)
        bodies = world.api.server_bodies = Counting()
        await _listed(world, alice)
        assert bodies.made == 3
        first = f"{NOVA}/servers/{ids[0]}"
        port = (await world.ask("GET", f"{NET}/ports?device_id={ids[0]}", token=alice)).json()["ports"][0]["id"]
        web = (await made(world, alice, "security_group", name="web"))["id"]
        disable: Any = {"host": "h1", "binary": "nova-compute"}
        changes: list[tuple[str, str, str, Any, int]] = [
            (alice, "PUT", first, {"server": {"name": "renamed"}}, 1),
            (alice, "PUT", f"{first}/metadata", {"metadata": {"a": "1"}}, 1),
            (alice, "PUT", f"{first}/tags", {"tags": ["t"]}, 1),
            (alice, "POST", f"{first}/action", {"lock": None}, 1),
            (alice, "PUT", f"{NET}/ports/{port}", {"port": {"security_groups": [web]}}, 1),
            (alice, "PUT", f"{NET}/security-groups/{web}", {"security_group": {"name": "www"}}, 1),
            (alice, "POST", f"{NET}/floatingips", {"floatingip": {"floating_network_id": outside, "port_id": port}}, 1),
            (alice, "PUT", f"{NET}/networks/{red}", {"network": {"name": "crimson"}}, 3),
        ]
        seen = await _listed(world, alice)
        for token, method, path, body, remade in changes:
            bodies.made = 0
            reply = await world.ask(method, path, token=token, version="2.96", json=body)
            assert reply.status_code < 300, reply.text
            before, seen = seen, await _listed(world, alice)
            assert (bodies.made, before != seen) == (remade, True), path
        as_admin = f"{NOVA}/servers/detail?all_tenants=1"

        async def host_status() -> set[str]:
            servers = (await world.ask("GET", as_admin, token=admin, version="2.96")).json()["servers"]
            return {server["host_status"] for server in servers}

        assert await host_status() == {"UP"}
        reply = await world.ask("PUT", f"{NOVA}/os-services/disable", token=admin, version="2.1", json=disable)
        assert reply.status_code == 200, reply.text
        assert await host_status() == {"MAINTENANCE"}


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_bodies, "KEPT_BYTES", 10_000)
    bodies = ServerBodies()
    for number in range(100):
        assert bodies.of((number, None), lambda: bytes(1000)) == bytes(1000)
        assert sum(map(len, bodies._kept.values())) <= 10_000 + 1000


def test_values_that_only_look_alike_are_told_apart() -> None:
    bodies = ServerBodies()
    alike: list[Any] = [(1, "2"), ("1", 2), (1, 2), (12,), ("12",), ((1,), 2), (True, 2), (None, "")]
    assert [bodies.of(one, repr(one).encode) for one in alike] == [repr(one).encode() for one in alike]
