"""`droveway audit`: what is wrong between rows, guests and claims, and its repair as a plan before it is done."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from shutil import get_terminal_size
from typing import Any

import click

from droveway.cli.columns import one_line, when
from droveway.cli.commands import AS_JSON, Command, print_json
from droveway.cli.session import Session

AUDIT = "/droveway/v1/audit"
HUMAN = "human"
UNREACHED_SHOWN_MAX = 20
MARGIN = 10


@click.command(cls=Command, example="droveway audit --repair")
@click.option("--repair", is_flag=True, help="Show what would be repaired, ask, and do it.")
@click.option("--yes", is_flag=True, help="With --repair: do not ask.")
@AS_JSON
def audit(repair: bool, yes: bool, as_json: bool) -> None:
    """Compare servers, the guests on every host, and claims. The exit code is 1 when something is wrong (with
    --repair: when something is left), otherwise 0. Nothing is changed without --repair."""
    if repair and as_json and not yes:
        raise click.UsageError("--repair asks before it does anything, which --json cannot: add --yes")
    session = Session()
    found = session.get(AUDIT)
    safe = [finding for finding in found["findings"] if finding["repair"] != HUMAN]
    repaired: dict[str, Any] | None = None
    if not as_json:
        _show(found)
    if repair and safe and (yes or _confirmed(safe)):
        repaired = session.post(f"{AUDIT}/repair", {"keys": [finding["key"] for finding in safe]})
    if as_json:
        print_json(found if repaired is None else found | {"repaired": repaired})
    elif repaired is not None:
        _show_repaired(repaired)
    wrong = len(found["findings"]) + found["more"]
    mended = 0 if repaired is None else len(repaired["done"]) + len(repaired["gone"])
    sys.exit(1 if wrong > mended else 0)


def _confirmed(safe: list[dict[str, Any]]) -> bool:
    click.echo("\nwhat would be done, each only if it is still true then:")
    _lines(f"{finding['what']}: {finding['plan']}" for finding in safe)
    return click.confirm(f"do {'this' if len(safe) == 1 else f'these {len(safe)}'}?")


def _show(found: dict[str, Any]) -> None:
    wrong = len(found["findings"]) + found["more"]
    servers = f"{found['instances']} server{'' if found['instances'] == 1 else 's'}"
    click.secho(
        f"{'nothing is wrong' if not wrong else f'{wrong} wrong'}: {servers}, "
        f"{found['hosts_answered']} of {found['hosts']} hosts answered",
        bold=True,
        fg="red" if wrong else None,
    )
    silent = found["not_looked_at"]
    for one in silent[:UNREACHED_SHOWN_MAX]:
        click.echo(f"not looked at: {one['host']}: {one_line(one['because'])}")
    if len(silent) > UNREACHED_SHOWN_MAX:
        click.echo(f"not looked at: {len(silent) - UNREACHED_SHOWN_MAX} more hosts; --json names them")
    for finding in found["findings"]:
        _finding(finding)
    if found["more"]:
        click.echo(f"and {found['more']} more, which the next audit shows once these are repaired")


def _finding(finding: dict[str, Any]) -> None:
    on = f" on {finding['where']}" if finding["where"] != "-" else ""
    since = f" (since {when(finding['since_us'])})" if finding["since_us"] is not None else ""
    how = "by hand" if finding["repair"] == HUMAN else "--repair"
    click.echo()
    click.secho(
        f"{finding['severity']:<{MARGIN}}{finding['kind']}: {one_line(finding['what'])}{on}",
        bold=True,
        fg="red" if finding["severity"] == "high" else None,
    )
    _lines((f"{finding['reason']}{since}", f"{how}: {finding['plan']}"), MARGIN)


def _show_repaired(repaired: dict[str, Any]) -> None:
    click.echo()
    _lines(f"done: {finding['what']}: {finding['plan']}" for finding in repaired["done"])
    _lines(f"left: {one['finding']['what']}: {one['because']}" for one in repaired["left"])
    if repaired["gone"]:
        click.echo(f"{len(repaired['gone'])} had mended meanwhile")


def _lines(texts: Iterable[str], margin: int = 0) -> None:
    width = get_terminal_size((200, 24)).columns
    for text in texts:
        click.echo(
            textwrap.fill(
                one_line(text),
                width,
                initial_indent=" " * margin,
                subsequent_indent=" " * (margin + 2),
                break_on_hyphens=False,
            )
        )
