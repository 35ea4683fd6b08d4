"""Facts about networks into what one host is told, by value."""

from __future__ import annotations

import msgspec

from droveway.domain.network.plan import (
    Facts,
    InterfaceFact,
    NetworkFact,
    PortFact,
    RouterFact,
    SubnetFact,
    hostname,
    of_host,
)
from droveway.domain.network.rules import RuleSpec
from droveway.domain.network_plan import (
    AddressPair,
    FixedIp,
    GroupRule,
    HostNetworks,
    Ipv6Mode,
    PlannedNetwork,
    PlannedPort,
    PlannedRouter,
    PlannedSubnet,
    RemotePort,
    RouterGateway,
    RouterLeg,
    RuleDirection,
    SecurityGroup,
)

TUNNELS = {"h1": "192.0.2.1", "h2": "192.0.2.2", "h3": "192.0.2.3", "h4": ""}
SUBNET = SubnetFact(
    "s1", "n1", "10.0.0.0/24", "10.0.0.1", ("192.0.2.53",), (("198.51.100.0/24", "10.0.0.9"),), True, None
)
OUTSIDE = SubnetFact("sx", "nx", "203.0.113.0/24", "203.0.113.1", (), (), False, None)


def port(name: str, host: str = "", address: str = "", owner: str = "compute:nova", **more: object) -> PortFact:
    fixed = ((("s1"), address),) if address else ()
    made = PortFact(name, "n1", "red", f"mac-{name}", (host,) if host else (), f"vm-{name}", owner, fixed)
    return msgspec.structs.replace(made, **more)


DHCP = port("d", "", "10.0.0.2", "network:dhcp", device_id="dhcp", has_security=False)
LEG = port("leg", "", "10.0.0.1", "network:router_interface", device_id="r1", has_security=False)
GATEWAY = port(
    "gw", "", "", "network:router_gateway", device_id="r1", network_id="nx", addresses=(("sx", "203.0.113.5"),)
)
NETWORKS = [
    NetworkFact("n1", 1450, 7, None),
    NetworkFact("nx", 1500, None, "physnet1"),
    NetworkFact("n9", 1450, 9, None),
]


def facts(*ports: PortFact, **more: object) -> Facts:
    made = Facts(5, NETWORKS, [SUBNET, OUTSIDE], [*ports, DHCP, LEG, GATEWAY], tunnels=TUNNELS)
    return msgspec.structs.replace(made, **more)


def test_one_guest_here_and_one_there() -> None:
    mine = port("a", "h1", "10.0.0.3", groups=("g1",), pairs=(("10.0.0.200", ""),))
    told = of_host(
        facts(
            mine,
            port("b", "h2", "10.0.0.4"),
            rules={"g1": [RuleSpec("ingress", remote_group_id="g2"), RuleSpec("egress")]},
            members={"g2": ["10.0.0.4", "10.0.0.3", "10.0.0.4"]},
            interfaces={"a": InterfaceFact("web,1\n", 2, "front", "d1")},
            group_names={"g1": "web", "g2": "db"},
        ),
        "h1",
    )
    assert told == HostNetworks(
        revision=5,
        tunnel_address="192.0.2.1",
        known_hosts=("192.0.2.2", "192.0.2.3"),
        networks=(
            PlannedNetwork(
                "n1",
                1450,
                vni=7,
                subnets=(
                    PlannedSubnet(
                        "s1",
                        "10.0.0.0/24",
                        "10.0.0.1",
                        ("192.0.2.53",),
                        (("198.51.100.0/24", "10.0.0.9"),),
                        True,
                        "10.0.0.2",
                    ),
                ),
                tunnel_addresses=("192.0.2.2",),
                remote_ports=(RemotePort("mac-b", ("10.0.0.4",), "192.0.2.2"),),
                dhcp_mac="mac-d",
            ),
        ),
        ports=(
            PlannedPort(
                "a",
                "n1",
                "mac-a",
                (FixedIp("s1", "10.0.0.3"),),
                ("g1",),
                (AddressPair("10.0.0.200"),),
                instance_id="vm-a",
                project_id="red",
                hostname="web-1",
                place=2,
                tag="front",
                data_digest="d1",
            ),
        ),
        groups=(
            SecurityGroup(
                "g1",
                (GroupRule(RuleDirection.INGRESS, 4, remote_group_id="g2"), GroupRule(RuleDirection.EGRESS, 4)),
                name="web",
            ),
            SecurityGroup("g2", (), ("10.0.0.3", "10.0.0.4")),
        ),
    )


def test_a_host_without_ports_is_told_of_no_network() -> None:
    assert of_host(facts(port("b", "h2", "10.0.0.4")), "h1") == HostNetworks(5, "192.0.2.1", ("192.0.2.2", "192.0.2.3"))


