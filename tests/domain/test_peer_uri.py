"""What a host says of where it is and of its CPU: an address and plain words, whatever it tries."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.domain.cpu_xml import WrongCpu, canonical
from droveway.domain.model import MigrationEndpoint
from droveway.domain.peer_uri import WrongUri, checked, data_uri, endpoint_mismatch, peer_uri

GOOD = (
    ("qemu+tls://h1/system", "tcp://h1"),
    ("qemu+tcp://10.0.0.7/system", "tls://10.0.0.7:49152"),
    ("qemu+tcp://[2001:db8::7]:16509/system", "tcp://[2001:db8::7]"),
    ("qemu+tls://node-7.rack_1.example.:16514/system", "tcp://node-7.rack_1.example."),
)
WRONG = (
    "qemu+ext://h2/system?command=/tmp/x",
    "qemu+ssh://h2/system",
    "qemu+ssh://root@h2/system?command=x",
    "qemu+libssh2://h2/system",
    "qemu+unix:///system?socket=/tmp/s",
    "qemu:///system",
    "qemu://h2/system",
    "qemu+tls://h2/system?pkipath=/tmp",
    "qemu+tls://h2/system?no_verify=1",
    "qemu+tls://h2/system?",
    "",
    "qemu+tls://h2/system#x",
    "qemu+tls://root@h2/system",
    "qemu+tls://h2/session",
    "qemu+tls://h2/system/",
    "qemu+tls://h2",
    "qemu+tls:///system",
    "qemu+tls://h2:/system",
    "qemu+tls://h2:99999/system",
    "qemu+tls://-h/system",
    "qemu+tls://h2/system\n",
    "\nqemu+tls://h2/system",
    "qemu+tls://h2 /system",
    "qemu+tls://h%322/system",
    "xen+tls://h2/system",
    "qemu+tls://[::1%eth0]/system",
    "qemu+tls://[h2]/system",
    "qemu+tls://1.2.3/system",
    "qemu+tls://0x7f.1/system",
    "qemu+tls://2130706433/system",
    "QEMU+TLS://h2/system",
    "qemu+tls://hä/system",
    "qemu+tls://h2/system\0",
)


@pytest.mark.parametrize(("peer", "data"), GOOD)
def test_what_real_hosts_say_passes_as_it_stands(peer: str, data: str) -> None:
    assert checked(MigrationEndpoint("h", peer, data)) == (peer, data)


@pytest.mark.parametrize("uri", WRONG)
def test_every_other_transport_user_query_and_path_is_refused(uri: str) -> None:
    with pytest.raises(WrongUri, match="without user, query or other path"):
        peer_uri(uri)
    with pytest.raises(WrongUri):
        checked(MigrationEndpoint("h", uri, "tcp://h2"))


@pytest.mark.parametrize("uri", ["unix:///tmp/s", "rdma://h2", "exec:id", "tcp://h2/x", "tcp://u@h2", "tcp:h2", "fd:3"])
def test_a_guests_memory_goes_to_an_address_alone(uri: str) -> None:
    with pytest.raises(WrongUri, match="must be tcp://ADDRESS or tls://ADDRESS"):
        data_uri(uri)


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
        "224.0.0.1",
        "169.254.169.254",
        "LOCALHOST.",
    ],
)
def test_no_host_is_sent_to_itself(address: str) -> None:
    for peer, data in ((f"qemu+tcp://{address}/system", "tcp://h2"), ("qemu+tcp://h2/system", f"tcp://{address}")):
        with pytest.raises(WrongUri, match="no address of another host"):
            checked(MigrationEndpoint("h2", peer, data))


def test_a_simulated_host_is_never_handed_to_libvirt() -> None:
    assert peer_uri("sim://h2").address == "h2"
    with pytest.raises(WrongUri, match="simulated"):
        checked(MigrationEndpoint("h2", "sim://h2", "sim://h2"))


@given(st.one_of(st.text(max_size=60), st.from_regex(r"qemu\+(tls|tcp|ext)://[^\n]{0,20}/system[^\n]{0,9}")))
def test_nothing_passes_but_what_the_grammar_says(text: str) -> None:
    try:
        found = peer_uri(text)
    except WrongUri:
        return
    assert found.transport in {"tls", "tcp", "sim"}
    assert not set(found.address) & set("/?#@% \n[]")


def test_a_host_is_where_its_report_said() -> None:
    there = MigrationEndpoint("h2", "qemu+tls://10.0.0.2/system", "tcp://10.0.0.2")
    assert endpoint_mismatch(there, "h2", there.peer_uri, "10.0.0.2") is None
    assert endpoint_mismatch(there, "h2", "", "") is None
    for host, uri, address, words in (
        ("h3", there.peer_uri, "10.0.0.2", "answers in the name of 'h2'"),
        ("h2", "qemu+tls://10.0.0.3/system", "10.0.0.2", "in its last report it was at qemu+tls://10.0.0.3/system"),
        ("h2", there.peer_uri, "10.0.0.3", "in its last report its address was 10.0.0.3"),
    ):
        assert words in str(endpoint_mismatch(there, host, uri, address))
    evil = MigrationEndpoint("h2", "qemu+ext://10.0.0.2/system?command=x", "tcp://10.0.0.2")
    for older in (("qemu+ssh://h2/system", ""), ("qemu+tcp://h2/system?x=1", ""), ("", "0x7f.1")):
        assert "ask again when it has reported anew" in str(endpoint_mismatch(there, "h2", *older))
    assert "cannot take guests of other hosts" in str(endpoint_mismatch(evil, "h2", there.peer_uri, "10.0.0.2"))


# -- the CPU ----------------------------------------------------------------------------------------------------------
CPU = (
    '<cpu mode="custom" match="exact"><model fallback="forbid">EPYC-Rome</model><vendor>AMD</vendor>'
    '<feature policy="require" name="x2apic" /></cpu>'
)


def test_a_cpu_passes_as_plain_words() -> None:
    assert canonical(CPU) == CPU
    assert canonical("") == ""
    assert canonical("<cpu><arch> x86_64\n</arch></cpu>") == "<cpu><arch>x86_64</arch></cpu>"


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE cpu [<!ENTITY a "b">]><cpu><model>&a;</model></cpu>',
        '<!DOCTYPE cpu SYSTEM "file:///etc/passwd"><cpu/>',
        "<?xml-stylesheet href='x'?><cpu/>",
        "<cpu><numa/></cpu>",
        "<cpu><model><b/></model></cpu>",
        "<cpu><cpu/></cpu>",
        '<cpu xmlns:x="y" x:a="b"/>',
        "<domain/>",
        "<cpu>",
        "cpu",
        "<cpu><model>a&#0;</model></cpu>",
        "<cpu><model>a;b</model></cpu>",
        '<cpu mode="a&#10;b"/>',
        "<cpu><model>\ud800</model></cpu>",
        "<cpu>" + "<arch/>" * 2049 + "</cpu>",
        "<cpu" + " " * 70_000 + "/>",
    ],
)
def test_everything_else_in_a_cpu_is_refused(text: str) -> None:
    with pytest.raises(WrongCpu, match="its description of its CPU"):
        canonical(text)


@given(st.text(alphabet="<>&;!?/=\"' cpumodelarch#x0[]", max_size=80))
def test_what_passes_is_a_cpu(text: str) -> None:
    try:
        found = canonical(text)
    except WrongCpu:
        return
    assert found == "" or ET.fromstring(found).tag == "cpu"
