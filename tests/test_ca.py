"""The private CA in the hands of an operator: another one takes over, services get certificates, APIs share it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from droveway.cli.certificates import ca, host_certificates
from droveway.cli.joining import COMMANDS
from droveway.config.file import load
from droveway.domain.faults import WrongConfiguration
from droveway.pki import x509
from droveway.pki.authority_files import read_files
from droveway.pki.host_files import look
from droveway.process import agents_listener, host_certificate
from droveway.store.fleet import certificates
from lab.nodes import free_ports
from tests.certified import Cloud, ask, done, join, revoked_serials, run, serving, shown, token_of


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    yield from serving(tmp_path, monkeypatch)


# -- another CA -------------------------------------------------------------------------------------------------------
def test_a_ca_is_replaced_while_both_are_trusted(cloud: Cloud) -> None:
    settings = join(cloud, "h7")
    directory = Path(cloud.config.ca_directory)
    (old,) = read_files(directory)
    assert "1/1 hosts" not in done(ca, "show")  # nobody has said yet what it trusts
    look(settings)
    done(ca, "rotate", "--directory", str(directory))
    (new,) = set(read_files(directory)) - {old}
    assert state_of(old) == ("signing", 1, 1)
    assert state_of(new) == ("trusted", 0, 0)
    assert not look(settings).renewed
    assert state_of(new) == ("trusted", 0, 1)
    assert "signs; let another one" in run(ca, "retire", old[:8]).output
    done(ca, "use", new[:8])
    cloud.look()
    early = run(ca, "retire", old[:8])
    assert (early.exit_code, "of 1 hosts and services" in early.output) == (1, True), early.output
    assert look(settings).renewed  # it need not wait for its two thirds
    assert state_of(new) == ("signing", 1, 0)
    assert ask(cloud, settings, "h7")[0] == 200
    done(ca, "retire", old[:8])
    cloud.look()
    assert not look(settings).trouble
    assert x509.fingerprints((Path(settings.tls_path) / "ca.pem").read_text()) == [new]
    assert "was retired" in run(ca, "use", old[:8]).output


def state_of(fingerprint: str) -> tuple[str, int, int]:
    found = json.loads(done(ca, "show", "--json"))["authorities"]
    (one,) = [each for each in found if each["fingerprint"] == fingerprint]
    return one["state"], one["signed"], one["trusted_by"]


def test_a_certificate_of_the_retired_ca_is_refused(cloud: Cloud) -> None:
    settings = join(cloud, "h7")
    directory = Path(cloud.config.ca_directory)
    (old,) = read_files(directory)
    done(ca, "rotate", "--directory", str(directory))
    (new,) = set(read_files(directory)) - {old}
    done(ca, "use", new)
    done(ca, "retire", old, "--force")
    cloud.look()
    assert ask(cloud, settings, "h7")[0] == 0


def test_a_service_that_is_no_host(cloud: Cloud, tmp_path: Path) -> None:
    told = done(
        ca,
        "issue",
        "nats-1",
        "--address",
        "nats-1.example",
        "--address",
        "127.0.0.1",
        "--directory",
        str(tmp_path / "nats"),
    )
    facts = x509.facts((tmp_path / "nats" / "cert.pem").read_text())
    assert (facts.uri, facts.names) == ("spiffe://droveway/service/nats-1", ("nats-1.example", "127.0.0.1"))
    assert facts.serial in told
    refused = run(ca, "issue", "nats-2", "--address", "nats-1.example", "--directory", str(tmp_path / "x"))
    assert (refused.exit_code, "is the name of service nats-1" in refused.output) == (1, True), refused.output
    settings = join(cloud, "h7")
    assert "is the name of host h7" in run(ca, "issue", "x", "--address", "h7", "--directory", str(tmp_path)).output
    status, said = ask(cloud, settings, "h7", *(str(tmp_path / "nats" / f"{one}.pem") for one in ("cert", "key")))
    assert (status, "is that of service nats-1, not of host h7" in said) == (403, True)
    done(ca, "revoke", facts.serial)
    assert "key compromise" in done(host_certificates, "--all")
    out = tmp_path / "crl.pem"
    done(ca, "crl", "--out", str(out))
    cloud.look()
    assert facts.serial in revoked_serials(cloud)
    assert out.read_text() == done(ca, "crl")


def test_all_certificates_of_a_host_are_revoked_at_once(cloud: Cloud) -> None:
    """Held ones too, so that readmitting the host does not make them good again; no other host's."""
    settings, other = join(cloud, "h71"), join(cloud, "h7")
    assert look(settings, renews_now=True).renewed
    cloud.run(certificates.hold, "h71")
    for words in ((), ("1f3c", "--host", "h71")):
        refused = run(ca, "revoke", *words)
        assert (refused.exit_code, "SERIAL" in refused.output) == (2, True)
    told = done(ca, "revoke", "--host", "h71")
    assert told.count("of host h71 is revoked") == 2 and "droveway host declare-gone h71" in told
    cloud.run(certificates.release, "h71")
    cloud.look()
    assert ask(cloud, settings, "h71")[0] == 401
    assert ask(cloud, other, "h7")[0] == 200
    shown_states = [one["state"] for one in json.loads(done(ca, "list", "--host", "h71", "--all", "--json"))]
    assert shown_states == ["revoked", "revoked"]
    assert "valid" not in done(ca, "list", "--host", "h71") and "key compromise" in done(ca, "list", "--host", "h71")
    assert done(ca, "list") == done(host_certificates)
    again = run(ca, "revoke", "--host", "h71")
    assert (again.exit_code, "has no certificate that could be revoked" in again.output) == (1, True)


