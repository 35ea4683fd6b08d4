"""Who a joining host is at the broker: of its own, and what is left to do is said; or everybody, with a warning."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from droveway.api.wiring import Identity
from droveway.config.file import AgentsRabbitmqConfig, load
from droveway.domain import broker_rights
from droveway.domain.faults import Conflict, WrongConfiguration
from droveway.drivers.bus import nats_identity
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.main import droveway
from droveway.process import identities
from droveway.process.joining import joining
from tests.api.test_services_cli import Served
from tests.api.world import World
from tests.test_joining import TOLD, allow, run

CLOCK, NAMES = SystemClock(), SystemNames()


def claims(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return read


def told(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "d.toml"
    file.write_text(f'state_path = "{tmp_path}"\n{text}\n')
    return joining(load(file), CLOCK, NAMES)


async def made_for(identify: identities.Identify, host: str) -> Identity:
    return await identify(host)


def test_a_signed_token_names_what_its_host_may_do_and_no_other_hosts_part(tmp_path: Path) -> None:
    identities.make_nats_keys(tmp_path / "k", "droveway", CLOCK, NAMES)
    part = (tmp_path / "k" / "control-part.toml").read_text()
    found = told(tmp_path, f'bus = "nats"\n{part}')
    assert "jwt" not in found.settings["nats"], "control's own token is never handed out"
    first, second = (asyncio.run(made_for(found.identify, "h.1")) for _ in range(2))
    assert first.note == "" and first.settings["user"] == ""
    said = claims(first.settings["jwt"])
    assert said["sub"] == claims(second.settings["jwt"])["sub"], "so it can be revoked by the name of its host"
    assert said["sub"] != claims(asyncio.run(made_for(found.identify, "h.2")).settings["jwt"])["sub"]
    assert said["nats"]["sub"]["allow"] == ["droveway.ask", "droveway.ask.h=2E1", "droveway.agent.h=2E1.*"]
    assert all("h=2E1" in subject for subject in said["nats"]["pub"]["allow"])
    key = nats_identity.signing_key(str(tmp_path / "k" / "account.seed"))
    assert (said["iss"], key.seed[:2], key.public[0]) == (key.public, "SA", "A")
    for path in (tmp_path / "k").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Conflict, match="is there already"):
        identities.make_nats_keys(tmp_path / "k", "droveway", CLOCK, NAMES)


def test_a_signing_key_of_an_account_names_its_account(tmp_path: Path) -> None:
    identities.make_nats_keys(tmp_path / "k", "droveway", CLOCK, NAMES)
    text = f'bus = "nats"\n[agents.nats]\nsigning_key = "{tmp_path}/k/account.seed"\naccount = "AOTHER"'
    made = asyncio.run(made_for(told(tmp_path, text).identify, "h1"))
    assert claims(made.settings["jwt"])["nats"]["issuer_account"] == "AOTHER"


@pytest.mark.parametrize(
    "seed", ["", "SA", "no seed", "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY", "\xff", "A" * 58]
)
def test_a_signing_key_that_is_none_does_not_start(tmp_path: Path, seed: str) -> None:
    (tmp_path / "seed").write_text(seed)
    with pytest.raises(WrongConfiguration, match="signing_key"):
        told(tmp_path, f'bus = "nats"\n[agents.nats]\nsigning_key = "{tmp_path}/seed"')
    with pytest.raises(WrongConfiguration, match="cannot be read"):
        told(tmp_path, f'bus = "nats"\n[agents.nats]\nsigning_key = "{tmp_path}/nothing"')


def test_the_token_of_control_is_not_handed_out_where_agents_have_none(tmp_path: Path) -> None:
    assert "signing_key in [agents.nats]" in told(tmp_path, 'bus = "nats"\n[nats]\njwt = "a.b.c"').reason


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ('bus = "nats"', "the open door"),
        ('bus = "nats"\n[agents.nats]\nuser = "agents"\npassword = "p"', "the user agents"),
        ('bus = "rabbitmq"\n[agents.rabbitmq]\nuser = "agents"\npassword = "p"', "the user agents"),
    ],
)
def test_a_user_that_all_share_is_said_to_be_for_labs(tmp_path: Path, text: str, who: str) -> None:
    made = asyncio.run(made_for(told(tmp_path, text).identify, "h1"))
    assert (dict(made.settings), made.commands) == ({}, ())
    assert f"this host shares {who} of the broker" in made.note and "that is for labs" in made.note


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (AgentsRabbitmqConfig(per_host=True), "does not know the broker's management API"),
        (
            AgentsRabbitmqConfig(management_url="http://127.0.0.1:1", management_user="u", management_password="p"),
            "the management API at http://127.0.0.1:1 does not answer",
        ),
        (AgentsRabbitmqConfig(management_url="nonsense"), "the management API at nonsense does not answer"),
    ],
)
def test_what_the_management_api_does_not_do_is_printed_to_be_typed(config: AgentsRabbitmqConfig, why: str) -> None:
    made = asyncio.run(made_for(identities.rabbitmq(config, "droveway", "/", NAMES), "h.1"))
    assert why in made.note
    user, topics, rights = made.commands
    assert user == f"rabbitmqctl add_user droveway-h.1 {made.settings['password']}"
    assert topics.startswith("rabbitmqctl set_topic_permissions -p / droveway-h.1 droveway '^(droveway")
    assert "h=2E1" in topics
    assert "'^amq\\.gen.*$'" in rights, "a host may make its own queue and nothing else"
    assert made.settings["makes_exchange"] is False


def test_the_command_says_what_is_left_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def identify(host: str) -> Identity:
        return Identity({"user": f"own-{host}", "password": "p"}, "type these:", ("rabbitmqctl add_user x y",))

    async def warn(host: str) -> Identity:
        return Identity({}, "that is for labs")

    def allow_with(world: World, how: identities.Identify) -> None:
        allow(world)
        world.api.settings = replace(world.api.settings, joining=replace(TOLD, identify=how))

    one = Served(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    try:
        for host, how, words in (
            ("n1", identify, ["note: type these:", "  rabbitmqctl add_user x y"]),
            ("n2", warn, ["warning: that is for labs"]),
        ):
            one.loop.call_soon_threadsafe(allow_with, one.world, how)
            token = run("token", "create", "--any-host").output.split()[2].rstrip(",")
            file = tmp_path / f"{host}.toml"
            done = run(
                "join", "--url", f"http://127.0.0.1:{one.port}", "--token", token, "--host", host, "--config", str(file)
            )
            assert done.exit_code == 0, done.output
            assert done.output.splitlines()[1 : 1 + len(words)] == words
            assert load(file, "agent").nats.user == ("own-n1" if host == "n1" else "agents")
    finally:
        one.stop()


def test_keys_are_made_by_the_command(tmp_path: Path) -> None:
    made = CliRunner().invoke(droveway, ["nats-keys", str(tmp_path / "k"), "--prefix", "cloud2"])
    assert made.exit_code == 0, made.output
    part = (tmp_path / "k" / "control-part.toml").read_text()
    token = part.split('jwt = "')[1].split('"')[0]
    assert claims(token)["nats"]["pub"]["allow"] == ["cloud2.>"]


def test_no_host_is_given_the_name_of_a_user_who_is_none(tmp_path: Path) -> None:
    text = (
        'bus = "rabbitmq"\n[rabbitmq]\nuser = "droveway-control"\npassword = "p"\n'
        '[agents.rabbitmq]\nmanagement_url = "http://127.0.0.1:1"\nmanagement_user = "droveway-admin"'
    )
    found = told(tmp_path, text)
    for host in ("control", "admin"):
        with pytest.raises(Conflict, match="join under another name"):
            asyncio.run(made_for(found.identify, host))


class Management(BaseHTTPRequestHandler):
    """A broker's management API, with users and their permissions."""

    users: ClassVar[dict[str, tuple[str, list[str]]]] = {}
    changed: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        _, _, _, name, *rest = self.path.split("/")
        if name not in self.users:
            self.send_error(404)
            return
        tags, rights = self.users[name]
        names = ("configure", "write", "read")
        told = [dict(zip(names, rights, strict=True))] if rest and rights else [] if rest else {"tags": tags.split()}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.changed.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_user_of_the_broker_who_is_no_host_is_left_alone(tmp_path: Path) -> None:
    """Whoever joins says what the host is called; users of controls and people may be called so, too."""
    rights = broker_rights.rabbitmq("droveway", "new")
    own = [rights.configure, rights.write, rights.read]
    Management.users = {
        "droveway-other-control": ("", [".*", ".*", ".*"]),
        "droveway-root": ("administrator", own),
        "droveway-again": ("", own),
        "droveway-half": ("", []),
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Management) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        config = AgentsRabbitmqConfig(management_url=url, management_user="u", management_password="p")
        identify = identities.rabbitmq(config, "droveway", "/", NAMES)
        for host in ("other-control", "root"):
            Management.changed.clear()
            with pytest.raises(Conflict, match=f"droveway-{host} is no host's"):
                asyncio.run(made_for(identify, host))
            assert Management.changed == []
        for host in ("again", "half", "new"):
            Management.changed.clear()
            assert asyncio.run(made_for(identify, host)).commands == ()
            assert len(Management.changed) == 3
        server.shutdown()


def test_of_membership_servers_the_authority_is_handed_out_and_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("an authority")
    found = told(
        tmp_path,
        f'bus = "nats"\nservicegroup_driver = "etcd"\n[etcd]\naddress = "h:2379"\n'
        f'tls_ca = "{tmp_path}/ca.pem"\ntls_cert = "{tmp_path}/ca.pem"\n'
        f'tls_key = "{tmp_path}/ca.pem"',
    )
    assert found.files == {"membership-ca.pem": "an authority"}
    assert found.settings["etcd"]["tls_ca"] == "membership-ca.pem"
    assert not {"tls_cert", "tls_key"} & found.settings["etcd"].keys()
