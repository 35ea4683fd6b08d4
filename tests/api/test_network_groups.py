"""Security groups and their rules: the default group, what is the same rule, what a rule may not be."""

from __future__ import annotations

from pathlib import Path

from droveway.domain.network.quota import NetworkQuotas
from tests.api.network_world import change, get, make, networked, refused, send
from tests.api.test_networks import STANDARD

RULE = (STANDARD - {"tags"}) | {
    *("security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max"),
    *("remote_ip_prefix", "remote_group_id"),
}


async def test_every_project_has_its_default_group(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        (group,) = await get(world, alice, "security-groups")
        assert set(group) == STANDARD | {"name", "security_group_rules"}
        rules = group["security_group_rules"]
        assert all(set(rule) == RULE for rule in rules)
        assert sorted((one["direction"], one["ethertype"], one["remote_group_id"] or "") for one in rules) == [
            ("egress", "IPv4", ""),
            ("egress", "IPv6", ""),
            ("ingress", "IPv4", group["id"]),
            ("ingress", "IPv6", group["id"]),
        ]
        assert len(await get(world, bob, "security-group-rules")) == 4
        (other,) = await get(world, bob, "security-groups")
        assert other["id"] != group["id"]
        path = f"security-groups/{group['id']}"
        assert (await refused(world, bob, "GET", path))[:2] == (404, "SecurityGroupNotFound")
        assert (await refused(world, alice, "DELETE", path))[1] == "SecurityGroupCannotRemoveDefault"
        renamed = await refused(world, alice, "PUT", path, {"security_group": {"name": "x"}})
        assert renamed[1] == "SecurityGroupCannotUpdateDefault"
        assert (await change(world, alice, path, description="d"))["description"] == "d"
        again = await refused(world, alice, "POST", "security-groups", {"security_group": {"name": "default"}})
        assert again[:2] == (409, "SecurityGroupDefaultAlreadyExists")
        gone = await world.ask("DELETE", f"/network/v2.0/{path}", token=await world.token())
        assert gone.status_code == 204, "an administrator clears up"


async def test_rules_come_and_go_and_none_is_there_twice(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        group = await make(world, alice, "security-groups", name="web")
        assert len(group["security_group_rules"]) == 2
        given = {"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp"}
        ports = {"port_range_min": 80, "port_range_max": 80}
        rule = await make(world, alice, "security-group-rules", **given, **ports)
        assert set(rule) == RULE and rule["ethertype"] == "IPv4"
        for same in ({"protocol": "6"}, {"remote_ip_prefix": "0.0.0.0/0"}, {"ethertype": None}):
            body = {"security_group_rule": given | ports | same}
            found = await refused(world, alice, "POST", "security-group-rules", body)
            assert found[:2] == (409, "SecurityGroupRuleExists") and rule["id"] in found[2]
        for wrong, kind in (
            ({"port_range_min": 90}, "SecurityGroupInvalidPortRange"),
            ({"port_range_max": 65536}, "SecurityGroupInvalidPortRange"),
            ({"port_range_max": 1 << 21}, "HTTPBadRequest"),
            ({"protocol": "gre"}, "SecurityGroupInvalidProtocolForPort"),
            ({"protocol": "smtp"}, "SecurityGroupInvalidProtocol"),
            ({"direction": "up"}, "HTTPBadRequest"),
            ({"ethertype": "IPv5"}, "HTTPBadRequest"),
            ({"remote_ip_prefix": "2001:db8::/64"}, "SecurityGroupRuleParameterConflict"),
            (
                {"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": group["id"]},
                "SecurityGroupRemoteGroupAndRemoteIpPrefix",
            ),
        ):
            body = {"security_group_rule": given | ports | wrong}
            found = await refused(world, alice, "POST", "security-group-rules", body)
            assert found[:2] == (400, kind), found
        (theirs,) = await get(world, bob, "security-groups")
        named = {"security_group_rule": given | {"remote_group_id": theirs["id"]}}
        assert (await refused(world, alice, "POST", "security-group-rules", named))[1] == "SecurityGroupNotFound"
        foreign = {"security_group_rule": given | {"security_group_id": theirs["id"]}}
        assert (await refused(world, alice, "POST", "security-group-rules", foreign))[1] == "SecurityGroupNotFound"
        found = await get(world, alice, f"security-group-rules?security_group_id={group['id']}&protocol=tcp")
        assert [one["id"] for one in found] == [rule["id"]]
        path = f"security-group-rules/{rule['id']}"
        assert (await refused(world, bob, "DELETE", path))[:2] == (404, "SecurityGroupRuleNotFound")
        assert (await send(world, alice, "DELETE", path)).status_code == 204
        shown = await get(world, alice, f"security-groups/{group['id']}")
        assert len(shown["security_group_rules"]) == 2 and shown["revision_number"] == 3


async def test_a_group_on_a_port_stays_and_one_that_a_rule_names_takes_the_rule_along(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        alice = await world.token("alice", "red")
        network = (await make(world, alice, "networks"))["id"]
        web, app = [(await make(world, alice, "security-groups", name=name))["id"] for name in ("web", "app")]
        port = await make(world, alice, "ports", network_id=network, security_groups=[web])
        rule = {"security_group_id": app, "direction": "ingress", "remote_group_id": web}
        await make(world, alice, "security-group-rules", **rule)
        found = await refused(world, alice, "DELETE", f"security-groups/{web}")
        assert found[:2] == (409, "SecurityGroupInUse") and port["id"] in found[2]
        assert (await send(world, alice, "DELETE", f"ports/{port['id']}")).status_code == 204
        before = (await get(world, alice, f"security-groups/{app}"))["revision_number"]
        assert (await send(world, alice, "DELETE", f"security-groups/{web}")).status_code == 204
        left = await get(world, alice, f"security-groups/{app}")
        assert left["revision_number"] > before
        assert [one["remote_group_id"] for one in left["security_group_rules"]] == [None, None]
        assert (await send(world, alice, "DELETE", f"security-groups/{app}")).status_code == 204
        assert len(await get(world, alice, "security-group-rules")) == 4


async def test_ten_thousand_rules_are_bounded_by_the_quota_and_by_the_body(tmp_path: Path) -> None:
    async with networked(tmp_path, quotas=NetworkQuotas()) as world:
        alice = await world.token("alice", "red")
        group = (await make(world, alice, "security-groups", name="many"))["id"]

        def rules(count: int) -> dict[str, object]:
            one = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
            ports = [{"port_range_min": port, "port_range_max": port} for port in range(1, count + 1)]
            return {"security_group_rules": [one | port for port in ports]}

        assert (await refused(world, alice, "POST", "security-group-rules", rules(10_000)))[0] in (400, 413)
        status, kind, words = await refused(world, alice, "POST", "security-group-rules", rules(1000))
        assert (status, kind, "100 is the most" in words) == (409, "OverQuota", True)
        assert len(await get(world, alice, "security-group-rules")) == 6
        made = await send(world, alice, "POST", "security-group-rules", rules(94))
        assert made.status_code == 201 and len(made.json()["security_group_rules"]) == 94
        assert (await refused(world, alice, "POST", "security-group-rules", rules(95)))[1] == "OverQuota"