# -- several APIs -----------------------------------------------------------------------------------------------------
def test_an_api_without_the_key_does_not_start(cloud: Cloud, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    port, agents_port = free_ports(2)
    other.write_text(
        f'state_path = "{tmp_path}/other"\n[api]\nlisten = "127.0.0.1:{port}"\n'
        f'agents_listen = "127.0.0.1:{agents_port}"\n'
    )
    opened = agents_listener.opened(load(other), cloud.world.api)
    with pytest.raises(WrongConfiguration, match="does not hold the key of the CA"):
        cloud.on_loop(opened)
    (tmp_path / "other").mkdir()
    shutil.copytree(cloud.config.ca_directory, tmp_path / "other" / "ca")
    for listener in cloud.on_loop(agents_listener.opened(load(other), cloud.world.api)):
        listener.close()
    (key,) = (tmp_path / "other" / "ca").glob("*.key")
    key.chmod(0o640)
    with pytest.raises(WrongConfiguration, match="chmod 600"):
        cloud.on_loop(agents_listener.opened(load(other), cloud.world.api))


def test_an_api_signs_nothing_without_the_key_of_the_ca_that_signs(cloud: Cloud, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done(ca, "rotate", "--directory", str(elsewhere))
    (new,) = read_files(elsewhere)
    refused = run(ca, "use", new[:8])
    assert (refused.exit_code, "does not hold the key of the CA" in refused.output) == (1, True), refused.output
    cloud.run(certificates.use, new)  # another API, which has it
    token = token_of(done(COMMANDS["token"], "create", "--host", "h7"))
    words = ("--url", cloud.url, "--token", token, "--host", "h7", "--config", str(tmp_path / "h7.toml"))
    refused = run(COMMANDS["join"], *words, "--state", str(tmp_path / "h7"))
    assert (refused.exit_code, "does not hold the key of the CA" in refused.output) == (1, True), refused.output
    for path in elsewhere.iterdir():
        shutil.copy(path, cloud.config.ca_directory)
    done(COMMANDS["join"], *words, "--state", str(tmp_path / "h7"))  # the token was not used up


def test_without_an_agents_listener_joining_goes_on_without(cloud: Cloud) -> None:
    cloud.world.api.certifier = None
    token = token_of(done(COMMANDS["token"], "create", "--host", "h7"))
    file = cloud.home / "agent.toml"
    told = done(
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
    assert "warning: this API hands out no certificates" in told
    assert load(file, "agent").host_named("h7").tls_path == ""
    refused = run(COMMANDS["renew"], "--config", str(file))
    assert (refused.exit_code, "joined without one" in refused.output) == (1, True)


def test_the_agents_command_and_its_process(cloud: Cloud) -> None:
    settings = join(cloud, "h7")
    file = cloud.home / "h7" / "agent.toml"
    first = shown(settings)
    assert "looked at: the certificate of host h7 ends at" in done(COMMANDS["renew"], "--config", str(file))
    assert shown(settings) == first
    assert "renewed: the certificate" in done(COMMANDS["renew"], "--config", str(file), "--now")
    assert shown(settings) != first
    reason, trouble, renewed = asyncio.run(host_certificate.look(load(file, "agent").host_named("h7")))
    assert ("looked at" in reason, trouble, renewed) == (True, "", False)
    (Path(settings.tls_path) / "current").unlink()
    broken = run(COMMANDS["renew"], "--config", str(file))
    assert (broken.exit_code, "cannot be read" in broken.output) == (1, True)
    _, trouble, _ = asyncio.run(host_certificate.look(load(file, "agent").host_named("h7")))
    assert "cannot be read" in trouble


def test_a_host_without_a_hypervisor_has_one_too(cloud: Cloud) -> None:
    settings = join(cloud, "h7", "--service", "droveway-scripts")
    assert ask(cloud, settings, "h7")[0] == 200
