"""`droveway agent token create` and `droveway agent join`: how a new machine becomes a host."""

from __future__ import annotations

import contextlib
import json
import os
import re
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from droveway.cli.columns import when
from droveway.cli.session import TIMEOUT_S, Session, api_sentence, encoded

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ANSWER_MAX_BYTES = 1024 * 1024
LIVES_MAX_S = 30 * 24 * 3600  # a token
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")


class _Duration(click.ParamType[int]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,9})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is not a number and s, m, h or d, such as 1h", param, ctx)
        duration_s = int(found[1]) * UNITS_S[found[2]]
        if not 0 < duration_s <= LIVES_MAX_S:
            self.fail(f"{value!r} is not between 1s and {LIVES_MAX_S // UNITS_S['d']}d", param, ctx)
        return duration_s


@click.group()
def token() -> None:
    """Tokens by which a new host joins."""


@token.command("create")
@click.option("--host", default="", help="Only the host of that name may use it.")
@click.option("--expires", "expires_s", type=_Duration(), default="1h", show_default=True, help="When it ends.")
def token_create(host: str, expires_s: int) -> None:
    """Make a token for one use, and print what to type on the new machine."""
    session = Session()
    wanted = {"expires_in_s": expires_s, **({"host": host} if host else {})}
    made = session.post("/droveway/v1/join-tokens", {"join_token": wanted})["join_token"]
    bound = f"for host {made['host']}" if made["host"] else "for any host"
    click.echo(f"join token {made['token']}, {bound}, for one use until {when(made['expires_at_us'])}")
    click.echo("on the new machine:")
    click.echo(
        f"  droveway agent join --url {session.base} --token {made['token']} --host {made['host'] or 'NAME'} "
        "--config /etc/droveway/agent.toml"
    )


@click.command()
@click.option("--url", required=True, help="Of the API, such as http://control:8774.")
@click.option("--token", "secret", required=True, help="From 'droveway agent token create'.")
@click.option("--host", required=True, help="What this host is to be called.")
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--state", "state_path", default="/var/lib/droveway", show_default=True, help="The agent's directory.")
@click.option("--hypervisor", type=click.Choice(["libvirt", "simulated"]), default="libvirt", show_default=True)
@click.option("--libvirt-uri", default="qemu:///system", show_default=True)
@click.option("--peer-uri", default="", help="How other hosts reach its libvirt. [default: qemu+tls://HOST/system]")
@click.option("--data-uri", default="", help="Where they send a guest's memory. [default: tcp://HOST]")
@click.option("--instances", default="", help="Where its guests' disks lie. [default: instances in --state]")
def join(url: str, secret: str, host: str, path: Path, state_path: str, hypervisor: str, **given: str) -> None:
    """Turn a token into this host's configuration file. Nothing is written unless all goes well."""
    if NAME.fullmatch(host) is None:
        raise click.ClickException(f"{host!r} is no host name: 1 to 64 of the characters a-z A-Z 0-9 . - _")
    if not Path(state_path).is_absolute():
        raise click.ClickException(f"--state {state_path} must be an absolute path")
    _must_be_free(path)
    told = _ask(url, {"join": {"token": secret, "host": host}})
    for name, text in told["files"].items():  # beside the file, under a name of its own
        beside = path.with_name(f"{path.stem}-{Path(name).name}")
        _write(beside, text)
        _name_it(told["settings"], name, str(beside.absolute()))
    row: dict[str, Any] = {"name": host, "hypervisor": hypervisor}
    if hypervisor == "libvirt":
        row |= {
            "libvirt_uri": given["libvirt_uri"],
            "peer_uri": given["peer_uri"] or f"qemu+tls://{host}/system",
            "data_uri": given["data_uri"] or f"tcp://{host}",
            "instances_path": given["instances"] or f"{state_path}/instances",
            "host_state_path": f"{state_path}/hosts/{host}",
        }
    _write(path, file_of({"role": "agent", "state_path": state_path, **told["settings"]}, row))
    note, commands = told.get("note", ""), told.get("commands", [])
    click.echo(f"{path} is written.")
    if note:
        click.echo(f"{'note' if commands else 'warning'}: {note}")
    for command in commands:
        click.echo(f"  {command}")
    click.echo("Start these two, and keep them running:")
    for start in ("heart", "agent"):
        click.echo(f"  droveway {start} --config {path.absolute()}")


def file_of(settings: dict[str, Any], host: dict[str, Any]) -> str:
    """An agent's configuration file."""
    lines = ["# written by droveway agent join"]
    lines += [f"{key} = {_toml(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    for key, table in settings.items():
        if isinstance(table, dict):
            lines += ["", f"[{key}]", *(f"{name} = {_toml(value)}" for name, value in table.items())]
    lines += ["", "[[host]]", *(f"{name} = {_toml(value)}" for name, value in host.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """JSON's texts, numbers, booleans and lists of them are TOML's as well, where nothing is a pair of surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name_it(settings: dict[str, Any], name: str, path: str) -> None:
    for table in settings.values():
        if isinstance(table, dict):
            for key, value in table.items():
                if value == name:
                    table[key] = path


def _must_be_free(path: Path) -> None:
    """Before the token is used up."""
    try:
        if path.exists():
            raise click.ClickException(f"{path} exists already; name another, or remove it if this host joins anew")
        path.absolute().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = _unfinished(path)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # never through somebody's link
        probe.unlink()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    """For its owner's eyes: it may hold the broker's password."""
    unfinished = _unfinished(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        unfinished.rename(path)
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be written: {error.strerror}; the token is used up, make another one"
        ) from None


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}")


def _must_be_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_one = False
    if not is_one:
        raise click.ClickException(f"--url {url} must be http://HOST:PORT or https://HOST:PORT, where the API answers")


def _ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the API tells this host: {"settings", "files", "note", "commands"}; an older one leaves out the last two."""
    _must_be_url(url)
    request = urllib.request.Request(
        f"{url.rstrip('/')}/droveway/v1/join",
        data=encoded(body),
        method="POST",
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            told: dict[str, Any] = json.loads(reply.read(ANSWER_MAX_BYTES))["join"]
            if not all(isinstance(told[key], dict) for key in ("settings", "files")):
                raise ValueError("its answer has no settings")
            return told
    except urllib.error.HTTPError as error:
        sentence = api_sentence(error)
        if error.code == HTTPStatus.NOT_FOUND:  # there is no such path: it is something else, or not its root
            raise click.ClickException(
                f"{url} does not answer as the API does (404); --url is its root, such as http://control:8774"
            ) from None
        raise click.ClickException(sentence) from None
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise click.ClickException(f"{url} does not answer as the API does ({reason}); see that it is right") from None


COMMANDS: dict[str, click.Command] = {"join": join, "token": token}
