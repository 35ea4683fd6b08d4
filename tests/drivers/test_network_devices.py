"""Plans into devices, tunnels, servers and routers, and saved connections, by value."""

from __future__ import annotations

import msgspec
import pytest

from droveway.domain.network_plan import (
    HostNetworks,
    Ipv6Mode,
    PlannedNetwork,
    PlannedRouter,
    RemotePort,
    RouterLeg,
    RuleDirection,
)
from droveway.drivers.network.bridge import connections, devices, namespaces
from tests.drivers import network_worlds as w

IN, OUT = RuleDirection.INGRESS, RuleDirection.EGRESS
GROUP = w.identity(1)


# -- devices ----------------------------------------------------------------------------------------------------------
def bridge_of(net: PlannedNetwork, **given: object) -> devices.Bridge:
    plan = HostNetworks(1, "192.0.2.1", (), (net,), (w.port(11),), **given)  # type: ignore[arg-type]
    made = devices.bridges(plan, {"physnet1": "eth1"})[net.id]
    assert isinstance(made, devices.Bridge)
    return made


def test_a_bridge_and_its_tunnel_from_nothing() -> None:
    assert devices.lines(bridge_of(w.planned_network()), {}) == (
        [
            "link add name dwb00000001000 type bridge mcast_snooping 0 stp_state 0",
            "link set dev dwb00000001000 addrgenmode none",
            "link set dev dwb00000001000 mtu 1450 up",
            "link add name dwv00000001000 type vxlan id 100 dstport 4789 local 192.0.2.1 nolearning",
            "link set dev dwv00000001000 addrgenmode none",
            "link set dev dwv00000001000 mtu 1450 master dwb00000001000 up",
        ],
        "",
    )


def test_a_tunnel_of_another_number_is_made_anew() -> None:
    up = {"mtu": 1450, "flags": ["UP"]}
    vxlan = {"linkinfo": {"info_kind": "vxlan", "info_data": {"id": 7, "local": "192.0.2.1", "port": 4789}}}
    seen = {"dwb00000001000": up, "dwv00000001000": {**up, **vxlan, "master": "dwb00000001000"}}
    lines, _ = devices.lines(bridge_of(w.planned_network()), seen)
    assert lines[0] == "link del dev dwv00000001000" and "id 100" in lines[1]
    assert devices.lines(bridge_of(w.planned_network(vni=7)), seen) == ([], "")


def test_a_tap_is_plugged_where_it_belongs_and_others_are_left_alone() -> None:
    up = {"mtu": 1450, "flags": ["UP"]}
    vxlan = {"linkinfo": {"info_kind": "vxlan", "info_data": {"id": 100, "local": "192.0.2.1", "port": 4789}}}
    seen = {"dwb00000001000": up, "dwv00000001000": {**up, **vxlan, "master": "dwb00000001000"}}
    seen |= {w.port(11).device: {**up, "master": "virbr0"}, w.port(99).device: up, "eth0": up, "dwb77777777777": up}
    lines, _ = devices.lines(bridge_of(w.planned_network()), seen)
    assert lines == ["link set dev dwt0000000b000 addrgenmode none mtu 1450 master dwb00000001000 up"]
    wanted = ["dwb00000001000", "dwv00000001000"]
    assert devices.unwanted(seen, wanted) == ["dwb77777777777"]  # taps are the hypervisor's


def test_where_frames_go() -> None:
    peers = (RemotePort(w.mac(12), ("10.0.0.12",), "192.0.2.2"), RemotePort(w.mac(13), ("10.0.0.13",), "192.0.2.3"))
    net = w.planned_network(tunnel_addresses=("192.0.2.2", "192.0.2.3"), remote_ports=peers)
    bridge = bridge_of(net)
    zero = devices.EVERYBODY
    assert devices.forwarding_lines(bridge, frozenset()) == [
        f"fdb append {zero} dev dwv00000001000 dst 192.0.2.2 self static",
        f"fdb append {zero} dev dwv00000001000 dst 192.0.2.3 self static",
        f"fdb replace {w.mac(12)} dev dwv00000001000 dst 192.0.2.2 self static",
        f"fdb replace {w.mac(13)} dev dwv00000001000 dst 192.0.2.3 self static",
    ]
    has = frozenset({(zero, "192.0.2.2"), (zero, "192.0.2.9"), (w.mac(12), "192.0.2.9"), (w.mac(50), "192.0.2.9")})
    assert devices.forwarding_lines(bridge, has) == [
        f"fdb del {zero} dev dwv00000001000 dst 192.0.2.9 self",
        f"fdb del {w.mac(50)} dev dwv00000001000 dst 192.0.2.9 self",
        f"fdb append {zero} dev dwv00000001000 dst 192.0.2.3 self static",
        f"fdb replace {w.mac(12)} dev dwv00000001000 dst 192.0.2.2 self static",
        f"fdb replace {w.mac(13)} dev dwv00000001000 dst 192.0.2.3 self static",
    ]


def test_a_host_without_a_tunnel_address_has_no_part_in_vxlan() -> None:
    found = devices.bridges(HostNetworks(1, "", (), (w.planned_network(),)), {})
    assert "has no tunnel_address" in str(found[w.identity(1)])


