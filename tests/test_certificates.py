"""The private CA: a host joins with a certificate, renews it, and is refused with any other one."""

from __future__ import annotations

import base64
import json
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequestBuilder, Name, NameAttribute
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from droveway.cli.certificates import host_certificates
from droveway.cli.hosts import host as host_command
from droveway.cli.joining import COMMANDS
from droveway.control.liveness import why
from droveway.domain.certificates import DAY_US, HOST, Holder
from droveway.domain.liveness import Timing
from droveway.domain.why import CloudFacts, explain
from droveway.pki import x509
from droveway.pki.authority_files import make_files, read_files
from droveway.pki.host_files import Settings, lay_out, look, wall_us
from droveway.store.fleet import certificates, declared, services
from droveway.store.schema import certificates as table
from tests.certified import Cloud, ask, dies, done, join, revoked_serials, rows, run, serving, shown, token_of

HOUR_US = 3600 * 1_000_000


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    yield from serving(tmp_path, monkeypatch)


# -- joining ----------------------------------------------------------------------------------------------------------
def test_joining_brings_a_certificate_and_the_key_stays(cloud: Cloud) -> None:
    settings = join(cloud, "h7", addresses=("10.0.0.7", "H7.cloud.example"))
    facts = x509.facts(shown(settings))
    assert facts.uri == "spiffe://droveway/host/h7"
    assert facts.names == ("h7", "10.0.0.7", "h7.cloud.example")
    assert 89 * DAY_US < facts.not_after_us - wall_us() <= 90 * DAY_US
    assert facts.not_before_us <= wall_us() - HOUR_US + 60_000_000  # a clock that is behind takes it at once
    home = Path(settings.tls_path)
    for name in ("current/key.pem", "current/cert.pem", "ca.pem", "revoked.pem"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
    key = shown(settings, "key")
    assert key not in json.dumps(cloud.run(lambda tx: rows(tx, table)), default=str)
    assert x509.fits(key, shown(settings))
    assert settings.renew_url == f"https://127.0.0.1:{cloud.agents_port}"
    assert ask(cloud, settings, "h7")[0] == 200


def test_names_are_controls_and_not_the_requests(cloud: Cloud, tmp_path: Path) -> None:
    key = x509.make_key()
    token = token_of(done(COMMANDS["token"], "create", "--host", "h7"))
    body = json.dumps({"join": {"token": token, "host": "h7", "csr": x509.request(key, "h1")}}).encode()
    request = urllib.request.Request(f"{cloud.url}/droveway/v1/join", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        told = json.loads(reply.read())["join"]["certificate"]
    facts = x509.facts(told["certificate"])
    assert (facts.uri, facts.names) == ("spiffe://droveway/host/h7", ("h7",))


@pytest.mark.parametrize(
    "csr",
    ["", "nonsense", "x" * 20_000, "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"],
)
def test_a_request_that_is_none_uses_no_token_up(cloud: Cloud, csr: str) -> None:
    token = token_of(done(COMMANDS["token"], "create", "--host", "h7"))
    body = json.dumps({"join": {"token": token, "host": "h7", "csr": csr}}).encode()
    request = urllib.request.Request(f"{cloud.url}/droveway/v1/join", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value:
        assert refused.value.code == 400
        assert b"csr" in refused.value.read()
    file = cloud.home / "h7.toml"
    done(
        COMMANDS["join"],
        "--url",
        cloud.url,
        "--token",
        token,
        "--host",
        "h7",
        "--config",
        str(file),
        "--state",
        str(cloud.home / "h7"),
    )


def test_only_whoever_has_the_key_gets_a_certificate_for_it() -> None:
    """A request that its key has not signed as it stands, and keys that are not of the one kind."""
    own = ec.generate_private_key(ec.SECP256R1())
    name = Name([NameAttribute(NameOID.COMMON_NAME, "h7")])
    good = CertificateSigningRequestBuilder().subject_name(name).sign(own, hashes.SHA256())
    assert x509.public_key(good.public_bytes(Encoding.PEM).decode())
    changed = good.public_bytes(Encoding.DER).replace(b"h7", b"h8", 1)
    text = base64.b64encode(changed).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(x509.WrongPem, match="its own key has not signed it"):
        x509.public_key(pem)
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        wrong = CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
        with pytest.raises(x509.WrongPem, match="P-256"):
            x509.public_key(wrong.public_bytes(Encoding.PEM).decode())


def test_an_address_is_one_hosts_alone(cloud: Cloud) -> None:
    join(cloud, "h7", addresses=("10.0.0.7",))
    for host, address in (("h8", "10.0.0.7"), ("h8", "h7"), ("h8", "h1")):  # h1 is there, and never joined
        token = token_of(done(COMMANDS["token"], "create", "--host", host, "--address", address))
        refused = run(
            COMMANDS["join"],
            "--url",
            cloud.url,
            "--token",
            token,
            "--host",
            host,
            "--config",
            str(cloud.home / "x.toml"),
            "--state",
            str(cloud.home / "x"),
        )
        assert (refused.exit_code, f"{address} is the name of host h" in refused.output) == (1, True), refused.output
        assert not (cloud.home / "x.toml").exists()
    for wrong in ("127.0.0.1", "localhost", "a b", "*.example", "169.254.0.1"):
        refused = run(COMMANDS["token"], "create", "--host", "h9", "--address", wrong)
        assert (refused.exit_code, "addresses" in refused.output) == (1, True), refused.output


def test_libvirt_finds_it_and_files_of_others_are_left(cloud: Cloud, tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    settings = join(cloud, "h7", "--libvirt-pki", str(pki))
    assert x509.facts((pki / "libvirt" / "servercert.pem").read_text()).names == ("h7",)
    assert (pki / "libvirt" / "clientcert.pem").read_text() == (pki / "libvirt" / "servercert.pem").read_text()
    for key in ("server", "client"):
        path = pki / "libvirt" / "private" / f"{key}key.pem"
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (shown(settings, "key"), 0o600)
    assert x509.fingerprints((pki / "CA" / "cacert.pem").read_text())
    assert "X509 CRL" in (pki / "CA" / "cacrl.pem").read_text()
    other = tmp_path / "other" / "libvirt" / "servercert.pem"
    other.parent.mkdir(parents=True)
    other.write_text("somebody's")
    token = token_of(done(COMMANDS["token"], "create", "--host", "h8"))
    words = (
        "--url",
        cloud.url,
        "--token",
        token,
        "--host",
        "h8",
        "--config",
        str(tmp_path / "h8.toml"),
        "--state",
        str(tmp_path / "h8"),
    )
    refused = run(COMMANDS["join"], *words, "--libvirt-pki", str(tmp_path / "other"))
    assert (refused.exit_code, "not of this program" in refused.output) == (1, True), refused.output
    assert other.read_text() == "somebody's"
    told = done(COMMANDS["join"], *words, "--peer-uri", "qemu+tls://10.0.0.8/system")  # the token is still good
    assert "names h8 and not 10.0.0.8" in told
    assert "--address 10.0.0.8" in told


def test_what_a_host_has_of_its_own_for_its_streams_stays_and_holds_no_renewal_up(tmp_path: Path) -> None:
    home, pki = tmp_path / "tls", tmp_path / "pki"
    (home / "current").mkdir(parents=True)
    for name in ("current/cert.pem", "current/key.pem", "ca.pem", "revoked.pem"):
        (home / name).write_text("first")
    settings, own = Settings("h1", str(home), "", str(pki)), pki / "libvirt-migrate" / "client-cert.pem"
    assert lay_out(settings) and not lay_out(settings)
    own.write_text("of the operator")
    (home / "current" / "cert.pem").write_text("renewed")
    assert lay_out(settings) and not lay_out(settings)
    assert own.read_text() == "of the operator"
    assert "first" in (own.parent / "server-cert.pem").read_text()
    assert "renewed" in (pki / "libvirt" / "servercert.pem").read_text()


# -- renewing ---------------------------------------------------------------------------------------------------------
def test_renewed_at_two_thirds_and_not_before(cloud: Cloud) -> None:
    settings = join(cloud, "h7")
    first = shown(settings), shown(settings, "key")
    assert not look(settings).renewed
    assert (shown(settings), shown(settings, "key")) == first
    found = look(settings, lambda: wall_us() + 61 * DAY_US)
    assert found.renewed
    assert x509.facts(shown(settings)).names == x509.facts(first[0]).names
    assert shown(settings, "key") != first[1]
    assert x509.fits(shown(settings, "key"), shown(settings))
    assert "clock is" in found.trouble  # this clock is two months ahead
    assert ask(cloud, settings, "h7")[0] == 200
    states = [one["state"] for one in json.loads(done(host_certificates, "--all", "--json")) if one["name"] == "h7"]
    assert states == ["valid", "valid"]  # the one before is good until it ends: somebody may still use it


def test_what_was_renewed_too_often_ends(cloud: Cloud) -> None:
    settings = join(cloud, "h7")
    for _ in range(certificates.LIVE_MAX):
        assert look(settings, renews_now=True).renewed
    live = [one for one in json.loads(done(host_certificates, "--all", "--json")) if one["state"] == "valid"]
    assert len(live) == certificates.LIVE_MAX


def test_a_host_that_renews_without_end_is_held_up(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one that was replaced stands in the list that every host fetches each hour."""
    monkeypatch.setattr(certificates, "A_DAY_MAX", 3)
    settings, other = join(cloud, "h7"), join(cloud, "h8")
    for _ in range(2):
        assert look(settings, renews_now=True).renewed
    held_up = look(settings, renews_now=True)
    assert (held_up.renewed, "was given 3 certificates within a day" in held_up.trouble) == (False, True)
    assert ask(cloud, settings, "h7")[0] == 200, "what it has is good"
    assert look(other, renews_now=True).renewed, "each host has a bound of its own"
    cloud.world.clock.ahead_us = DAY_US + HOUR_US
    assert look(settings, renews_now=True).renewed


def test_what_a_host_says_it_trusts_is_kept_where_there_is_such_a_ca(cloud: Cloud) -> None:
    settings = join(cloud, "h7")
    (own,) = read_files(Path(cloud.config.ca_directory))
    serial = x509.facts(shown(settings)).serial
    cloud.run(certificates.trusts, serial, ["f" * 64, own, "0" * 64])
    (row,) = [one for one in cloud.run(certificates.listing) if one["serial"] == serial]
    assert row["trusts"] == [own]


def test_without_a_token_no_request_is_verified(cloud: Cloud) -> None:
    body = json.dumps({"join": {"token": "none", "host": "h7", "csr": "nonsense"}}).encode()
    request = urllib.request.Request(f"{cloud.url}/droveway/v1/join", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value:
        assert (refused.value.code, b"not known here" in refused.value.read()) == (401, True)


def test_an_api_that_is_away_and_one_that_is_another(cloud: Cloud) -> None:
    settings = join(cloud, "h7")
    away = look(settings._replace(renew_url="https://127.0.0.1:1"))
    assert "and was not renewed: https://127.0.0.1:1 does not answer" in away.trouble
    named = look(settings._replace(renew_url=f"https://localhost:{cloud.agents_port}"))
    assert "is not accepted" in named.trouble  # the name of nobody there
    public = look(settings._replace(renew_url=f"https://127.0.0.1:{cloud.port}"))
    assert "does not answer" in public.trouble
    found = look(settings, lambda: wall_us() + 91 * DAY_US)
    assert "it has expired" in found.trouble
    early = look(settings, lambda: wall_us() - 2 * HOUR_US)
    assert "not valid yet by this machine's clock" in early.trouble


def test_late_ones_are_said_well_before_the_end(cloud: Cloud) -> None:
    join(cloud, "h7")
    assert cloud.run(certificates.late) == {}
    cloud.world.clock.ahead_us = 68 * DAY_US
    late = cloud.run(certificates.late)
    assert "should have been renewed at" in late["h7"]
    cloud.world.clock.ahead_us = 91 * DAY_US
    assert "ended at" in cloud.run(certificates.late)["h7"]


def test_late_ones_stand_in_the_lists_and_in_why(cloud: Cloud) -> None:
    dies(cloud, "h1")
    join(cloud, "h1")
    now_us = wall_us()
    cloud.world.clock.ahead_us = 68 * DAY_US
    shown_of = {one["name"]: one["warning"] for one in json.loads(done(host_command, "list", "--json"))}
    assert ("should have been renewed at" in shown_of["h1"], shown_of["h2"]) == (True, "")
    row = cloud.run(why._read, "h1", "nova-compute")
    timing = Timing(1.0, 3.0)
    told = explain(row, None, CloudFacts(now_us, 0.0, timing, "nats", "control", 0.0, 3.0))
    (said,) = [one for one in told.evidence if one.about == "certificate"]
    assert ("should have been renewed at" in said.reason, said.is_bad) == (True, True)


# -- who is refused ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrong", ["of another CA", "expired", "not valid yet", "none"])
def test_tls_lets_nobody_in_with(cloud: Cloud, tmp_path: Path, wrong: str) -> None:
    settings = join(cloud, "h7")
    (own,) = read_files(Path(cloud.config.ca_directory)).values()
    by = make_files(tmp_path / "other-ca", wall_us()) if wrong == "of another CA" else own
    begins_us = wall_us() + {"expired": -2 * DAY_US, "not valid yet": HOUR_US}.get(wrong, -HOUR_US)
    cert, key = forged(tmp_path, by, begins_us, begins_us + DAY_US)
    with capture_logs() as logs:
        status, said = ask(cloud, settings, "h7", "none" if wrong == "none" else cert, key)
    assert status == 0, said
    words = {"of another CA": "issuer", "expired": "expired", "not valid yet": "not yet valid", "none": "PEER_DID_NOT"}
    assert [words[wrong] in one["because"] for one in logs if one["event"] == "TLS refused"] == [True], logs
    if wrong != "none":
        home = Path(settings.tls_path) / "current"
        (home / "cert.pem").write_text(Path(cert).read_text())
        (home / "key.pem").write_text(Path(key).read_text())
        found = look(settings, lambda: begins_us + HOUR_US)  # by the clock of that machine it is valid
        assert "ended the connection when it saw this host's certificate" in found.trouble


def forged(directory: Path, by: x509.Authority, begins_us: int, ends_us: int) -> tuple[str, str]:
    key = x509.make_key()
    public = x509.public_key(x509.request(key, "h7"))
    made = x509.sign(by, public, "77", "h7", Holder(HOST, "h7").uri, ("h7",), begins_us, ends_us)
    (directory / "cert.pem").write_text(made)
    (directory / "key.pem").write_text(key)
    return str(directory / "cert.pem"), str(directory / "key.pem")


def test_one_that_is_not_in_the_store(cloud: Cloud, tmp_path: Path) -> None:
    settings = join(cloud, "h7")
    (own,) = read_files(Path(cloud.config.ca_directory)).values()
    status, said = ask(cloud, settings, "h7", *forged(tmp_path, own, wall_us() - HOUR_US, wall_us() + DAY_US))
    assert (status, "not known here" in said) == (401, True)


def test_another_hosts_name(cloud: Cloud) -> None:
    settings, other = join(cloud, "h7"), join(cloud, "h8")
    status, said = ask(cloud, settings, "h8")
    assert (status, "is that of host h7, not of host h8" in said) == (403, True)
    assert ask(cloud, other, "h8")[0] == 200


def test_the_public_listener_takes_nobody_for_a_host(cloud: Cloud) -> None:
    request = urllib.request.Request(
        f"{cloud.url}/droveway/v1/hosts/h7/certificate", b'{"certificate": {}}', {"content-type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value:
        assert refused.value.code == 401


def test_revoked_with_the_host_and_good_again_with_it(cloud: Cloud) -> None:
    dies(cloud, "h2")
    settings = join(cloud, "h2")
    cloud.run(declared.declare_gone, "h2", "its board is broken")
    cloud.look()
    status, said = ask(cloud, settings, "h2")
    assert (status, "was revoked (certificate hold)" in said) == (401, True)
    assert "was revoked" in look(settings).trouble
    serial = x509.facts(shown(settings)).serial
    assert serial in revoked_serials(cloud)
    cloud.run(declared.readmit, "h2")
    cloud.look()
    assert ask(cloud, settings, "h2")[0] == 200
    assert serial not in revoked_serials(cloud)


def test_revoked_when_its_service_is_deleted_and_when_it_joins_anew(cloud: Cloud) -> None:
    dies(cloud, "h2")
    settings = join(cloud, "h2")
    (service,) = [row for row in cloud.run(services.list_all) if row["host"] == "h2"]
    old = cloud.home / "old"
    Path(settings.tls_path).rename(old)
    (cloud.home / "h2" / "agent.toml").unlink()
    again = join(cloud, "h2")  # on a new machine
    status, said = ask(cloud, settings._replace(tls_path=str(old)), "h2")
    assert (status, "superseded" in said) == (401, True)
    assert ask(cloud, again, "h2")[0] == 200
    cloud.run(services.register, "h2", "droveway-scripts", "internal")
    cloud.run(services.remove, service["uuid"])
    assert ask(cloud, again, "h2")[0] == 200  # it has another service still
    (last,) = [row for row in cloud.run(services.list_all) if row["host"] == "h2"]
    cloud.run(services.remove, last["uuid"])
    assert ask(cloud, again, "h2")[0] == 401
    join(cloud, "h9", addresses=("h2.example",))
    token = done(COMMANDS["token"], "create", "--host", "h9", "--address", "h2")  # its name is free again
    assert "join token" in token
