"""The tokens that `droveway` keeps for its next command."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest

from droveway.cli import session
from droveway.cli.session import Session


class Cloud(BaseHTTPRequestHandler):
    """Gives tokens, and knows the last one."""

    logins = 0
    valid = ""
    is_locked = False

    def do_POST(self) -> None:
        if "no-json" in self.path:
            return self._say(201, None, {"X-Subject-Token": "t"}, b"<html>")
        if Cloud.is_locked:
            return self._say(503, {"error": {"message": "the database is locked"}})
        Cloud.logins += 1
        Cloud.valid = f"token-{Cloud.logins}"
        return self._say(201, {}, {"X-Subject-Token": Cloud.valid})

    def do_GET(self) -> None:
        if self.path == "/evil":
            return self._say(404, {"error": {"message": "one\ntwo\x1b[31m"}})
        known = self.headers["X-Auth-Token"] == Cloud.valid
        return self._say(200 if known else 401, {"path": self.path} if known else {"error": {"message": "who?"}})

    def _say(self, code: int, body: object, headers: dict[str, str] | None = None, data: bytes = b"") -> None:
        data = data or json.dumps(body).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where its clouds.yaml is."""
    Cloud.logins, Cloud.valid, Cloud.is_locked = 0, "", False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in [name for name in os.environ if name.startswith(("OS_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clouds = tmp_path / "clouds.yaml"
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    say_password(clouds, "secret", server.server_port)
    yield clouds
    server.shutdown()
    server.server_close()
    thread.join(30)
    assert not thread.is_alive()


def say_password(clouds: Path, password: str, port: int | None = None) -> None:
    port = port or int(clouds.read_text().split("127.0.0.1:")[1].split("/")[0])
    clouds.write_text(f"""clouds:
  droveway:
    auth:
      auth_url: http://127.0.0.1:{port}/identity/v3
      username: admin
      password: {password}
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
""")


def kept(cloud: Path) -> Path:
    return cloud.parent / "cache" / "droveway" / "tokens.json"


def test_the_next_command_needs_no_login(cloud: Path) -> None:
    assert Session().get("/a") == {"path": "/a"}
    assert Session().get("/b") == {"path": "/b"}
    assert Cloud.logins == 1


def test_it_is_for_its_owner_alone(cloud: Path) -> None:
    Session().get("/a")
    assert stat.S_IMODE(kept(cloud).stat().st_mode) == 0o600
    assert stat.S_IMODE(kept(cloud).parent.stat().st_mode) == 0o700


def test_a_token_that_nobody_knows_any_more_is_replaced(cloud: Path) -> None:
    Session().get("/a")
    Cloud.valid = "revoked"
    assert Session().get("/b") == {"path": "/b"}
    assert Cloud.logins == 2


def test_other_credentials_never_get_it(cloud: Path) -> None:
    Session().get("/a")
    say_password(cloud, "another")
    Session().get("/b")
    assert Cloud.logins == 2


def test_a_known_token_does_while_nobody_can_log_in(cloud: Path) -> None:
    Session().get("/a")
    Cloud.is_locked = True
    assert Session().get("/b") == {"path": "/b"}
    Cloud.valid = "revoked"
    with pytest.raises(click.ClickException, match="locked"):
        Session().get("/c")


def test_they_stay_few(cloud: Path) -> None:
    for number in range(session.TOKENS_MAX + 5):
        say_password(cloud, f"p{number}")
        Session().get("/a")
    assert len(json.loads(kept(cloud).read_text())) == session.TOKENS_MAX
    assert list(kept(cloud).parent.iterdir()) == [kept(cloud)]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}'])
def test_a_spoilt_file_is_no_token(cloud: Path, text: str) -> None:
    kept(cloud).parent.mkdir(parents=True)
    kept(cloud).write_text(text)
    assert Session().get("/a") == {"path": "/a"}


@pytest.mark.parametrize("end", ["", "/", "/identity", "/identity/", "/identity/v3/"])
def test_however_the_address_ends(cloud: Path, end: str) -> None:
    cloud.write_text(cloud.read_text().replace("/identity/v3", end))
    assert Session().get("/a") == {"path": "/a"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("username: admin", "", "has no username"),
        ("password: secret", "", "has no password"),
        ("  droveway:", "  one: {}\n  other:", "has no cloud named droveway, only one, other; --os-cloud or OS_CLOUD"),
        ("    auth:", "    auth: []\n    more:", "auth must be a table"),
        ("clouds:", "skies:", "has no cloud named droveway, only none"),
        ("    auth:", "    auth_type: v3oidcpassword\n    auth:", "has auth_type v3oidcpassword; droveway logs in by"),
        ("    auth:", "    profile: big\n    auth:", "names the profile big, and there is no clouds-public.yaml"),
        ("http://127.0.0.1", "127.0.0.1", "must begin with http:// or https://"),
        ("http://127.0.0.1:", "http://[::1/", "does not answer"),
        ("http://127.0.0.1:", "http://127.0.0.1:x", "does not answer"),
        ("/identity/v3", "/no-json", "does not answer as the API does"),
    ],
)
def test_a_file_that_leads_nowhere_is_one_reason(cloud: Path, old: str, new: str, words: str) -> None:
    cloud.write_text(cloud.read_text().replace(old, new))
    with pytest.raises(click.ClickException, match=words) as caught:
        Session().get("/a")
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_is_one_reason(cloud: Path) -> None:
    cloud.write_bytes(b"\xff\xfe")
    with pytest.raises(click.ClickException, match="cannot be read"):
        Session()
    cloud.unlink()
    cloud.mkdir()
    with pytest.raises(click.ClickException, match="cannot be read"):
        Session()


def test_what_the_api_says_moves_no_cursor(cloud: Path) -> None:
    Session().get("/a")
    with pytest.raises(click.ClickException) as caught:
        Session().get("/evil")
    assert caught.value.message == "one\\ntwo\\x1b[31m"
