"""Clients as they are published, against the whole program with imagined hosts: a server that one can reach."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients_cloud import Cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("cloud"))
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
def outside(cloud: Cloud) -> str:
    return cloud.make_outside()


OF_ITS_OWN_PARTS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


@OF_ITS_OWN_PARTS
def test_openstacksdk_makes_a_server_that_one_can_reach(cloud: Cloud, outside: str) -> None:
    """`auto_ip`: with nothing named, and on a network of one's own; and takes all of it away."""
    with cloud.connection() as c:
        c.create_server("auto", image="tiny", flavor="tiny", wait=True, auto_ip=True, timeout=60)
        made = c.get_server("auto")
        assert (made.status, made.interface_ip) == ("ACTIVE", made.public_v4)
        assert made.public_v4.startswith("198.51.100."), made.addresses
        network = c.create_network("own")
        subnet = c.create_subnet(network.id, "10.7.0.0/24")
        router = c.create_router("out", ext_gateway_net_id=c.get_network(outside).id)
        c.add_router_interface(router, subnet_id=subnet.id)
        named = {"network": "own", "security_groups": ["default"], "reuse_ips": False}
        c.create_server("own", image="tiny", flavor="tiny", wait=True, auto_ip=True, timeout=60, **named)
        own = c.get_server("own")
        assert own.public_v4.startswith("198.51.100.") and own.public_v4 != made.public_v4
        assert [one["addr"] for one in own.addresses["own"]] == [own.private_v4, own.public_v4]
        for server in (made, own):
            assert c.delete_server(server.id, wait=True, delete_ips=True)
        assert c.list_floating_ips() == []
        c.remove_router_interface(router, subnet_id=subnet.id)
        assert c.delete_router(router.id) and c.delete_network(network.id)
        c.network.delete_auto_allocated_topology()
        assert [one.name for one in c.list_networks()] == [outside] and c.list_ports() == []


def test_the_command_adds_to_a_server_that_runs_and_takes_away(cloud: Cloud, outside: str) -> None:
    cli = cloud.openstack
    for number in (1, 2):
        cli("network", "create", f"n{number}")
        subnet = f"10.{number}.0.0/24"
        cli("subnet", "create", f"s{number}", "--network", f"n{number}", "--subnet-range", subnet)
    cli("router", "create", "r", "--external-gateway", outside)
    cli("router", "add", "subnet", "r", "s1")
    cli("port", "create", "p", "--network", "n2")
    cli("security", "group", "create", "web")
    cli("server", "create", "g", "--image", "tiny", "--flavor", "tiny", "--network", "n1", "--wait")

    def addresses() -> dict[str, list[str]]:
        shown: dict[str, list[str]] = cli("server", "show", "g")["addresses"]
        return shown

    assert addresses() == {"n1": ["10.1.0.3"]}
    cli("server", "add", "port", "g", "p", "--tag", "back")
    cli("server", "add", "network", "g", "n2")
    cli("server", "add", "fixed", "ip", "g", "n1", "--fixed-ip-address", "10.1.0.99")
    assert addresses() == {"n1": ["10.1.0.3", "10.1.0.99"], "n2": ["10.2.0.3", "10.2.0.4"]}
    floating = cli("floating", "ip", "create", outside)["floating_ip_address"]
    cli("server", "add", "floating", "ip", "g", floating, "--fixed-ip-address", "10.1.0.3")
    assert addresses()["n1"] == ["10.1.0.3", floating, "10.1.0.99"]
    cli("server", "add", "security", "group", "g", "web")
    assert {one["name"] for one in cli("server", "show", "g")["security_groups"]} == {"default", "web"}
    assert len(cli("port", "list", "--server", "g")) == 4
    cli("server", "remove", "security", "group", "g", "web")
    cli("server", "remove", "floating", "ip", "g", floating)
    cli("server", "remove", "port", "g", "p")
    assert addresses()["n2"] == ["10.2.0.4"] and cli("port", "show", "p")["device_id"] == ""
    cli("server", "remove", "network", "g", "n2")
    assert addresses() == {"n1": ["10.1.0.3", "10.1.0.99"]}
    assert "is still in use" in cli("server", "add", "port", "g", _router_port(cloud), fails=True)
    events = [one["Action"] for one in cli("server", "event", "list", "g")]
    assert events.count("attach_interface") == 3 and events.count("detach_interface") == 2
    cli("server", "delete", "g", "--wait")
    assert cli("port", "list", "--device-owner", "compute:nova") == []
    cli("network", "auto", "allocated", "topology", "create", "--check-resources")
    cli("floating", "ip", "delete", floating)
    cli("router", "remove", "subnet", "r", "s1")
    cli("router", "delete", "r")
    cli("port", "delete", "p")
    cli("network", "delete", "n1", "n2")


