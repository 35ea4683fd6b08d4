"""Two hosts whose libvirtd listen with TLS and with what `agent join` has brought: a guest moves between them by it,
with its memory and its disks, and whoever shows anything else is refused."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from droveway.domain.certificates import DAY_US, HOST, Holder
from droveway.pki import x509
from droveway.pki.authority_files import make_files, read_files
from droveway.pki.host_files import Settings, look, wall_us
from droveway.store.fleet import declared
from lab import network
from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.demo import own_cloud
from lab.hosts import Host, obstacle
from lab.processes import wait_for
from tests import certified

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
TLS_PORT = 16514
BOOTS_S = 120.0
ETH_P_ALL, SO_RCVBUFFORCE = 3, 33  # of Linux, which the module socket does not name
HOUR_US = 3600 * 1_000_000
# libvirtd says one byte to whoever it lets in. Run inside of a host: ADDRESS, certificate, key.
KNOCK = f"""
import socket, ssl, sys
context = ssl.create_default_context(cafile="/etc/pki/CA/cacert.pem")
context.check_hostname = False
context.load_cert_chain(sys.argv[2], sys.argv[3])
try:
    with context.wrap_socket(socket.create_connection((sys.argv[1], {TLS_PORT}), timeout=10)) as there:
        print("in" if there.recv(1) == bytes([1]) else "out")
except OSError as error:
    print("out:", error)
"""


class Hosts:
    """`joined`: what each has of its certificate."""

    def __init__(self, cloud: Cloud, authority: certified.Cloud, joined: dict[str, Settings]) -> None:
        self.cloud, self.authority, self.joined = cloud, authority, joined

    def knock(self, where: str, cert: Path | str, key: Path | str) -> str:
        """What the libvirtd of h2 says to h1 that shows these; `where`: h2's name."""
        found = self.cloud.lab.host("h1").run(sys.executable, "-c", KNOCK, where, str(cert), str(key))
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()

    def opens(self, uri: str) -> tuple[bool, str]:
        """Whether libvirt on h1 connects there."""
        for _ in range(50):  # a libvirtd that was restarted listens at its unix socket first
            found = self.cloud.lab.host("h1").run("virsh", "-q", "-c", uri, "list")
            if "Connection refused" not in found.stderr:
                break
            time.sleep(0.1)
        return found.returncode == 0, found.stderr

    def restart_libvirtd(self, host: Host) -> None:
        running = host.libvirtd
        assert running is not None
        running.send(signal.SIGKILL)
        assert wait_for(lambda: not running.is_alive(), 30)
        self.cloud.lab.wait(host.name)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    home = tmp_path_factory.mktemp("ca")
    authority = certified.Cloud(home)
    patch = pytest.MonkeyPatch()
    patch.setenv("OS_CLIENT_CONFIG_FILE", str(home / "clouds.yaml"))
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    try:
        with own_cloud() as cloud:
            joined = {}
            for name in ("h1", "h2"):
                certified.dies(authority, name)
                pki = cloud.lab.directory / name / "pki"
                joined[name] = certified.join(authority, name, "--libvirt-pki", str(pki))
            cloud.instances = cloud.lab.directory / "instances"  # of each host its own: disks go along
            cloud.up(simulated=False, foreground=False, quiet=True)
            yield Hosts(cloud, authority, joined)
    finally:
        patch.undo()
        authority.stop()


class Guest:
    """One that ticks, on hosts that share no store."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.compute = hosts, Compute(hosts.cloud.port, hosts.cloud.clouds_yaml)
        self.id = self.compute.create("moved", self.compute.image_id())
        self.compute.wait(self.id, "ACTIVE")
        assert wait_for(lambda: self.ticks() > 0, BOOTS_S)

    def ticks(self) -> int:
        """Those that its console shows: each host begins it anew. None of them is missing."""
        body = {"os-getConsoleOutput": {"length": None}}
        path = f"/compute/v2.1/servers/{self.id}/action"
        return len(ticks(self.compute.must("POST", path, body)["output"]))

    @property
    def host(self) -> Host:
        return self.hosts.cloud.lab.host(self.compute.host_of(self.id))

    @property
    def other(self) -> Host:
        return next(one for one in self.hosts.cloud.lab.hosts if one.name != self.host.name)

    def migrate(self) -> dict[str, Any]:
        """How it ended."""
        self.compute.migrate(self.id)
        self.compute.wait_migrated(self.id)
        return dict(self.compute.must("GET", f"/droveway/v1/migrations/{self.id}")["migration"])


@pytest.fixture(scope="module")
def guest(hosts: Hosts) -> Iterator[Guest]:
    made = Guest(hosts)
    yield made
    made.compute.delete(made.id)
    made.compute.close()


def test_a_guest_moves_there_and_back_by_tls_alone(hosts: Hosts, guest: Guest) -> None:
    assert hosts.cloud.lab.host("h2").peer_uri == "qemu+tls://h2/system"
    assert hosts.opens("qemu+tls://h2/system") == (True, "")
    assert not hosts.opens("qemu+tcp://h2/system")[0]
    for _ in range(2):
        source = guest.host
        with overheard(source) as words:
            assert guest.migrate()["status"] == "completed"
        guest.compute.wait(guest.id, "ACTIVE")
        assert guest.host != source
        assert wait_for(lambda: guest.ticks() > 1, BOOTS_S)
        heard = b"".join(words)
        assert len(heard) > 10 << 20 and b"NBDMAGIC" in heard, "memory and disk went by"
        assert b"Linux version" not in heard, "its memory can be read"
        assert b"drive-virtio-disk" not in heard, "its disk is named to the one who listens"


@contextlib.contextmanager
def overheard(host: Host) -> Iterator[list[bytes]]:
    """Whatever goes by at that host's link to the others."""
    with network.inside(host.netns):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
    ear.bind(("eth0", ETH_P_ALL))
    ear.settimeout(0.2)
    words, ends = list[bytes](), threading.Event()

    def listen() -> None:
        while not ends.is_set():
            with contextlib.suppress(TimeoutError):
                words.append(ear.recv(1 << 17))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield words
    finally:
        ends.set()
        thread.join()
        ear.close()


