"""A node with an address outside, as apache-libcloud makes one: run by its environment, with a URL and a password."""

import sys

from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

url, password, key = sys.argv[1:4]
driver = get_driver(Provider.OPENSTACK)(
    "admin",
    password,
    ex_force_auth_url=f"{url}/identity",
    ex_force_auth_version="3.x_password",
    ex_tenant_name="admin",
    ex_force_service_region="RegionOne",
    api_version="2.2",
)
(image,) = [one for one in driver.list_images() if one.name == "tiny"]
(size,) = [one for one in driver.list_sizes() if one.name == "tiny"]
outside = next(one for one in driver.ex_list_networks() if one.name == "outside")
network = driver.ex_create_network(name="lc")
subnet = driver.ex_create_subnet("lc4", network, "10.5.0.0/24")
router = driver.ex_create_router("lcr", external_gateway_info={"network_id": outside.id})
driver.ex_add_router_subnet(router, subnet)
pair = driver.import_key_pair_from_string("lc", key)
node = driver.create_node("lc1", size, image, networks=[network], ex_keyname=pair.name)
((running, addresses),) = driver.wait_until_running([node], wait_period=0.5, timeout=60, ssh_interface="private_ips")
assert running.state == NodeState.RUNNING and addresses == ["10.5.0.3"], (running, addresses)
driver.ex_set_metadata(running, {"tier": "front"})
assert driver.ex_get_metadata(running) == {"tier": "front"}
renamed = driver.ex_set_server_name(running, "lc2")
assert renamed.name == "lc2", renamed
pool = next(one for one in driver.ex_list_floating_ip_pools() if one.name == "outside")
floating = pool.create_floating_ip()
assert driver.ex_attach_floating_ip_to_node(running, floating)
((running, addresses),) = driver.wait_until_running([node], wait_period=0.5, timeout=60)
assert addresses == [floating.ip_address], addresses
port = driver.ex_create_port(network, name="second")
assert driver.ex_attach_port_interface(running, port)
assert len(driver.ex_get_node_ports(running)) == 2
assert driver.ex_detach_port_interface(running, port)
assert driver.ex_detach_floating_ip_from_node(running, floating)
assert floating.delete() and driver.destroy_node(node)
assert driver.ex_delete_port(port)
assert driver.ex_del_router_subnet(router, subnet) and driver.ex_delete_router(router)
assert driver.ex_delete_network(network) and driver.delete_key_pair(pair)
