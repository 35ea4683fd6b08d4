"""What stands under which path of the metadata service."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from droveway.domain.guest_data import GuestData, GuestFacts, GuestKey, at_host, digest, served
from droveway.domain.metadata_paths import EC2_VERSIONS, OPENSTACK_VERSIONS, PATH_MAX, is_password, lookup
from droveway.domain.network_plan import (
    FixedIp,
    HostNetworks,
    PlannedNetwork,
    PlannedPort,
    PlannedSubnet,
    RemotePort,
    SecurityGroup,
)

FACTS = GuestFacts(
    "vm-1",
    26,
    "g1",
    "g1",
    "p",
    "nova",
    "tiny",
    "r-1",
    metadata={"role": "web"},
    key=GuestKey("my/key", "ssh", "ssh-ed25519 AAAA me"),
    user_data=b"\x00\xff",
    group_names=("db", "web"),
)
SUBNET = PlannedSubnet("s1", "10.1.0.0/24", "10.1.0.1")
NETWORK = PlannedNetwork("n1", 1450, 7, subnets=(SUBNET,))
SHOWN = served(FACTS)


def at(path: str, shown: dict[str, bytes] = SHOWN) -> list[str] | None:
    found = lookup(shown, path)
    return None if found is None else found.decode("latin-1").split("\n")


def test_openstack_has_every_version_with_what_it_had() -> None:
    assert at("/openstack") == at("/openstack/") == [*OPENSTACK_VERSIONS, "latest"]
    newest = ["meta_data.json", "network_data.json", "password", "user_data", "vendor_data.json", "vendor_data2.json"]
    assert at("/openstack/latest") == at("/openstack/2018-08-27/") == newest
    assert at("/openstack/2012-08-10") == ["meta_data.json", "user_data"]
    for version in ("latest", *OPENSTACK_VERSIONS):
        found = lookup(SHOWN, f"/openstack/{version}/meta_data.json")
        assert found is not None and json.loads(found)["uuid"] == "vm-1"
        assert lookup(SHOWN, f"/openstack/{version}/user_data") == b"\x00\xff"
    assert lookup(SHOWN, "/openstack/latest/password") == b""
    assert lookup(SHOWN, "/openstack/latest/vendor_data2.json") == b"{}"
    assert lookup(SHOWN, "/openstack/2012-08-10/network_data.json") is None


def test_ec2_is_a_tree() -> None:
    assert at("/") == [*EC2_VERSIONS, "latest"]
    for version in ("latest", *EC2_VERSIONS):
        assert at(f"/{version}") == ["meta-data/", "user-data"]
        below = at(f"/{version}/meta-data/")
        assert below is not None and {"placement/", "public-keys/", "instance-id"} < set(below)
        assert "public-keys" not in below
        assert at(f"/{version}/meta-data/public-keys/") == ["0=my/key"]
        assert at(f"/{version}/meta-data/public-keys/0/") == ["openssh-key"]
        assert at(f"/{version}/meta-data/public-keys/0/openssh-key") == ["ssh-ed25519 AAAA me"]
        assert at(f"/{version}/meta-data/placement") == ["availability-zone"]
        assert at(f"/{version}/meta-data/security-groups") == ["db", "web"]
        assert lookup(SHOWN, f"/{version}/user-data") == b"\x00\xff"


def test_what_a_guest_has_not_is_not_there() -> None:
    bare = served(replace(FACTS, key=None, user_data=None))
    assert at("/latest", bare) == ["meta-data/"]
    assert at("/latest/user-data", bare) is None and at("/openstack/latest/user_data", bare) is None
    assert at("/latest/meta-data/public-keys/", bare) is None
    assert "user_data" not in (at("/openstack/latest", bare) or ())


@pytest.mark.parametrize(
    "path",
    [
        "/openstack/1999-01-01",
        "/openstack/latest/meta_data.json/x",
        "/openstack/latest/../latest/meta_data.json",
        "/2011-01-01/meta-data/",
        "/latest/meta-data/instance-id/x",
        "/latest/dynamic",
        "/latest/meta-data/placement/zone",
        "/" + "a" * PATH_MAX,
    ],
)
def test_what_is_not_there_is_not_found(path: str) -> None:
    assert lookup(SHOWN, path) is None


def test_slashes_and_questions_mean_nothing() -> None:
    assert at("//openstack///latest//password?x=/y") == [""]


def test_a_host_adds_what_its_plan_says() -> None:
    def port(name: str, place: int, **given: object) -> PlannedPort:
        ips = (FixedIp("s1", f"10.1.0.{place + 7}"),)
        values = {"fixed_ips": ips, "instance_id": "vm-1", "data_digest": "d", "place": place, **given}
        return PlannedPort(name, "n1", f"52:54:00:00:00:0{place}", **values)  # type: ignore[arg-type]

    told = GuestData("d", replace(FACTS, group_names=()))
    busy = replace(NETWORK, remote_ports=(RemotePort("52:54:00:00:00:99", ("10.1.0.99",), "192.0.2.2"),))
    ports = (port("b", 1, tag="back", groups=("g2", "g1")), port("a", 0, groups=("g1",)), port("c", 0, instance_id="x"))
    ports = (*ports, port("d", 0, data_digest=""))  # which only says that it is the guest's
    groups = (SecurityGroup("g1", name="web"), SecurityGroup("g2", name="db"), SecurityGroup("g3"))
    plan = HostNetworks(1, "", networks=(busy,), ports=ports, groups=groups)
    facts = at_host({"vm-1": told, "gone": told}, plan)
    assert facts.keys() == {"vm-1"}
    assert [nic.port.id for nic in facts["vm-1"].nics] == ["a", "b"] and facts["vm-1"].group_names == ("db", "web")
    assert all(nic.network == NETWORK for nic in facts["vm-1"].nics)  # of other hosts it is told nothing
    shown = served(facts["vm-1"])
    data = json.loads(shown["openstack/latest/network_data.json"])
    assert [link["vif_id"] for link in data["links"]] == ["a", "b"]
    assert json.loads(shown["openstack/latest/meta_data.json"])["devices"][0]["tags"] == ["back"]
    assert shown["latest/meta-data/local-ipv4"] == b"10.1.0.7"


def test_a_digest_tells_what_may_change() -> None:
    before = digest(1, "g", "g", {"a": "1", "b": "2"}, None)
    assert digest(1, "g", "g", {"b": "2", "a": "1"}, None) == before
    others = {digest(2, "g", "g", {}, None), digest(1, "h", "g", {}, None), digest(1, "g", "h", {}, None)}
    others |= {digest(1, "g", "g", {"a": "1"}, None), digest(1, "g", "g", {}, "k")}
    assert len(others) == 5 and before not in others


def test_what_it_holds_is_in_no_log() -> None:
    assert "AAAA" not in repr(GuestData("d", FACTS)) and "vm-1" in repr(GuestData("d", FACTS))


def test_where_a_guest_leaves_its_password() -> None:
    for path in (
        "/openstack/2013-04-04/password",
        "/openstack/latest/password",
        "//openstack/2020-10-14//password?x=1",
    ):
        assert is_password(path)
    for path in (
        "/openstack/2012-08-10/password",
        "/openstack/9/password",
        "/latest/password",
        "/openstack/password",
        "/",
    ):
        assert not is_password(path)