def _router_port(cloud: Cloud) -> str:
    (found,) = cloud.openstack("port", "list", "--device-owner", "network:router_interface")
    return str(found["ID"])


def test_the_command_changes_what_a_server_says_of_itself(cloud: Cloud) -> None:
    cli = cloud.openstack
    cli("server", "create", "t", "--image", "tiny", "--flavor", "tiny", "--nic", "none", "--tag", "a", "--wait")
    said = ("--name", "u", "--description", "mine", "--property", "role=web", "--property", "tier=1", "--tag", "b")
    cli("server", "set", "t", *said)
    shown = cli("server", "show", "u")
    assert (shown["description"], shown["properties"]) == ("mine", {"role": "web", "tier": "1"})
    assert sorted(shown["tags"]) == ["a", "b"]
    assert [one["Name"] for one in cli("server", "list", "--tags", "a,b")] == ["u"]
    assert cli("server", "list", "--not-tags", "a") == []
    cli("server", "unset", "u", "--property", "tier", "--description", "--tag", "a")
    shown = cli("server", "show", "u")
    assert (shown["description"], shown["properties"], shown["tags"]) == ("", {"role": "web"}, ["b"])
    cli("server", "lock", "u", "--reason", "being counted")
    shown = cli("server", "show", "u")
    assert (shown["locked"], shown["locked_reason"]) == (True, "being counted")
    assert [one["Name"] for one in cli("server", "list", "--locked")] == ["u"]
    cli("server", "unlock", "u")
    cli("server", "stop", "u")
    events = cli("server", "event", "list", "u", "--long")
    assert [one["Action"] for one in events] == ["stop", "unlock", "lock", "create"]
    told = cli("server", "event", "show", "u", events[-1]["Request ID"])
    assert [one["event"] for one in told["events"]][-1] == "record_running"
    assert all(one["result"] == "Success" for one in told["events"])
    cli("server", "delete", "u", "--wait")
    assert [one["Name"] for one in cli("server", "list", "--deleted") if one["Name"] == "u"] == ["u"]


@OF_ITS_OWN_PARTS
def test_the_command_shares_an_image(cloud: Cloud) -> None:
    cli = cloud.openstack
    with cloud.connection() as c:
        c.image.create_image("ours", disk_format="raw", container_format="bare", visibility="shared", data=bytes(512))
    mine = cli("project", "show", "admin")["id"]
    cli("image", "add", "project", "ours", mine)
    assert [one["Status"] for one in cli("image", "member", "list", "ours")] == ["pending"]
    cli("image", "set", "ours", "--accept")
    assert [one["Status"] for one in cli("image", "member", "list", "ours")] == ["accepted"]
    cli("image", "remove", "project", "ours", mine)
    assert [one["namespace"] for one in cli("image", "metadef", "namespace", "list")] == ["Droveway::Image"]
    assert "import-methods" in cli("image", "import", "info")
    cli("image", "delete", "ours")


@OF_ITS_OWN_PARTS
def test_openstacksdk_changes_servers(cloud: Cloud) -> None:
    with cloud.connection() as c:
        image, flavor = c.get_image("tiny"), c.get_flavor("tiny")
        given = {"image_id": image.id, "flavor_id": flavor.id, "networks": "none", "metadata": {"a": "1"}}
        made = c.compute.wait_for_server(c.compute.create_server(name="sdk", **given), wait=60)
        c.set_server_metadata(made.id, {"b": "2"})
        c.delete_server_metadata(made.id, ["a"])
        c.update_server(made.id, name="sdk2")
        assert dict(c.get_server("sdk2").metadata) == {"b": "2"}
        server = c.compute.get_server(made.id)
        server.add_tag(c.compute, "t")
        assert c.compute.get_server(made.id).tags == ["t"]
        c.compute.lock_server(made.id, locked_reason="why")
        assert c.compute.get_server(made.id).locked_reason == "why"
        c.compute.unlock_server(made.id)
        actions = list(c.compute.server_actions(made.id))
        assert [one.action for one in actions] == ["unlock", "lock", "create"]
        assert c.compute.get_server_action(actions[0].request_id, made.id).events
        assert c.delete_server(made.id, wait=True)
