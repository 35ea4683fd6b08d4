"""`droveway service …`: which services are alive, why, and what changes."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.columns import one_line, when, write
from droveway.cli.session import Session, address

SERVICES = "/droveway/v1/services"
COLUMNS = ("Binary", "Host", "Zone", "Status", "State", "Updated_At")
WIDE = ("Is", "Since", "Because", "Disabled Reason")


@click.group()
def service() -> None:
    """Which services are alive."""


def read_list(session: Session, host: str = "", binary: str = "") -> list[dict[str, Any]]:
    """The services as the API tells them; the server does the filtering."""
    found: list[dict[str, Any]] = session.get(address(SERVICES, host=host, binary=binary))["services"]
    return found


def mark(word: str) -> str:
    return ":-)" if word == "up" else "XXX"


def status(service: dict[str, Any]) -> str:
    return "disabled" if service["disabled"] else "enabled"


def state(service: dict[str, Any]) -> str:
    """The judge's, unless an operator's word lies over it."""
    return "forced down" if service["forced_down"] else str(service["state"])


@service.command("list")
@click.option("--host", default="", help="Only of that host.")
@click.option("--service", "binary", default="", help="Only that binary, such as nova-compute.")
@click.option("--wide", is_flag=True, help="Say why and since when, too.")
def service_list(host: str, binary: str, wide: bool) -> None:
    """Binary, host, zone, status, state and when it was last heard."""
    show_list(read_list(Session(), host, binary), wide=wide)


def show_list(found: list[dict[str, Any]], *, wide: bool = False) -> None:
    rows = [
        (
            s["binary"],
            s["host"],
            s["zone"],
            status(s),
            mark(s["word"]),
            when(s["updated_at_us"]),
            *((state(s), when(s["since_us"]), s["sentence"] or "-", s["disabled_reason"] or "-") if wide else ()),
        )
        for s in found
    ]
    write(COLUMNS + WIDE if wide else COLUMNS, rows)


@service.command("why")
@click.argument("host")
@click.argument("binary", default="")
def service_why(host: str, binary: str) -> None:
    """What speaks for the verdict on the services of HOST (or on BINARY there), and what to do."""
    found = Session().get(address(SERVICES, host, "why", binary=binary))["services"]
    for number, one in enumerate(found):
        if number:
            click.echo()
        _explain(one)


def _explain(one: dict[str, Any]) -> None:
    verdict, evidence = one["verdict"], one["evidence"]
    is_up = verdict["word"] == "up"
    finer = "" if verdict["state"] in {"alive", verdict["word"]} else f" ({verdict['state']})"
    since = f" since {when(verdict['since_us'])}" if verdict["since_us"] else ""
    click.secho(
        f"{mark(verdict['word'])} {verdict['binary']} on {verdict['host']} is {verdict['word']}{finer}{since}: "
        f"{one_line(verdict['sentence'])}",
        bold=True,
        fg=None if is_up else "red",
    )
    width = max((len(each["about"]) for each in evidence), default=0)
    for each in evidence:
        line = f"  {'!' if each['is_bad'] else ' '} {each['about']:<{width}}  {one_line(each['sentence'])}"
        click.secho(line, fg="yellow" if each["is_bad"] else None)
    for advice in one["advice"]:
        click.echo(f"do: {one_line(advice)}")


@service.command("watch")
def service_watch() -> None:
    """The list, then what changes as it changes, until q or Ctrl-C. A line for each change when this is no terminal."""
    from droveway.cli.watching import watch

    watch()
