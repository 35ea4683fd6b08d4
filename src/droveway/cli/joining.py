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

from droveway.cli.columns import one_line, when, write
from droveway.cli.commands import AS_JSON, Command, Group, print_json
from droveway.cli.host_certificate import Certificate
from droveway.cli.session import TIMEOUT_S, Session, address, api_reason, encoded
from droveway.config.drivers import HYPERVISORS
from droveway.domain import service_kinds
from droveway.domain.service_kinds import COMPUTE

TOKENS = "/droveway/v1/join-tokens"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ANSWER_MAX_BYTES = 1024 * 1024
LIVES_MAX_S = 30 * 24 * 3600  # a token
KEY = re.compile(r"[a-z_]{1,64}")
FROM_API = {  # keys of an agent's file, which an API tells (process/joining.py)
    *("bus", "nats", "rabbitmq", "report_interval", "service_down_time", "servicegroup_driver"),
    *("zookeeper", "etcd", "memcached"),
}
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


@click.group(cls=Group, example="droveway agent token list")
def token() -> None:
    """Tokens by which a new host joins."""


@token.command("create", example="droveway agent token create --host h7 --expires 1h")
@click.option("--host", default="", help="Only the host of that name may use it.")
@click.option("--any-host", is_flag=True, help="The joining host chooses a name that nothing here has yet.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    help="Where other hosts find it, for its certificate, beside its name; may be repeated.",
)
@click.option("--expires", "expires_s", type=_Duration(), default="1h", show_default=True, help="When it ends.")
@AS_JSON
def token_create(host: str, any_host: bool, addresses: tuple[str, ...], expires_s: int, as_json: bool) -> None:
    """Make a token for one use, and print what to type on the new machine."""
    if bool(host) is any_host:
        raise click.UsageError("name the host that is to join (--host NAME), or say --any-host; not both")
    session = Session()
    wanted = {
        "expires_in_s": expires_s,
        **({"host": host} if host else {"any_host": True}),
        **({"addresses": list(addresses)} if addresses else {}),
    }
    made = session.post(TOKENS, {"join_token": wanted})["join_token"]
    if as_json:
        print_json(made)
        return
    bound = f"for host {made['host']}" if made["host"] else "for any host that is new"
    click.echo(f"join token {made['token']}, {bound}, for one use until {when(made['expires_at_us'])}")
    click.echo("on the new machine:")
    click.echo(
        f"  droveway agent join --url {session.base} --token {made['token']} --host {made['host'] or 'NAME'} "
        "--config /etc/droveway/agent.toml"
    )


@token.command("list", example="droveway agent token list --all")
@click.option(
    "--all", "everything", is_flag=True, help="Those that were used or have ended, too, for as long as known."
)
@AS_JSON
def token_list(everything: bool, as_json: bool) -> None:
    """Join tokens that can be used, the newest first. What is shown of a token is an id of its own, never the token."""
    found = Session().get(address(TOKENS, all=int(everything)))["join_tokens"]
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["host"] or "any", _state(one), when(one["created_at_us"]), when(one["expires_at_us"]))
        for one in found
    ]
    write(("Id", "Host", "State", "Created_At", "Expires_At"), rows)


def _state(one: dict[str, Any]) -> str:
    return f"used by {one['used_by']}" if one["state"] == "used" else str(one["state"])


@token.command("revoke", example="droveway agent token revoke 3f9a61c2d07b")
@click.argument("token_id", metavar="ID")
@AS_JSON
def token_revoke(token_id: str, as_json: bool) -> None:
    """Make a token worthless before it was used. ID is that of 'droveway agent token list'."""
    gone = Session().delete(address(TOKENS, token_id))["join_token"]
    if as_json:
        print_json(gone)
    else:
        click.echo(f"join token {gone['id']} is revoked: no host can join with it any more")


