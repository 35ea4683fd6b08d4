"""The XML of guests and hosts: whatever a guest is called, libvirt gets well-formed XML and we find our guest again."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from droveway.domain.consoles import ConsoleKind
from droveway.domain.hardware import Hardware
from droveway.domain.model import GuestSpec
from droveway.domain.placement import HeldCell, NumaCell
from droveway.drivers.hypervisor.libvirt.console_xml import CONSOLES, socket_in
from droveway.drivers.hypervisor.libvirt.domain_xml import (
    NAMESPACE,
    ForeignDomain,
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
<domainCapabilities><os supported='yes'><enum name='firmware'><value>efi</value></enum></os>
<cpu><mode name='host-passthrough' supported='no'/>
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
    assert [
        devices.find(path).get("model", devices.find(path).get("type"))
        for path in (  # type: ignore[union-attr]
            "controller[@type='usb']",
            "memballoon",
            "video/model",
        )
    ] == ["none", "none", "vga"]


def test_a_guest_s_consoles_listen_at_unix_sockets_and_nowhere_else() -> None:
    domain = domain_xml(spec(), f"{STORE}/{ID}", use_kvm=False)
    devices = ET.fromstring(domain).find("devices")
    assert devices is not None
    assert [one.attrib for one in devices.iterfind("graphics/listen")] == [{"type": "socket"}]
    assert [one.attrib for one in devices.iterfind("serial/source")] == [{"mode": "bind", "path": f"{CONSOLES}/{ID}"}]
    assert not re.search(r"tcp|port=.[1-9]|autoport|0\.0\.0\.0|127\.0\.0\.1", domain)
    assert socket_in(domain, ConsoleKind.SERIAL) == f"{CONSOLES}/{ID}"
    assert socket_in(domain.replace('type="unix"', 'type="pty"'), ConsoleKind.SERIAL) == "", "of an older release"


def test_a_guest_without_a_screen_has_a_serial_line_alone() -> None:
    bare = replace(spec(), hardware=Hardware(video="none"))
    devices = ET.fromstring(domain_xml(bare, f"{STORE}/{ID}", use_kvm=False)).find("devices")
    assert devices is not None
    assert devices.find("graphics") is None
    assert devices.find("video/model").get("type") == "none"  # type: ignore[union-attr]
    assert devices.find("serial/log") is not None


def test_kvm_guests_get_the_host_s_model() -> None:
    domain = ET.fromstring(domain_xml(spec(), STORE, use_kvm=True))
    assert domain.get("type") == "kvm"
    assert domain.find("cpu[@mode='host-model']") is not None


@given(st.text(max_size=60))
def test_metadata_of_others_is_not_ours(text: str) -> None:
    with pytest.raises(ForeignDomain):
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
    with pytest.raises(ForeignDomain):
        parse_mark(foreign)


def test_a_domain_without_our_mark_is_not_ours() -> None:
    with pytest.raises(ForeignDomain):
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
    assert facts.firmwares == ("bios", "uefi")
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


# -- NUMA -------------------------------------------------------------------------------------------------------------
CELLS = (NumaCell(0, (0, 1, 4, 5), 4096), NumaCell(1, (2, 3, 6, 7), 4096))


def held_spec(*cells: HeldCell) -> GuestSpec:
    return GuestSpec(ID, "g1", sum(cell.vcpus for cell in cells), sum(cell.memory_mb for cell in cells), 1, cells=cells)


def test_a_pinned_guest_has_each_vcpu_on_its_cpu_and_its_memory_in_its_cells() -> None:
    spec = held_spec(HeldCell(0, 2, 512, (5, 1)), HeldCell(1, 1, 256, (6,)))
    root = ET.fromstring(domain_xml(spec, STORE, False, CELLS))
    pins = [(pin.get("vcpu"), pin.get("cpuset")) for pin in root.findall("cputune/vcpupin")]
    assert pins == [("0", "5"), ("1", "1"), ("2", "6")]
    assert root.find("cputune/emulatorpin").attrib == {"cpuset": "1,5-6"}  # type: ignore[union-attr]
    assert root.find("numatune/memory").attrib == {"mode": "strict", "nodeset": "0-1"}  # type: ignore[union-attr]
    nodes = [(node.get("cellid"), node.get("mode"), node.get("nodeset")) for node in root.findall("numatune/memnode")]
    assert nodes == [("0", "strict", "0"), ("1", "strict", "1")]
    seen = [(cell.get("id"), cell.get("cpus"), cell.get("memory")) for cell in root.findall("cpu/numa/cell")]
    assert seen == [("0", "0-1", "512"), ("1", "2", "256")]


def test_vcpus_that_are_not_pinned_float_over_their_cell() -> None:
    root = ET.fromstring(domain_xml(held_spec(HeldCell(1, 2, 512)), STORE, True, CELLS))
    assert [pin.get("cpuset") for pin in root.findall("cputune/vcpupin")] == ["2-3,6-7"] * 2
    cpu = root.find("cpu")
    assert cpu is not None and cpu.get("mode") == "host-model" and cpu.find("numa") is not None


def test_a_guest_that_is_held_to_nothing_says_nothing_of_it() -> None:
    root = ET.fromstring(domain_xml(spec(), STORE, False, CELLS))
    assert [root.find(tag) for tag in ("cputune", "numatune", "cpu")] == [None] * 3


def test_the_machine_type_asked_for_is_the_guest_s() -> None:
    def machine(text: str) -> str | None:
        found = ET.fromstring(domain_xml(replace(spec(), machine_type=text), STORE, False)).find("os/type")
        return None if found is None else found.get("machine")

    assert (machine(""), machine("q35")) == ("pc", "q35")


def test_the_cells_of_a_host_are_read_or_none() -> None:
    topology = """<topology><cells num='2'>
    <cell id='0'><memory unit='KiB'>4194304</memory><cpus num='2'><cpu id='1'/><cpu id='0'/></cpus></cell>
    <cell id='1'><memory unit='KiB'>2097152</memory><cpus num='1'><cpu id='2'/></cpus></cell></cells></topology>"""
    text = CAPABILITIES.replace("<cpu><arch>", topology + "<cpu><arch>", 1)
    facts = parse_capabilities(text, DOMAIN_CAPABILITIES, False)
    assert facts.cells == (NumaCell(0, (0, 1), 4096), NumaCell(1, (2,), 2048))
    assert facts.uuid == "x"
    assert parse_capabilities(text.replace("KiB", "furlong"), DOMAIN_CAPABILITIES, False).cells == ()
    assert parse_capabilities(CAPABILITIES, DOMAIN_CAPABILITIES, False).cells == ()