def test_a_router_brings_its_networks_to_its_host() -> None:
    router = RouterFact("r1", "h3", False, (("198.51.100.0/24", "10.0.0.9"),), True, (("203.0.113.9", "10.0.0.4"),))
    told = of_host(facts(port("b", "h2", "10.0.0.4"), routers=[router]), "h3")
    assert [network.id for network in told.networks] == ["n1", "nx"]
    assert told.networks[1] == PlannedNetwork(
        "nx",
        1500,
        physical_network="physnet1",
        subnets=(PlannedSubnet("sx", "203.0.113.0/24", "203.0.113.1", has_dhcp=False),),
    )
    assert told.routers == (
        PlannedRouter(
            "r1",
            (RouterLeg("leg", "n1", "mac-leg", ("10.0.0.1/24",)),),
            RouterGateway(RouterLeg("gw", "nx", "mac-gw", ("203.0.113.5/24",)), ("203.0.113.1",), False),
            (("198.51.100.0/24", "10.0.0.9"),),
            (("203.0.113.9", "10.0.0.4"),),
        ),
    )
    elsewhere = of_host(facts(port("b", "h2", "10.0.0.4"), routers=[router]), "h2")
    assert elsewhere.routers == ()
    assert elsewhere.networks[0].remote_ports == (RemotePort("mac-leg", ("10.0.0.1",), "192.0.2.3"),)
    down = of_host(facts(routers=[msgspec.structs.replace(router, is_up=False)]), "h3")
    assert down.routers == ()


def test_a_guest_that_moves_is_on_both_hosts_and_reached_where_it_runs() -> None:
    moving = facts(port("a", "", "10.0.0.3", hosts=("h1", "h2")), port("c", "h3", "10.0.0.5"))
    source, destination, third = (of_host(moving, host) for host in ("h1", "h2", "h3"))
    assert [one.is_leaving for one in source.ports] == [True]
    assert [one.is_leaving for one in destination.ports] == [False]
    assert [one.tunnel_address for one in third.networks[0].remote_ports] == ["192.0.2.1"]
    assert [one.mac for one in destination.networks[0].remote_ports] == ["mac-a", "mac-c"]
    assert [one.mac for one in source.networks[0].remote_ports] == ["mac-c"]
    arrived = of_host(facts(port("a", "h2", "10.0.0.3"), port("c", "h3", "10.0.0.5")), "h3")
    assert [one.tunnel_address for one in arrived.networks[0].remote_ports] == ["192.0.2.2"]


def test_what_has_no_tunnel_is_not_told_of() -> None:
    told = of_host(facts(port("a", "h1", "10.0.0.3"), port("e", "h4", "10.0.0.6"), port("f", "", "10.0.0.7")), "h1")
    assert told.networks[0].remote_ports == ()


def test_what_is_off_passes_nothing_and_what_has_no_security_has_no_groups() -> None:
    off = of_host(facts(port("a", "h1", "10.0.0.3", is_up=False, groups=("g1",), has_security=False)), "h1")
    assert (off.ports[0].is_up, off.ports[0].groups, off.groups) == (False, (), ())
    down = of_host(facts(port("a", "h1"), networks=[NetworkFact("n1", 1450, 7, None, False)]), "h1")
    assert down.ports[0].is_up is False


def test_modes_and_disabled_dhcp() -> None:
    six = SubnetFact("s6", "n1", "2001:db8::/64", None, (), (), True, "slaac")
    served = msgspec.structs.replace(DHCP, addresses=(("s1", "10.0.0.2"), ("s6", "2001:db8::2")))
    made = facts(port("a", "h1"), subnets=[msgspec.structs.replace(SUBNET, has_dhcp=False), six])
    told = of_host(msgspec.structs.replace(made, ports=[port("a", "h1"), served]), "h1")
    assert [(one.dhcp_address, one.ipv6_mode) for one in told.networks[0].subnets] == [
        ("", Ipv6Mode.NONE),
        ("2001:db8::2", Ipv6Mode.SLAAC),
    ]


def test_the_same_facts_in_another_order_are_the_same_plan() -> None:
    several = [port(name, "h1", f"10.0.0.{10 + number}", groups=("g2", "g1")) for number, name in enumerate("cab")]
    one, other = of_host(facts(*several), "h1"), of_host(facts(*reversed(several)), "h1")
    assert one == other and [p.id for p in one.ports] == ["a", "b", "c"]


def test_hostnames_are_letters_digits_and_hyphens() -> None:
    for given, told in (
        ("web.example", "web-example"),
        ("a\nb,c", "a-b-c"),
        ("-x-", "x"),
        ("ü", ""),
        ("x" * 70, "x" * 63),
    ):
        assert hostname(given) == told