@pytest.mark.parametrize(("end", "wrong"), [("server", "expired"), ("client", "of another CA")])
def test_a_guest_stays_where_a_stream_cannot_be_trusted(
    hosts: Hosts, guest: Guest, tmp_path: Path, end: str, wrong: str
) -> None:
    """Its destination shows a certificate that has expired; or its source one of another CA."""
    source, at = guest.host, guest.other if end == "server" else guest.host
    streams = hosts.cloud.lab.directory / at.name / "pki" / "libvirt-migrate"
    files = (f"{end}-cert.pem", f"{end}-key.pem")
    kept = {name: (streams / name).read_text() for name in files}
    try:
        for name, text in zip(files, signed(hosts, tmp_path, at.name, wrong), strict=True):
            (streams / name).write_text(text)
        ended = guest.migrate()
        assert ended["status"] == "error" and "certificate" in ended["error"].lower(), ended
        guest.compute.wait(guest.id, "ACTIVE")
        assert guest.host == source
    finally:
        for name, text in kept.items():
            (streams / name).write_text(text)
    assert guest.migrate()["status"] == "completed"
    guest.compute.wait(guest.id, "ACTIVE")


def signed(hosts: Hosts, directory: Path, name: str, wrong: str) -> tuple[str, str]:
    """(certificate, key) in the name of that host."""
    (own,) = read_files(Path(hosts.authority.config.ca_directory)).values()
    by = make_files(directory / "ca", wall_us()) if wrong == "of another CA" else own
    begins_us = wall_us() - (2 * DAY_US if wrong == "expired" else HOUR_US)
    key = x509.make_key()
    public = x509.public_key(x509.request(key, name))
    return x509.sign(by, public, "77", name, Holder(HOST, name).uri, (name,), begins_us, begins_us + DAY_US), key


@pytest.mark.parametrize("wrong", ["", "of another CA", "expired"])
def test_libvirt_takes_only_what_is_of_this_ca_and_valid(hosts: Hosts, tmp_path: Path, wrong: str) -> None:
    made, key = signed(hosts, tmp_path, "h1", wrong)
    (tmp_path / "cert.pem").write_text(made)
    (tmp_path / "key.pem").write_text(key)
    said = hosts.knock("h2", tmp_path / "cert.pem", tmp_path / "key.pem")
    assert (said == "in") == (wrong == ""), said


def test_a_host_in_the_name_of_another(hosts: Hosts) -> None:
    """h2 shows what h1 has joined with: its own key, and a certificate that is good for another name."""
    assert not hosts.opens(f"qemu+tls://{hosts.cloud.lab.host('h2').address}/system")[0]  # no operator gave it to h2
    pki, other = hosts.cloud.lab.directory / "h2" / "pki", hosts.cloud.lab.directory / "h1" / "pki"
    files = ("libvirt/servercert.pem", "libvirt/private/serverkey.pem")
    kept = {name: (pki / name).read_text() for name in files}
    try:
        for name in files:
            (pki / name).write_text((other / name).read_text())
        hosts.restart_libvirtd(hosts.cloud.lab.host("h2"))
        is_open, said = hosts.opens("qemu+tls://h2/system")
        assert (is_open, "h2" in said) == (False, True), said
        assert "certificate" in said.lower(), said
    finally:
        for name, text in kept.items():
            (pki / name).write_text(text)
        hosts.restart_libvirtd(hosts.cloud.lab.host("h2"))
    assert hosts.opens("qemu+tls://h2/system") == (True, "")


def test_a_host_that_was_declared_gone(hosts: Hosts) -> None:
    """h2's agent brings what was revoked; its libvirtd reads it without a restart, and lets h1 in no more."""
    authority, h2 = hosts.authority, hosts.cloud.lab.host("h2")
    current = Path(hosts.joined["h1"].tls_path) / "current"
    assert hosts.knock("h2", current / "cert.pem", current / "key.pem") == "in"
    settings = hosts.joined["h2"]._replace(
        renewed_command=tuple(h2.command("virt-admin", "-c", "libvirtd:///system", "server-update-tls", "libvirtd"))
    )
    for change, is_in in (
        (lambda: authority.run(declared.declare_gone, "h1", "its board is broken"), False),
        (lambda: authority.run(declared.readmit, "h1"), True),
    ):
        change()
        authority.look()
        assert look(settings).trouble == ""
        said = hosts.knock("h2", current / "cert.pem", current / "key.pem")
        assert (said == "in") == is_in, said
        assert hosts.opens("qemu+tls://h2/system")[0] == is_in