@click.command(
    cls=Command,
    example="droveway agent join --url https://cloud.example:8774 --token TOKEN --host h7 --config agent.toml",
)
@click.option("--url", required=True, help="Of the API, such as http://control:8774.")
@click.option(
    "--token",
    "secret",
    required=True,
    envvar="DROVEWAY_JOIN_TOKEN",
    help="From 'droveway agent token create'; or in DROVEWAY_JOIN_TOKEN, which no list of processes shows.",
)
@click.option("--host", required=True, help="What this host is to be called.")
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--state", "state_path", default="/var/lib/droveway", show_default=True, help="The agent's directory.")
@click.option(
    "--service",
    "services",
    multiple=True,
    default=(COMPUTE,),
    show_default=True,
    help="What it carries; several, each a process of its own.",
)
@click.option(
    "--hypervisor",
    type=click.Choice(list(HYPERVISORS)),
    default="libvirt",
    show_default=True,
    help="What runs its guests.",
)
@click.option("--libvirt-uri", default="qemu:///system", show_default=True, help="How its agent reaches libvirt.")
@click.option("--peer-uri", default="", help="How other hosts reach its libvirt. [default: qemu+tls://HOST/system]")
@click.option("--data-uri", default="", help="Where they send a guest's memory. [default: tcp://HOST]")
@click.option(
    "--libvirt-pki", default="", help="Where its libvirtd reads certificates, such as /etc/pki: lay them there."
)
@click.option("--instances", default="", help="Where its guests' disks lie. [default: instances in --state]")
@AS_JSON
def join(
    url: str,
    secret: str,
    host: str,
    path: Path,
    state_path: str,
    services: tuple[str, ...],
    hypervisor: str,
    as_json: bool,
    **given: str,
) -> None:
    """Turn a token into this host's configuration file. Nothing is written unless all goes well."""
    if NAME.fullmatch(host) is None:
        raise click.UsageError(f"{host!r} is no host name: 1 to 64 of the characters a-z A-Z 0-9 . - _")
    if not Path(state_path).is_absolute():
        raise click.UsageError(f"--state {state_path} must be an absolute path")
    for reason in service_kinds.problems(services):
        raise click.UsageError(reason)
    _must_be_free(path)
    tls = Certificate(f"{state_path}/hosts/{host}/tls", host, given["libvirt_pki"])
    reply = _ask(url, {"join": {"token": secret, "host": host, "csr": tls.request()}})
    for name, text in reply["files"].items():  # beside the file, under a name of its own
        beside = path.with_name(f"{path.stem}-{Path(name).name}")
        _write(beside, text)
        _name_it(reply["settings"], name, str(beside.absolute()))
    row: dict[str, Any] = {"name": host}
    if services != (COMPUTE,):
        row["services"] = list(services)
    if COMPUTE not in services:
        row["host_state_path"] = f"{state_path}/hosts/{host}"
    else:
        row["hypervisor"] = hypervisor
    if COMPUTE in services and hypervisor == "libvirt":
        row |= {
            "libvirt_uri": given["libvirt_uri"],
            "peer_uri": given["peer_uri"] or f"qemu+tls://{host}/system",
            "data_uri": given["data_uri"] or f"tcp://{host}",
            "instances_path": given["instances"] or f"{state_path}/instances",
            "host_state_path": f"{state_path}/hosts/{host}",
        }
    row |= tls.install(reply)
    _write(path, file_of({"role": "agent", "state_path": state_path, **reply["settings"]}, row))
    _print_joined(path, reply.get("note", ""), reply.get("commands", []), tls, row, as_json=as_json)


def _print_joined(
    path: Path, note: str, commands: list[str], tls: Certificate, row: dict[str, Any], *, as_json: bool
) -> None:
    services = row.get("services", (COMPUTE,))
    which = ("" if service == COMPUTE else f" --service {service}" for service in services)
    starts = [f"droveway {start} --config {path.absolute()}" for start in ("heart", *(f"agent{one}" for one in which))]
    if as_json:
        print_json({"config": str(path.absolute()), "note": note, "commands": commands, "starts": starts})
        return
    click.echo(f"{path} is written.")
    if note:
        click.echo(f"{'note' if commands else 'warning'}: {one_line(note)}")
    for command in commands:
        click.echo(f"  {one_line(command)}")
    tls.print_next_steps(row)
    click.echo(f"Start these {len(starts)}, and keep them running:")
    for start in starts:
        click.echo(f"  {start}")


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
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # never through a symbolic link
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


def _foreign(settings: dict[str, Any]) -> str:
    """The first key that is no key of how to reach others, or no key at all; it would stand in this host's file, where
    scripts and commands stand too."""
    for key, value in settings.items():
        table = value if isinstance(value, dict) else {}
        wrong = [name for name in (key, *table) if KEY.fullmatch(name) is None]
        if key not in FROM_API or wrong:
            return wrong[0] if wrong else key
    return ""


def _must_be_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_one = False
    if not is_one:
        raise click.UsageError(f"--url {url} must be http://HOST:PORT or https://HOST:PORT, where the API answers")


def _ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the API tells this host: {"settings", "files", "note", "commands", "certificate"}."""
    _must_be_url(url)
    request = urllib.request.Request(
        f"{url.rstrip('/')}/droveway/v1/join",
        data=encoded(body),
        method="POST",
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            reply: dict[str, Any] = json.loads(response.read(ANSWER_MAX_BYTES))["join"]
            if not all(isinstance(reply[key], dict) for key in ("settings", "files")):
                raise ValueError("its answer has no settings")
            if foreign := _foreign(reply["settings"]):
                raise ValueError(f"its answer has settings that no agent takes from it: {foreign[:64]!r}")
            return reply
    except urllib.error.HTTPError as error:
        reason = api_reason(error)
        if error.code == HTTPStatus.NOT_FOUND:  # there is no such path: it is something else, or not its root
            raise click.ClickException(
                f"{url} does not answer as the API does (404); --url is its root, such as http://control:8774"
            ) from None
        raise click.ClickException(reason) from None
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        cause = getattr(error, "reason", error)
        raise click.ClickException(f"{url} does not answer as the API does ({cause}); see that it is right") from None


@click.command(cls=Command, example="droveway agent renew --config /etc/droveway/agent.toml")
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The agent's file.")
@click.option("--host", default="", help="Which [[host]] of the file; without it, every one that has a certificate.")
@click.option("--now", is_flag=True, help="Although it is not time to.")
@AS_JSON
def renew(path: Path, host: str, now: bool, as_json: bool) -> None:
    """Renew this host's certificate if it is time to, as its agent does each hour; and say why it cannot be."""
    from droveway.cli.host_certificate import renew_those_of

    renew_those_of(path, host, now=now, as_json=as_json)


COMMANDS: dict[str, click.Command] = {"join": join, "renew": renew, "token": token}
