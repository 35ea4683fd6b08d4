"""Networks that other projects may use by a policy: as shared ones, and as external ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from droveway.domain.network.quota import NetworkQuotas
from tests.api.network_world import FLAT, NET, SINGLE, get, make, make_subnet, networked, refused, send
from tests.api.test_server_networks import post
from tests.api.world import World, make_image

SINGLE["rbac-policies"] = "rbac_policy"
SHARED, EXTERNAL = "access_as_shared", "access_as_external"


async def project_of(world: World, token: str) -> str:
    return str((await world.ask("GET", f"{NET}/quotas/tenant", token=token)).json()["tenant"]["project_id"])


async def let(world: World, token: str, network: str, action: str, target: str) -> dict[str, Any]:
    return await make(
        world, token, "rbac-policies", object_type="network", object_id=network, action=action, target_tenant=target
    )


async def test_a_network_is_shared_with_one_project_and_no_other(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        red, blue = await project_of(world, alice), await project_of(world, bob)
        network = (await make(world, alice, "networks", name="n"))["id"]
        subnet = (await make_subnet(world, alice, network, "10.1.0.0/24"))["id"]
        assert await get(world, bob, "networks") == [] == await get(world, bob, "subnets")
        policy = await let(world, alice, network, SHARED, blue)
        assert policy == {
            "id": policy["id"],
            "project_id": red,
            "tenant_id": red,
            "object_type": "network",
            "object_id": network,
            "action": SHARED,
            "target_tenant": blue,
        }
        (seen,) = await get(world, bob, "networks")
        assert (seen["id"], seen["shared"], seen["subnets"]) == (network, True, [subnet])
        assert (await get(world, bob, f"networks/{network}"))["shared"] is True
        assert (await get(world, alice, f"networks/{network}"))["shared"] is False, "with all"
        assert [one["id"] for one in await get(world, bob, "subnets")] == [subnet]
        assert (await get(world, bob, f"subnets/{subnet}"))["id"] == subnet
        image = await make_image(world, bob)
        assert (await post(world, bob, image, networks=[{"uuid": network}])).status_code == 202
        assert (await post(world, bob, image, networks="auto")).status_code == 202, "the one that it can use"
        assert [one["id"] for one in await get(world, bob, "networks")] == [network], "so none was made"
        port = await make(world, bob, "ports", network_id=network)
        assert (await send(world, bob, "DELETE", f"networks/{network}")).status_code == 403
        assert await get(world, bob, "rbac-policies") == [], "it is the owner's"
        status, kind, words = await refused(world, alice, "DELETE", f"rbac-policies/{policy['id']}")
        assert (status, kind, port["id"] in words) == (409, "RbacPolicyInUse", True)
        body = {"rbac_policy": {"target_tenant": red}}
        assert (await refused(world, alice, "PUT", f"rbac-policies/{policy['id']}", body))[1] == "RbacPolicyInUse"
        assert (await get(world, alice, f"rbac-policies/{policy['id']}"))["target_tenant"] == blue, "all or nothing"
        assert (
            await send(world, admin, "PUT", f"networks/{network}", {"network": {"shared": True}})
        ).status_code == 200
        for _ in range(2):
            reply = await send(world, admin, "PUT", f"networks/{network}", {"network": {"shared": False}})
            assert reply.status_code == 200, "bob has a policy of his own"
        for_all = await let(world, admin, network, SHARED, "*")
        assert (await send(world, alice, "DELETE", f"rbac-policies/{policy['id']}")).status_code == 204, "all may"
        policy = await let(world, alice, network, SHARED, blue)
        reply = await send(world, admin, "DELETE", f"rbac-policies/{for_all['id']}")
        assert reply.status_code == 204, "bob still may"
        await send(world, bob, "DELETE", f"ports/{port['id']}")
        assert (await send(world, alice, "DELETE", f"rbac-policies/{policy['id']}")).status_code == 204
        assert await get(world, bob, "networks") == [] == await get(world, alice, "rbac-policies")
        assert (await refused(world, alice, "GET", f"rbac-policies/{policy['id']}"))[1] == "RbacPolicyNotFound"


async def test_who_shares_a_network_and_who_uses_it_keep_what_is_theirs(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        network = (await make(world, alice, "networks", name="n"))["id"]
        subnet = (await make_subnet(world, alice, network, "10.1.0.0/24"))["id"]
        await let(world, alice, network, SHARED, await project_of(world, bob))
        port = await make(world, bob, "ports", network_id=network)
        beneath = f"ports/{port['id']}"
        for given in ({"name": "stolen"}, {"security_groups": [], "port_security_enabled": False}):
            found = await refused(world, alice, "PUT", beneath, {"port": given})
            assert found[:2] == (403, "PolicyNotAuthorized")
        mine, theirs = await make(world, alice, "routers"), await make(world, bob, "routers")
        for token, router, given, words in (
            (alice, mine, {"port_id": port["id"]}, f"Port {port['id']} is not owned by project"),
            (bob, theirs, {"subnet_id": subnet}, f"because subnet {subnet} is not owned by project"),
        ):
            found = await refused(world, token, "PUT", f"routers/{router['id']}/add_router_interface", given)
            assert (found[:2], words in found[2]) == ((400, "BadRouterRequest"), True), found
        reply = await post(world, alice, await make_image(world, alice), networks=[{"port": port["id"]}])
        assert (reply.status_code, "is another project's" in reply.text) == (400, True), reply.text
        image = await make_image(world, bob)
        reply = await post(world, bob, image, networks=[{"uuid": network, "fixed_ip": "10.1.0.1"}])
        assert (reply.status_code, "a fixed IP there cannot be chosen" in reply.text) == (403, True), reply.text
        assert await get(world, bob, beneath) == port, "as it was"
        outside = (await make(world, await world.token(), "networks", name="o", **FLAT))["id"]
        await make_subnet(world, await world.token(), outside, "192.0.2.0/24")
        gateway = {"router": {"external_gateway_info": {"network_id": outside}}}
        assert (await send(world, alice, "PUT", f"routers/{mine['id']}", gateway)).status_code == 200
        reply = await send(world, alice, "PUT", f"routers/{mine['id']}/add_router_interface", {"subnet_id": subnet})
        assert reply.status_code == 200, reply.text
        floating = {"floatingip": {"floating_network_id": outside, "port_id": port["id"]}}
        found = await refused(world, alice, "POST", "floatingips", floating)
        assert (found[:2], "a different tenant" in found[2]) == ((400, "BadFloatingipRequest"), True), found
        reply = await send(world, bob, "PUT", f"routers/{theirs['id']}/add_router_interface", {"port_id": port["id"]})
        assert reply.status_code == 200, "a port of its own"
        assert (await send(world, alice, "DELETE", beneath)).status_code == 409, "a router's is not deleted as such"
        other = await make(world, bob, "ports", network_id=network)
        assert (await send(world, alice, "DELETE", f"ports/{other['id']}")).status_code == 204, (
            "it may clear its network"
        )


async def test_a_project_is_not_led_outside_by_what_another_offers_it(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        network = (await make(world, alice, "networks", name="n"))["id"]
        await make_subnet(world, alice, network, "198.51.100.0/24")
        blue = await project_of(world, bob)
        await let(world, alice, network, EXTERNAL, blue)
        path = f"auto-allocated-topology/{blue}"
        assert (await refused(world, bob, "GET", path))[1] == "AutoAllocationFailure"
        outside = (await make(world, admin, "networks", name="o", is_default=True, **FLAT))["id"]
        await make_subnet(world, admin, outside, "192.0.2.0/24")
        assert (await send(world, bob, "GET", path)).status_code == 200
        (router,) = await get(world, bob, "routers")
        assert router["external_gateway_info"]["network_id"] == outside


async def test_the_network_outside_where_nobody_names_one_is_external_for_all(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin = await world.token()
        outside = (await make(world, admin, "networks", name="o", is_default=True, **FLAT))["id"]
        (policy,) = await get(world, admin, f"rbac-policies?object_id={outside}")
        assert (await send(world, admin, "DELETE", f"rbac-policies/{policy['id']}")).status_code == 204
        found = await get(world, admin, f"networks/{outside}")
        assert (found["router:external"], found["is_default"]) == (False, False)
        assert (await make(world, admin, "networks", is_default=True, **{"router:external": True}))["is_default"]


async def test_what_all_may_do_is_a_policy_too(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        network = (await make(world, admin, "networks", name="n", shared=True))["id"]
        outside = (await make(world, admin, "networks", name="o", **FLAT))["id"]
        found = await get(world, admin, "rbac-policies")
        assert {(one["object_id"], one["action"], one["target_tenant"]) for one in found} == {
            (network, SHARED, "*"),
            (outside, EXTERNAL, "*"),
        }
        assert len(await get(world, admin, f"rbac-policies?object_id={network}&object_type=network")) == 1
        assert await get(world, admin, "rbac-policies?object_type=qos_policy") == []
        shared = next(one["id"] for one in found if one["action"] == SHARED)
        assert (await send(world, admin, "DELETE", f"rbac-policies/{shared}")).status_code == 204
        assert (await get(world, admin, f"networks/{network}"))["shared"] is False
        assert [one["id"] for one in await get(world, bob, "networks")] == [outside]
        await let(world, admin, network, SHARED, "*")
        assert (await get(world, bob, f"networks/{network}"))["shared"] is True
        mine = (await make(world, alice, "networks", name="m"))["id"]
        for asked, status, kind in (
            ({"target_tenant": "*"}, 403, "PolicyNotAuthorized"),
            ({"object_id": network}, 403, "PolicyNotAuthorized"),
            ({"object_type": "qos_policy"}, 400, "HTTPBadRequest"),
            ({"action": "look"}, 400, "HTTPBadRequest"),
            ({"object_id": "00000000-0000-4000-8000-000000000000"}, 404, "NetworkNotFound"),
        ):
            body = {"object_type": "network", "object_id": mine, "action": SHARED, "target_tenant": "p", **asked}
            assert (await refused(world, alice, "POST", "rbac-policies", {"rbac_policy": body}))[:2] == (status, kind)
        await let(world, alice, mine, SHARED, "p")
        body = {"object_type": "network", "object_id": mine, "action": SHARED, "target_tenant": "p"}
        assert (await refused(world, alice, "POST", "rbac-policies", {"rbac_policy": body}))[1] == "DuplicatePolicy"
        await send(world, alice, "DELETE", f"networks/{mine}")
        assert await get(world, alice, "rbac-policies") == [], "they go with their network"


async def test_a_network_is_external_for_one_project(tmp_path: Path) -> None:
    async with networked(tmp_path, quotas=NetworkQuotas(rbac_policy=2)) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        outside = (await make(world, admin, "networks", name="o"))["id"]
        await make_subnet(world, admin, outside, "192.0.2.0/24")
        policy = await let(world, admin, outside, EXTERNAL, await project_of(world, bob))
        assert await get(world, alice, "networks") == []
        assert [(one["id"], one["router:external"], one["shared"]) for one in await get(world, bob, "networks")] == [
            (outside, True, False)
        ]
        router = await make(world, bob, "routers", external_gateway_info={"network_id": outside})
        assert (await refused(world, admin, "DELETE", f"rbac-policies/{policy['id']}"))[1] == "RbacPolicyInUse"
        assert (await send(world, bob, "GET", "auto-allocated-topology/None")).status_code in (403, 404)
        project = await project_of(world, bob)
        reply = await send(world, bob, "GET", f"auto-allocated-topology/{project}?fields=dry-run")
        assert reply.status_code == 409, "such a way out has to be named: any project may offer one"
        await send(world, bob, "DELETE", f"routers/{router['id']}")
        assert (await send(world, admin, "DELETE", f"rbac-policies/{policy['id']}")).status_code == 204
        await let(world, admin, outside, EXTERNAL, "p1")
        await let(world, admin, outside, EXTERNAL, "p2")
        body = {"object_type": "network", "object_id": outside, "action": EXTERNAL, "target_tenant": "p3"}
        assert (await refused(world, admin, "POST", "rbac-policies", {"rbac_policy": body}))[1] == "OverQuota"
