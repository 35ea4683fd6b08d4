"""Plans into rules, by value; and the kernel as the judge of every step from one ruleset to another."""

from __future__ import annotations

import random
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.domain.network_plan import (
    AddressPair,
    GroupRule,
    HostNetworks,
    RuleDirection,
    SecurityGroup,
)
from droveway.domain.network_rules import lets_through
from droveway.drivers.network.bridge import groups, kernel, rules
from droveway.drivers.network.bridge.nftables import Nftables
from droveway.ports.network import NetworkRefused
from lab import network
from tests.drivers import network_worlds as w

IN, OUT = RuleDirection.INGRESS, RuleDirection.EGRESS
GROUP = w.identity(1)


def ingress(*some: GroupRule) -> tuple[str, ...]:
    return groups.rules(SecurityGroup(GROUP, some))[IN]


def rule(**given: object) -> GroupRule:
    return GroupRule(IN, **{"version": 4, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("some", "expected"),
    [
        ([rule()], ["meta nfproto ipv4 goto ok_in"]),
        ([rule(version=6, protocol=58)], ["meta nfproto ipv6 meta l4proto 58 goto ok_in"]),
        ([rule(version=6, protocol=1)], ["meta nfproto ipv6 meta l4proto 58 goto ok_in"]),
        ([rule(protocol=1, port_min=8, port_max=0)], ["meta nfproto ipv4 icmp type 8 icmp code 0 goto ok_in"]),
        ([rule(protocol=1, port_min=3)], ["meta nfproto ipv4 icmp type 3 goto ok_in"]),
        ([rule(protocol=6)], ["meta nfproto ipv4 meta l4proto 6 goto ok_in"]),
        ([rule(protocol=47)], ["meta nfproto ipv4 meta l4proto 47 goto ok_in"]),
        ([w.tcp(22)], ["meta nfproto ipv4 tcp dport 22 goto ok_in"]),
        (
            [w.tcp(22), w.tcp(80), rule(protocol=6, port_min=23, port_max=25)],
            ["meta nfproto ipv4 tcp dport { 22-25, 80 } goto ok_in"],
        ),
        (
            [w.tcp(22, remote_cidr="10.0.0.0/8")],
            ["meta nfproto ipv4 ip saddr 10.0.0.0/8 tcp dport 22 goto ok_in"],
        ),
        ([w.tcp(22, remote_cidr="0.0.0.0/0")], ["meta nfproto ipv4 tcp dport 22 goto ok_in"]),
        (
            [rule(protocol=6, remote_cidr="10.0.0.0/9"), rule(protocol=6, remote_cidr="10.128.0.0/9")],
            ["meta nfproto ipv4 ip saddr { 10.0.0.0/9, 10.128.0.0/9 } meta l4proto 6 goto ok_in"],
        ),
        (
            [w.tcp(22, remote_cidr="10.0.0.0/8"), w.tcp(80, remote_cidr="192.0.2.0/24")],
            ["meta nfproto ipv4 ip saddr . tcp dport { 10.0.0.0/8 . 22, 192.0.2.0/24 . 80 } goto ok_in"],
        ),
        (  # one inside the other: they would overlap in one set
            [w.tcp(22, remote_cidr="10.0.0.0/8"), rule(protocol=6, port_min=1, port_max=99, remote_cidr="10.1.0.0/16")],
            [
                "meta nfproto ipv4 ip saddr 10.0.0.0/8 tcp dport 22 goto ok_in",
                "meta nfproto ipv4 ip saddr 10.1.0.0/16 tcp dport 1-99 goto ok_in",
            ],
        ),
        ([w.tcp(22, remote_group_id=w.identity(2))], [f"ip saddr @m4_{w.identity(2)} tcp dport 22 goto ok_in"]),
        ([GroupRule(OUT, 4)], []),
    ],
)
def test_rules_of_a_group(some: list[GroupRule], expected: list[str]) -> None:
    assert list(ingress(*some)) == expected


def test_ten_thousand_rules_are_few() -> None:
    some = [w.tcp(1 + i % 60_000, remote_cidr=f"10.{i // 250 % 250}.{i % 250}.0/24") for i in range(10_000)]
    assert len(ingress(*some)) == 1
    nested = [w.tcp(22, remote_cidr=f"10.0.0.0/{length}") for length in range(8, 33)]
    assert len(ingress(*nested)) == 25  # by the depth of nesting, and never more than 33


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (w.tcp(70_000), "a rule has the ports 70000 to 70000"),
        (rule(protocol=6, port_min=9, port_max=3), "a rule has the ports 9 to 3"),
        (w.tcp(22, remote_cidr="fd00::/8"), "the remote fd00::/8 of a rule is not of IP version 4"),
        (w.tcp(22, remote_cidr="10.0.0.0/99"), "'10.0.0.0/99' is no address and no network"),
        (GroupRule(IN, 5), f"security group {GROUP} has a rule of IP version 5"),
    ],
)
def test_a_rule_that_is_none_keeps_its_ports_closed_and_no_other(wrong: GroupRule, reason: str) -> None:
    bad, good = w.port(11, groups=(GROUP,)), w.port(12)
    plan = HostNetworks(1, "192.0.2.1", (), (w.planned_network(),), (bad, good), (w.group(1, wrong),))
    made, failed = rules.ruleset(plan, {})
    assert [(one.kind, one.id) for one in failed] == [("port", bad.id)] and reason in failed[0].reason
    text = rules.whole(made)
    assert bad.device not in text and good.device in text


