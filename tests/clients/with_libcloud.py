"""Nodes, networks and volumes of apache-libcloud: run by its environment, with a URL, a password and a key."""

import sys

from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider
from steps import check, step, until

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


def one_of(found, name):
    return next(one for one in found if one.name == name)


def node_of(node):
    return driver.ex_get_node_details(node.id)


image = step("list images", lambda: one_of(driver.list_images(), "tiny"))
size = step("list sizes", lambda: one_of(driver.list_sizes(), "tiny"))
small = one_of(driver.list_sizes(), "small")
outside = step("list networks", lambda: one_of(driver.ex_list_networks(), "outside"))
network = step("create network", lambda: driver.ex_create_network(name="lc"))
subnet = step("create subnet", lambda: driver.ex_create_subnet("lc4", network, "10.5.0.0/24"))
router = step("create router", lambda: driver.ex_create_router("lcr", external_gateway_info={"network_id": outside.id}))
step("router interface", lambda: driver.ex_add_router_subnet(router, subnet))
pair = step("import key pair", lambda: driver.import_key_pair_from_string("lc", key))


def made():
    new = driver.create_node(name="lc1", size=size, image=image, networks=[network], ex_keyname="lc")
    waited = driver.wait_until_running([new], wait_period=0.5, timeout=60, ssh_interface="private_ips")
    ((running, addresses),) = waited
    check(running.state == NodeState.RUNNING and addresses == ["10.5.0.3"], repr((running, addresses)))
    return running


node = step("create node and wait for its address", made)


def metadata():
    driver.ex_set_metadata(node, {"tier": "front"})
    check(driver.ex_get_metadata(node) == {"tier": "front"})


def floating():
    pool = one_of(driver.ex_list_floating_ip_pools(), "outside")
    found = pool.create_floating_ip()
    check(driver.ex_attach_floating_ip_to_node(node, found))
    until(lambda: found.ip_address in node_of(node).public_ips)
    check(driver.ex_detach_floating_ip_from_node(node, found) and found.delete())


def port():
    new = driver.ex_create_port(network, name="second")
    check(driver.ex_attach_port_interface(node, new))
    until(lambda: len(driver.ex_get_node_ports(node)) == 2)
    check(driver.ex_detach_port_interface(node, new))
    until(lambda: len(driver.ex_get_node_ports(node)) == 1)
    check(driver.ex_delete_port(new))


def power(off, word, on):
    check(getattr(driver, f"ex_{off}_node")(node))
    until(lambda: node_of(node).extra["vm_state"] == word)
    check(getattr(driver, f"ex_{on}_node")(node))
    until(lambda: node_of(node).extra["vm_state"] == "active")


def rebooted():
    check(driver.ex_hard_reboot_node(node))
    until(lambda: node_of(node).extra["task_state"] is None)


def imaged():
    new = driver.create_image(node, "lc-image")
    until(lambda: one_of(driver.list_images(), "lc-image").extra["status"].upper() == "ACTIVE")
    check(driver.delete_image(new))


def resized():
    check(driver.ex_resize(node, small))
    until(lambda: node_of(node).extra["vm_state"] == "resized")
    check(driver.ex_confirm_resize(node))
    until(lambda: node_of(node).extra["vm_state"] == "active")


def rebuilt():
    check(driver.ex_rebuild(node, image))
    until(lambda: node_of(node).extra["task_state"] is None and node_of(node).extra["vm_state"] == "active")


def volume():
    new = driver.create_volume(1, "lc")

    def state():
        return driver.ex_get_volume(new.id).state

    until(lambda: state() == "available")
    check(driver.attach_volume(node, new))
    until(lambda: state() == "inuse")
    check(driver.detach_volume(driver.ex_get_volume(new.id)))
    until(lambda: state() == "available")
    snapshot = driver.create_volume_snapshot(new, "lc")
    until(lambda: one_of(driver.ex_list_snapshots(), "lc").state == "available")
    check(driver.destroy_volume_snapshot(snapshot))
    until(lambda: not [one for one in driver.ex_list_snapshots() if one.id == snapshot.id])
    check(driver.destroy_volume(new))


def group():
    new = driver.ex_create_security_group("lc", "of libcloud")
    rule = driver.ex_create_security_group_rule(new, "tcp", 22, 22, cidr="0.0.0.0/0")
    check(driver.ex_delete_security_group_rule(rule))
    check(driver.ex_delete_security_group(new))


def gone():
    check(driver.destroy_node(node))
    until(lambda: node.id not in {one.id for one in driver.list_nodes()})


step("metadata", metadata)
step("rename", lambda: check(driver.ex_set_server_name(node, "lc2").name == "lc2"))
step("floating IP", floating)
step("port attached and detached", port)
step("stop and start", power, "stop", "stopped", "start")
step("pause and unpause", power, "pause", "paused", "unpause")
step("suspend and resume", power, "suspend", "suspended", "resume")
step("reboot", rebooted)
step("create image", imaged)
step("resize and confirm", resized)
step("rebuild", rebuilt)
step("volume: create, attach, detach, snapshot, delete", volume)
step("security group and rule", group)
step("console output", lambda: driver.ex_get_console_output(node))
step("delete node", gone)
step("delete key pair", lambda: check(driver.delete_key_pair(pair)))
step(
    "delete router and network",
    lambda: [
        driver.ex_del_router_subnet(router, subnet),
        driver.ex_delete_router(router),
        driver.ex_delete_network(network),
    ],
)
