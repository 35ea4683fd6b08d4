"""The XML of guests and hosts: whatever a guest is called, libvirt gets well-formed XML and we find our guest again."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.domain.model import GuestSpec
from droveway.drivers.hypervisor.domain_xml import (
    NAMESPACE,
    NotADomainOfOurs,
    cpu_arch,
    domain_name,
    domain_xml,
    is_instance_id,
    parse_capabilities,
    parse_domain_mark,
    parse_mark,
    xml_text,
)

ID = "6f1f2a35-8a1a-4f0e-9d53-2d0f4c6d7b11"
STORE = "/var/lib/droveway/instances"

CAPABILITIES = """
<capabilities><host><uuid>x</uuid><cpu><arch>x86_64</arch><model>Broadwell</model><vendor>Intel</vendor>
<microcode version='1'/><topology sockets='1' dies='1' cores='2' threads='1'/>
<feature name='vme'/><feature name='avx512f'/><pages unit='KiB' size='4'/></cpu></host>
<guest><os_type>hvm</os_type><arch name='i686'><machine>never</machine></arch></guest>
<guest><os_type>hvm</os_type><arch name='x86_64'><machine canonical='pc-i440fx-7.2'>pc</machine><machine>q35</machine>
<domain type='qemu'/></arch></guest></capabilities>"""
DOMAIN_CAPABILITIES = """
<domainCapabilities><cpu><mode name='host-passthrough' supported='no'/>
<mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
<feature policy='require' name='acpi'/><feature policy='disable' name='vme'/></mode></cpu></domainCapabilities>"""


def spec(name: str = "g1", ram_mb: int = 128) -> GuestSpec:
    return GuestSpec(ID, name, 2, ram_mb, 1)


@given(st.text())
def test_any_name_makes_a_domain_that_is_found_again_as_ours(name: str) -> None:
    text = domain_xml(spec(name), f"{STORE}/{ID}", use_kvm=False)
    text.encode("utf-8")
    assert "\x00" not in text
    assert parse_domain_mark(text) == (ID, xml_text(name))


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), max_size=40).filter(str.isprintable))
def test_a_printable_name_arrives_unchanged(name: str) -> None:
    assert parse_domain_mark(domain_xml(spec(name), STORE, use_kvm=False))[1] == name


@pytest.mark.parametrize("bad", ["\x00", "\x1b", "\x0b", "\ud800", "\ufffe", "\uffff"])
def test_what_xml_cannot_carry_is_replaced(bad: str) -> None:
    assert xml_text(f"a{bad}b") == "a\ufffdb"


def test_a_domain_is_what_the_design_says() -> None:
    domain = ET.fromstring(domain_xml(spec(), f"{STORE}/{ID}", use_kvm=False))
    assert domain.get("type") == "qemu"
    assert domain.findtext("name") == domain_name(ID)
    assert domain.findtext("uuid") == ID
    assert (domain.findtext("memory"), domain.findtext("vcpu")) == ("128", "2")
    assert domain.find("cpu") is None
    assert [domain.findtext(f"on_{event}") for event in ("poweroff", "reboot", "crash")] == [
        "destroy",
        "restart",
        "destroy",
    ]
    devices = domain.find("devices")
    assert devices is not None
    assert devices.find("interface") is None
    disk = devices.find("disk")
    assert disk is not None
    assert disk.find("source").attrib == {"file": f"{STORE}/{ID}/disk"}  # type: ignore[union-attr]
    assert disk.find("driver").attrib == {  # type: ignore[union-attr]
        "name": "qemu",
        "type": "qcow2",
        "cache": "none",
        "discard": "unmap",
    }
    log = devices.find("serial/log")
    assert log is not None
    assert log.attrib == {"file": f"{STORE}/{ID}/console.log", "append": "on"}
    assert [devices.find(path).get("model", devices.find(path).get("type")) for path in (  # type: ignore[union-attr]
        "controller[@type='usb']", "memballoon", "video/model")] == ["none"] * 3  # fmt: skip


def test_kvm_guests_get_the_host_s_model() -> None:
    domain = ET.fromstring(domain_xml(spec(), STORE, use_kvm=True))
    assert domain.get("type") == "kvm"
    assert domain.find("cpu[@mode='host-model']") is not None


@given(st.text(max_size=60))
def test_metadata_of_others_is_not_ours(text: str) -> None:
    with pytest.raises(NotADomainOfOurs):
        parse_mark(text)


@pytest.mark.parametrize(
    "foreign",
    [
        f"<instance xmlns='urn:somebody:else' id='{ID}'/>",
        f"<instance xmlns='{NAMESPACE}' id='../../etc'/>",
        f"<instance xmlns='{NAMESPACE}'/>",
        f"<other xmlns='{NAMESPACE}' id='{ID}'/>",
    ],
)
def test_a_mark_must_be_exact(foreign: str) -> None:
    with pytest.raises(NotADomainOfOurs):
        parse_mark(foreign)


def test_a_domain_without_our_mark_is_not_ours() -> None:
    with pytest.raises(NotADomainOfOurs):
        parse_domain_mark("<domain><name>x</name><metadata/></domain>")


@given(st.text(max_size=60))
def test_only_canonical_uuids_are_ids(text: str) -> None:
    assert is_instance_id(text) == bool(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))


@pytest.mark.parametrize("text", [ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", f"{ID}\n", "../x"])
def test_other_spellings_of_an_id_are_refused(text: str) -> None:
    assert not is_instance_id(text)


def test_capabilities_of_an_emulating_host() -> None:
    facts = parse_capabilities(CAPABILITIES, DOMAIN_CAPABILITIES, use_kvm=False)
    assert (facts.arch, facts.cpu_model, facts.cpu_vendor) == ("x86_64", "Broadwell", "Intel")
    assert facts.cpu_features == ("avx512f", "vme")
    assert facts.cpu_topology == {"cores": 2, "dies": 1, "sockets": 1, "threads": 1}
    assert facts.machine_types == ("pc", "q35")
    assert cpu_arch(facts.cpu_xml) == "x86_64"
    assert "microcode" not in facts.cpu_xml


def test_with_kvm_the_cpu_to_compare_is_the_one_that_guests_get() -> None:
    facts = parse_capabilities(CAPABILITIES, DOMAIN_CAPABILITIES, use_kvm=True)
    cpu = ET.fromstring(facts.cpu_xml)
    assert cpu.findtext("model") == "EPYC"
    assert [(f.get("policy"), f.get("name")) for f in cpu.findall("feature")] == [
        ("require", "acpi"),
        ("disable", "vme"),
    ]


def test_capabilities_that_say_little_break_nothing() -> None:
    facts = parse_capabilities("<capabilities><host/></capabilities>", "<domainCapabilities/>", use_kvm=True)
    assert facts.machine_types == ()
    assert cpu_arch("no xml") == ""