def test_ports_that_cannot_be_are_named() -> None:
    ports = (
        w.port(11, groups=(w.identity(5),)),
        w.port(12, network_number=6),
        w.port(13, mac=""),
        w.port(14, pairs=(AddressPair("10.0.0.0/33"),)),
    )
    plan = HostNetworks(1, "192.0.2.1", (), (w.planned_network(),), ports)
    made, failed = rules.ruleset(plan, {})
    reasons = {one.id: one.reason for one in failed}
    assert reasons[ports[0].id] == f"there is no security group {w.identity(5)} in the plan"
    assert reasons[ports[1].id] == f"its network {w.identity(6)} is not in the plan of this host"
    assert reasons[ports[2].id] == "it has no MAC address"
    assert "10.0.0.0/33" in reasons[ports[3].id]
    assert not [one for elements in made.sets.values() for one in elements.held if '"dwt' in one]


def test_ports_of_the_same_groups_share_their_chains() -> None:
    ports = tuple(w.port(number, groups=(GROUP,)) for number in range(1, 90))
    plan = HostNetworks(1, "192.0.2.1", (), (w.planned_network(),), ports, (w.group(1, w.tcp(22)),))
    few = rules.ruleset(msgspec.structs.replace(plan, ports=ports[:1]), {})[0]
    assert rules.ruleset(plan, {})[0].chains.keys() == few.chains.keys()


def test_tunnels_are_taken_from_known_hosts_of_either_version() -> None:
    chain = f"{rules.INET} input"
    plan = HostNetworks(1, "192.0.2.1", ("192.0.2.2", "fd00::2"))
    made = rules.ruleset(plan, {})[0]
    assert made.chains[chain][1] == ("ip daddr 192.0.2.1 udp dport 4789 ip saddr != @known4 counter drop")
    assert made.sets[f"{rules.INET} known4"].held == {"192.0.2.2"}
    made = rules.ruleset(msgspec.structs.replace(plan, tunnel_address="fd00::1"), {})[0]
    assert made.chains[chain][1] == "ip6 daddr fd00::1 udp dport 4789 ip6 saddr != @known6 counter drop"
    assert made.sets[f"{rules.INET} known6"].held == {"fd00::2"}
    assert len(rules.ruleset(HostNetworks(1, ""), {})[0].chains[chain]) == 1


def test_zones_and_marks_stay_when_others_come_and_go() -> None:
    some = [w.planned_network(number) for number in range(1, 60)]
    zones = rules.zones(some)
    assert len(set(zones.values())) == 59 and 0 not in zones.values() and max(zones.values()) <= 65_535
    assert rules.zones(some[30:]).items() <= zones.items()


# -- the kernel as the judge ------------------------------------------------------------------------------------------
POOL = [f"10.0.0.{x}" for x in range(16)] + ["10.0.0.0/29", "10.0.0.8/30", "fd00::/120", "fd00::3", "fd00::4"]