# -- namespaces -------------------------------------------------------------------------------------------------------
def test_what_a_server_of_a_network_reads() -> None:
    net = w.planned_network(
        1,
        w.subnet(1, dns=("10.0.0.53",), routes=(("10.7.0.0/16", "10.0.0.9"),)),
        w.subnet(2, "fd00::/64", ipv6_mode=Ipv6Mode.STATEFUL, gateway="", dns=("fd00::53",)),
        w.subnet(3, "10.9.0.0/24", has_dhcp=False),
    )
    named = msgspec.structs.replace(w.port(11), hostname="web-1")
    made = namespaces.of_network(net, [named], "h1")
    assert made.legs[0].cidrs == (
        "10.0.0.2/24",
        "fd00::2/64",
        "10.9.0.2/24",
        "169.254.169.254/32",
        "fe80::a9fe:a9fe/64",
    )
    assert made.dnsmasq is not None
    assert dict(made.dnsmasq.files) == {
        "hosts": (
            "52:54:00:00:00:0b,set:s00000001000,10.0.0.11,web-1\n52:54:00:00:00:0b,set:s00000002000,[fd00::11],web-1\n"
        ),
        "options": (
            "tag:s00000001000,option:router,10.0.0.1\n"
            "tag:s00000001000,option:dns-server,10.0.0.53\n"
            "tag:s00000001000,option:mtu,1450\n"
            "tag:s00000001000,option:classless-static-route,169.254.169.254/32,10.0.0.2,10.7.0.0/16,10.0.0.9,"
            "0.0.0.0/0,10.0.0.1\n"
            "tag:s00000002000,option6:dns-server,[fd00::53]\n"
        ),
    }
    assert made.dnsmasq.arguments[-4:] == (
        "--dhcp-range=set:s00000001000,10.0.0.0,static,255.255.255.0,1d",
        "--dhcp-range=set:s00000002000,fd00::,static,64,1d",
        "--enable-ra",
        "--ra-param=dhcp0,mtu:1450,0,0",
    )


@pytest.mark.parametrize("words", ["10.0.0.53\ndhcp-script=/x", "10.0.0.53,x", "10.0.0.53 x"])
def test_no_address_is_written_that_is_none(words: str) -> None:
    net = w.planned_network(1, w.subnet(1, dns=(words,)))
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        namespaces.of_network(net, [], "h1")


def test_a_router_without_a_gateway_translates_nothing() -> None:
    leg = RouterLeg(w.identity(31), w.identity(1), "fa:16:3e:00:00:31", ("10.0.0.1/24",))
    router = PlannedRouter(w.identity(40), (leg,), floating=(("203.0.113.21", "10.0.0.11"),))
    made = namespaces.of_router(router, HostNetworks(1, "192.0.2.1", ("192.0.2.2",), (w.planned_network(),)), "h1")
    assert "snat" not in made.rules and "203.0.113.21" not in made.rules
    assert made.rules.count("counter drop") == 2  # the way to both hosts


# -- saved connections ------------------------------------------------------------------------------------------------
LINE = (
    "-A -t 431999 -u SEEN_REPLY,ASSURED -w 7 -s 10.0.0.11 -d 10.0.0.12 -r 10.0.0.12 -q 10.0.0.11 -p tcp "
    "--sport 41014 --dport 80 --reply-port-src 80 --reply-port-dst 41014 --state ESTABLISHED"
)


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace("10.0.0.1", "10.9.9.9"),  # of others
        LINE + "; touch /x",
        LINE + "\t$(id)",
        LINE.replace("-A ", "-D "),
        "-A -t 5 --load-file=/etc/shadow -s 10.0.0.11",
        "",
    ],
)
def test_a_line_that_is_no_connection_of_the_port_is_left_out(line: str) -> None:
    assert connections.in_zone(line, ["10.0.0.12"], 9) == ""


def test_a_line_of_the_port_is_loaded_into_the_zone_of_this_host() -> None:
    saved = connections.of_port([LINE], ["10.0.0.12"])
    assert saved == LINE.replace(" -w 7", "") + "\n"
    assert connections.in_zone(saved, ["10.0.0.12"], 9) == f"{saved.strip()} -w 9\n"
    many = connections.of_port([LINE] * 30_000, ["10.0.0.12"])
    assert len(many) <= connections.BYTES_MAX


def test_only_what_every_side_lets_begin_goes_on() -> None:
    (flow,) = connections.flows(LINE)
    ports = (w.port(11, groups=(GROUP,)), w.port(12, groups=(GROUP,)))
    plan = HostNetworks(1, "", (), (w.planned_network(),), ports, (w.group(1, w.tcp(80)),))
    closed = msgspec.structs.replace(plan, groups=(w.group(1, w.tcp(81)),))
    zones = {w.identity(1): 7}
    for directions in ({IN}, {OUT}, {IN, OUT}):
        assert connections.let_through_again({flow: directions}, plan, zones) == [flow]
    assert connections.let_through_again({flow: {IN}}, closed, zones) == []
    assert connections.let_through_again({flow: {OUT}}, closed, zones) == [flow]
    assert connections.let_through_again({flow: {IN}}, plan, {w.identity(1): 8}) == []
