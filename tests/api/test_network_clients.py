"""Networking as the unmodified `openstack` command and openstacksdk speak it, against an API that is really served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openstack.config import loader
from openstack.connection import Connection

from droveway.api.wiring import NetworkSettings
from tests.api.test_services_cli import Served
from tests.api.world import World
from tests.openstack_process import OpenstackProcess

pytestmark = pytest.mark.slow

CLONE = Path(__file__).parents[2]


class Cloud(Served):
    """With a network service, and a catalog that names the port on which it is served."""

    def make_world(self, directory: Path) -> World:
        return World(directory, base_url=f"http://127.0.0.1:{self.port}", network=NetworkSettings(is_on=True))

    def start(self) -> None:
        super().start()
        self._shell = OpenstackProcess(self.home / "clouds.yaml")
        self.openstack = self._shell.run

    def stop(self) -> None:
        self._shell.close()
        super().stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("cloud"))
    yield made
    made.stop()


def test_the_command_makes_a_network_with_everything_on_it(cloud: Cloud) -> None:
    """The way of a newcomer: network, subnet, group and rule, router, port, floating IP; then back."""
    cli = cloud.openstack
    net = cli("network", "create", "n1", "--description", "a net", "--tag", "red")
    assert (net["name"], net["mtu"], net["tags"], net["provider:network_type"]) == ("n1", 1450, ["red"], "vxlan")
    flat = ("--external", "--provider-network-type", "flat", "--provider-physical-network", "physnet1")
    assert cli("network", "create", "out", *flat)["router:external"] is True
    dns = ("--dns-nameserver", "192.0.2.53", "--host-route", "destination=192.0.2.0/24,gateway=10.1.0.9")
    subnet = cli("subnet", "create", "s1", "--network", "n1", "--subnet-range", "10.1.0.0/24", *dns)
    assert (subnet["gateway_ip"], subnet["dns_nameservers"]) == ("10.1.0.1", ["192.0.2.53"])
    cli("subnet", "create", "so", "--network", "out", "--subnet-range", "198.51.100.0/24", "--no-dhcp")
    cli("security", "group", "create", "web", "--description", "w")
    rule = cli("security", "group", "rule", "create", "web", "--protocol", "tcp", "--dst-port", "80:81")
    assert (rule["port_range_min"], rule["port_range_max"], rule["ether_type"]) == (80, 81, "IPv4")
    assert len(cli("security", "group", "rule", "list", "web")) == 3
    cli("router", "create", "r1")
    cli("router", "set", "r1", "--external-gateway", "out")
    cli("router", "add", "subnet", "r1", "s1")
    port = cli("port", "create", "p1", "--network", "n1", "--security-group", "web")
    assert [one["ip_address"] for one in port["fixed_ips"]] == ["10.1.0.3"]
    floating = cli("floating", "ip", "create", "out", "--port", "p1")
    assert (floating["fixed_ip_address"], floating["status"]) == ("10.1.0.3", "ACTIVE")
    address = floating["floating_ip_address"]
    assert cli("floating", "ip", "show", address)["router_id"] == cli("router", "show", "r1")["id"]

    cli("network", "set", "n1", "--name", "n2", "--tag", "blue")
    cli("subnet", "set", "s1", "--dns-nameserver", "192.0.2.54")
    cli("port", "set", "p1", "--name", "p2", "--allowed-address", "ip-address=10.1.0.200")
    cli("floating", "ip", "set", address, "--description", "mine")
    cli("floating", "ip", "unset", address, "--port")
    assert [one["Name"] for one in cli("network", "list")] == ["n2", "out"]
    assert [one["Name"] for one in cli("network", "list", "--external")] == ["out"]
    assert [one["Name"] for one in cli("network", "list", "--tags", "red,blue")] == ["n2"]
    assert [one["Name"] for one in cli("subnet", "list", "--network", "n2")] == ["s1"]
    assert [one["Name"] for one in cli("port", "list", "--network", "n2", "--device-owner", "")] == ["p2"]
    assert cli("port", "list", "--fixed-ip", "ip-address=10.1.0.3")[0]["Name"] == "p2"
    assert cli("floating", "ip", "list")[0]["Fixed IP Address"] is None
    assert cli("router", "list")[0]["Name"] == "r1"
    assert {one["Name"] for one in cli("security", "group", "list")} == {"default", "web"}

    assert "10.1.0.1 of port" in cli("subnet", "delete", "s1", fails=True)
    cli("floating", "ip", "delete", address)
    cli("router", "remove", "subnet", "r1", "s1")
    cli("router", "unset", "r1", "--external-gateway")
    for words in (("router", "r1"), ("port", "p2"), ("subnet", "s1"), ("network", "n2"), ("network", "out")):
        cli(words[0], "delete", words[1])
    cli("security", "group", "delete", "web")
    assert cli("network", "list") == [] == cli("port", "list")


def test_the_command_asks_about_the_service(cloud: Cloud) -> None:
    cli = cloud.openstack
    assert "security-group" in {one["Alias"] for one in cli("extension", "list", "--network")}
    assert cli("network", "agent", "list") == []
    assert cli("quota", "show", "--network")
    cli("quota", "set", "--networks", "7", "red")
    assert {one["Resource"]: one["Limit"] for one in cli("quota", "show", "--network", "red")}["networks"] == 7
    cli("quota", "delete", "--network", "red")
    assert {one["Resource"]: one["Limit"] for one in cli("quota", "show", "--network", "red")}["networks"] == -1
    assert [one["Type"] for one in cli("catalog", "list")].count("network") == 1


def test_the_command_makes_subnets_of_a_pool(cloud: Cloud) -> None:
    cli = cloud.openstack
    words = ("--pool-prefix", "10.64.0.0/16", "--default-prefix-length", "24", "--min-prefix-length", "20", "--share")
    pool = cli("subnet", "pool", "create", "sp", *words)
    assert (pool["prefixes"], pool["default_prefixlen"], pool["shared"]) == (["10.64.0.0/16"], 24, True)
    cli("network", "create", "of-pool")
    made = cli("subnet", "create", "sps", "--network", "of-pool", "--subnet-pool", "sp", "--prefix-length", "22")
    assert (made["cidr"], made["subnetpool_id"]) == ("10.64.0.0/22", pool["id"])
    assert "existing allocations" in cli("subnet", "pool", "delete", "sp", fails=True)
    cli("subnet", "pool", "set", "sp", "--pool-prefix", "10.65.0.0/16", "--description", "d")
    assert cli("subnet", "pool", "show", "sp")["prefixes"] == ["10.64.0.0/15"]
    assert [one["Name"] for one in cli("subnet", "list", "--subnet-pool", "sp")] == ["sps"]
    cli("network", "delete", "of-pool")
    cli("subnet", "pool", "delete", "sp")
    assert cli("subnet", "pool", "list") == []


def test_the_command_shares_a_network_with_one_project(cloud: Cloud) -> None:
    cli = cloud.openstack
    network = cli("network", "create", "shared")["id"]
    words = ("--type", "network", "--action", "access_as_shared", "--target-project", "red", network)
    made = cli("network", "rbac", "create", *words)
    assert (made["object_id"], made["action"], made["object_type"]) == (network, "access_as_shared", "network")
    listed = [one["Object ID"] for one in cli("network", "rbac", "list", "--type", "network")]
    assert network in listed
    assert "already exists" in cli("network", "rbac", "create", *words, fails=True)
    cli("network", "rbac", "set", "--target-project", "blue", made["id"])
    assert cli("network", "rbac", "show", made["id"])["target_project_id"] != made["target_project_id"]
    cli("network", "rbac", "delete", made["id"])
    cli("network", "delete", network)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of its own parts
def test_openstacksdk_does_the_same(cloud: Cloud) -> None:
    files = loader.OpenStackConfig(config_files=[str(cloud.home / "clouds.yaml")], load_envvars=False)
    connection = Connection(config=files.get_one("droveway"))
    net = connection.network
    network = net.create_network(name="sdk", description="d")
    subnet = net.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.0.0/28", name="s")
    ports = [net.create_port(network_id=network.id, name=f"p{number}") for number in range(5)]
    assert {port.id for port in net.ports(network_id=network.id, device_owner="", limit=2)} == {p.id for p in ports}
    assert net.find_port("p3", network_id=network.id).fixed_ips[0]["subnet_id"] == subnet.id
    updated = net.update_port(ports[0], admin_state_up=False, name="down")
    assert (updated.is_admin_state_up, updated.name) == (False, "down")
    many = list(net.create_ports([{"network_id": network.id, "name": f"b{n}"} for n in range(3)]))
    assert [port.name for port in many] == ["b0", "b1", "b2"]
    group = connection.create_security_group("sdk", "of the sdk")
    connection.create_security_group_rule("sdk", port_range_min=22, port_range_max=22, protocol="tcp")
    assert len(net.get_security_group(group.id).security_group_rules) == 3
    net.set_tags(network, ["a", "b"])
    assert net.get_network(network.id).tags == ["a", "b"]
    assert [one.id for one in net.networks(tags="a")] == [network.id]
    router = connection.create_router(name="sdk")
    connection.add_router_interface(router, subnet_id=subnet.id)
    assert len(connection.list_router_interfaces(router)) == 1
    connection.remove_router_interface(router, subnet_id=subnet.id)
    assert connection.delete_router(router.id)
    for port in [*ports, *many]:
        net.delete_port(port)
    net.delete_subnet(subnet)
    net.delete_network(network)
    assert connection.delete_security_group(group.id)
    assert net.find_network("sdk") is None
    connection.close()
