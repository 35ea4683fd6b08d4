"""`droveway service …`: which services are alive, why, and what changes."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.columns import one_line, when
from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.service_views import SERVICES, mark, read_list, show_list
from droveway.cli.session import Session, address


@click.group(cls=Group, example="droveway service list --wide")
def service() -> None:
    """Which services are alive."""


@service.command("list", example="droveway service list --host h1 --wide")
@click.option("--host", default="", help="Only of that host.")
@click.option("--service", "binary", default="", help="Only that binary, such as nova-compute.")
@click.option("--wide", is_flag=True, help="Say why and since when, too.")
@AS_JSON
def service_list(host: str, binary: str, wide: bool, as_json: bool) -> None:
    """Binary, host, zone, status, state and when it was last heard."""
    found = read_list(Session(), host, binary)
    if as_json:
        print_json(found)
    else:
        show_list(found, wide=wide)


@service.command("why", example="droveway service why h1 nova-compute")
@click.argument("host")
@click.argument("binary", default="")
@AS_JSON
def service_why(host: str, binary: str, as_json: bool) -> None:
    """What speaks for the verdict on the services of HOST (or on BINARY there), and what to do."""
    found = Session().get(address(SERVICES, host, "why", binary=binary))["services"]
    if as_json:
        print_json(found)
        return
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
        f"{one_line(verdict['reason'])}",
        bold=True,
        fg=None if is_up else "red",
    )
    width = max((len(each["about"]) for each in evidence), default=0)
    for each in evidence:
        line = f"  {'!' if each['is_bad'] else ' '} {each['about']:<{width}}  {one_line(each['reason'])}"
        click.secho(line, fg="yellow" if each["is_bad"] else None)
    for advice in one["advice"]:
        click.echo(f"do: {one_line(advice)}")


@service.command("watch", example="droveway service watch")
@AS_JSON
def service_watch(as_json: bool) -> None:
    """The list, then what changes as it changes, until q or Ctrl-C. A line for each change when this is no terminal;
    with --json a line of JSON each, the list being the first."""
    from droveway.cli.watching import watch

    watch(as_json=as_json)
