"""The tokens that `droveway` keeps for its next command."""

from __future__ import annotations

import json
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
        if Cloud.is_locked:
            return self._say(503, {"error": {"message": "the database is locked"}})
        Cloud.logins += 1
        Cloud.valid = f"token-{Cloud.logins}"
        return self._say(201, {}, {"X-Subject-Token": Cloud.valid})

    def do_GET(self) -> None:
        known = self.headers["X-Auth-Token"] == Cloud.valid
        return self._say(200 if known else 401, {"path": self.path} if known else {"error": {"message": "who?"}})

    def _say(self, code: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
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
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clouds = tmp_path / "clouds.yaml"
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    say_password(clouds, "secret", server.server_port)
    yield clouds
    server.shutdown()
    server.server_close()
    thread.join()


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