def _drawn(chance: random.Random) -> HostNetworks:
    numbers = sorted(chance.sample(range(1, 5), chance.randint(0, 4)))
    some = tuple(
        SecurityGroup(
            w.identity(number),
            tuple(
                GroupRule(
                    chance.choice((IN, OUT)),
                    version := chance.choice((4, 6)),
                    chance.choice((-1, 1, 6, 17, 47)),
                    *sorted((chance.randint(0, 9), chance.randint(0, 9))),
                    remote_cidr=chance.choice(("", "10.0.0.0/8", "10.1.0.0/16") if version == 4 else ("", "fd00::/8")),
                    remote_group_id=chance.choice(("", "", w.identity(1))),
                )
                for _ in range(chance.randint(0, 5))
            ),
            tuple(chance.sample(POOL, chance.randint(0, 8))),
        )
        for number in (1, 2)
    )
    ports = tuple(
        w.port(
            number,
            groups=tuple(chance.sample((w.identity(1), w.identity(2)), chance.randint(0, 2))),
            pairs=tuple(AddressPair(one) for one in chance.sample(POOL, chance.randint(0, 4))),
            has_security=chance.random() < 0.8,
            is_up=chance.random() < 0.8,
        )
        for number in numbers
    )
    return HostNetworks(
        1, "192.0.2.1", tuple(chance.sample(("192.0.2.2", "192.0.2.3"), 1)), (w.planned_network(),), ports, some
    )


def _listed(text: str) -> list[str]:
    """What a listing holds, whatever its order."""
    text = re.sub(r"packets \d+ bytes \d+", "", text).replace("elements = {", "").replace("}", "").replace(",", "\n")
    return sorted(line.strip() for line in text.splitlines() if line.strip())


@pytest.mark.lab
@w.NEEDS_REAL_NETWORKS
def test_every_step_ends_where_a_fresh_load_ends() -> None:
    chance, name = random.Random(12), "dwn-steps"
    network.create(name)
    try:
        with kernel.inside(name):
            nftables, before = Nftables(), rules.NOTHING
            nftables.run(rules.whole(before))
            for turn in range(120):
                after, failed = rules.ruleset(_drawn(chance), {})
                assert not failed
                began = nftables.generation()
                commands = rules.change(before, after)
                nftables.run(commands)
                assert nftables.generation() == began + bool(commands)  # one transaction
                assert rules.change(after, after) == ""
                if turn % 10 == 0:
                    stepped = _listed(nftables.run("list ruleset"))
                    nftables.run(rules.whole(after))
                    assert _listed(nftables.run("list ruleset")) == stepped
                before = after
            with pytest.raises(NetworkRefused, match="nftables refuses the rules"):
                nftables.run("add rule inet droveway nowhere accept")
            nftables.close()
    finally:
        network.delete(name)


# -- groups as they say it, and as they are written -------------------------------------------------------------------
CIDRS = st.sampled_from(["", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24"])
RULES = st.builds(
    lambda least, more, cidr, protocol: GroupRule(IN, 4, protocol, least, least + more, remote_cidr=cidr),
    st.integers(1, 20),
    st.integers(0, 5),
    CIDRS,
    st.sampled_from([6, 17]),
)


@settings(max_examples=150)
@given(st.lists(RULES, max_size=6), st.sampled_from(["10.9.9.9", "10.1.9.9", "10.1.2.9", "192.0.2.9", "9.9.9.9"]))
def test_merged_rules_let_through_what_the_single_ones_do(some: list[GroupRule], remote: str) -> None:
    group = SecurityGroup(GROUP, tuple(some))
    port = w.port(11, groups=(GROUP,))
    for number in range(1, 27):
        for protocol, word in ((6, "tcp"), (17, "udp")):
            expected = lets_through(port, {GROUP: group}, IN, remote, protocol, number)
            assert _matches(groups.rules(group)[IN], remote, word, number) == expected


def _matches(written: tuple[str, ...], remote: str, word: str, number: int) -> bool:
    """By a reader of the few forms that are used, which knows nothing of how they were made."""
    import ipaddress

    def is_in(cidr: str) -> bool:
        return ipaddress.ip_address(remote) in ipaddress.ip_network(cidr)

    def is_of(ports: str) -> bool:
        least, _, most = ports.partition("-")
        return int(least) <= number <= int(most or least)

    for line in written:
        text = line.removeprefix("meta nfproto ipv4 ").removesuffix(" goto ok_in")
        if f"{word} dport" not in text:
            continue
        if match := re.fullmatch(rf"ip saddr \. {word} dport {{ (.*) }}", text):
            pairs = [one.split(" . ") for one in match[1].split(", ")]
            found = any(is_in(cidr) and is_of(ports) for cidr, ports in pairs)
        else:
            source = re.search(r"ip saddr (\S+)", text)
            ports = text.partition("dport ")[2].strip("{ }").split(", ")
            found = (source is None or is_in(source[1])) and any(map(is_of, ports))
        if found:
            return True
    return False
