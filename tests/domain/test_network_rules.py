"""Rules of security groups: what is refused and under which name, what is the same rule, what hosts are told."""

from __future__ import annotations

from typing import Any

import pytest

from droveway.domain.faults import Fault
from droveway.domain.network import refusals, rules
from droveway.domain.network.quota import NetworkQuotas, check, limits
from droveway.domain.network.rules import RuleSpec, checked, meaning, planned
from droveway.domain.network_plan import GroupRule, RuleDirection

IN = "ingress"
R = refusals


def _from(cidr: str) -> GroupRule:
    return GroupRule(RuleDirection.INGRESS, 4, remote_cidr=cidr)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ({"protocol": "tcp", "port_min": 0, "port_max": 80}, R.SecurityGroupInvalidPortRange, "from 1 to 65535"),
        ({"protocol": "tcp", "port_min": 90, "port_max": 80}, R.SecurityGroupInvalidPortRange, "90.*80"),
        ({"protocol": "udp", "port_min": 1, "port_max": 65536}, R.SecurityGroupInvalidPortRange, "65536"),
        ({"protocol": "tcp", "port_min": 80}, R.SecurityGroupInvalidPortRange, "None"),
        ({"port_min": 80, "port_max": 80}, R.SecurityGroupInvalidProtocolForPort, "None"),
        ({"protocol": "gre", "port_min": 1, "port_max": 2}, R.SecurityGroupInvalidProtocolForPort, "gre"),
        ({"protocol": "icmp", "port_min": 256}, R.SecurityGroupInvalidIcmpValue, "type .port_range_min. 256"),
        ({"protocol": "icmp", "port_min": 8, "port_max": 256}, R.SecurityGroupInvalidIcmpValue, "code"),
        ({"protocol": "icmp", "port_max": 0}, R.SecurityGroupMissingIcmpType, "type"),
        ({"protocol": "ipv6-icmp"}, R.SecurityGroupRuleParameterConflict, "IPv4"),
        ({"protocol": "256"}, R.SecurityGroupInvalidProtocol, "256 not supported"),
        ({"protocol": "smtp"}, R.SecurityGroupInvalidProtocol, "smtp not supported"),
        ({"remote_cidr": "2001:db8::/64"}, R.SecurityGroupRuleParameterConflict, "CIDR 2001:db8::/64"),
        ({"remote_cidr": "10.0.0.0/33"}, R.InvalidInput, "remote_ip_prefix"),
        ({"remote_cidr": "10.0.0.0/8", "remote_group_id": "g"}, R.SecurityGroupRemoteGroupAndRemoteIpPrefix, "Only"),
    ],
)
def test_what_is_refused(said: dict[str, Any], kind: type[Fault], words: str) -> None:
    with pytest.raises(kind, match=words):
        checked(RuleSpec(IN, **said))


def test_what_hosts_are_told() -> None:
    for given, told in (
        (RuleSpec(IN), GroupRule(RuleDirection.INGRESS, 4)),
        (RuleSpec(IN, protocol="TCP", port_min=1, port_max=65535), GroupRule(RuleDirection.INGRESS, 4, 6, 1, 65535)),
        (RuleSpec("egress", "IPv6", "icmp", 128), GroupRule(RuleDirection.EGRESS, 6, 58, 128)),
        (
            RuleSpec(IN, protocol="any", remote_cidr="10.9.9.9/8"),
            GroupRule(RuleDirection.INGRESS, 4, remote_cidr="10.0.0.0/8"),
        ),
        (
            RuleSpec(IN, protocol="17", remote_group_id="g"),
            GroupRule(RuleDirection.INGRESS, 4, 17, remote_group_id="g"),
        ),
        (RuleSpec(IN, remote_cidr="0.0.0.0/0"), GroupRule(RuleDirection.INGRESS, 4)),
    ):
        assert planned(checked(given)) == told


def test_the_same_rule_in_another_spelling_is_the_same() -> None:
    def of(*given: Any, **more: Any) -> str:
        return meaning(checked(RuleSpec(IN, *given, **more)))

    assert of(protocol="tcp") == of(protocol="6") == of(protocol="TCP") != of(protocol="udp")
    assert of() == of(remote_cidr="0.0.0.0/0") == of(protocol="any") != of(remote_cidr="10.0.0.0/8")
    assert of("IPv6", "icmp") == of("IPv6", "ipv6-icmp") == of("IPv6", "58")
    assert of(protocol="icmp", port_min=8) != of(protocol="icmp", port_min=8, port_max=0)
    assert len(of("IPv6", "tcp", 10000, 20000, "2001:db8:1111:2222:3333:4444:5555:6666/128")) <= 160


def test_the_rules_a_group_begins_with() -> None:
    assert [(one.direction, one.ethertype, one.remote_group_id) for one in rules.defaults("g", is_default=True)] == [
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", "g"),
        ("ingress", "IPv6", "g"),
    ]
    assert len(rules.defaults("g", is_default=False)) == 2


def test_quotas_of_networks() -> None:
    found = limits(NetworkQuotas(), {"port": 7, "colour": 9})
    assert (found["port"], found["network"], "colour" in found) == (7, 100, False)
    check("port", 7, 6, 1)
    check("port", -1, 10**9, 1)
    with pytest.raises(R.OverQuota, match=r"\['port'\].*has 7, 1 more.*7 is the most"):
        check("port", 7, 7, 1)
