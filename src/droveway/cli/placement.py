"""`droveway placement …`: why a guest is where it is, or nowhere; and what would be decided now."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.columns import one_line
from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.session import Session, address
from droveway.cli.tables import show, when

PLACEMENTS, VOLUME_PLACEMENTS = "/droveway/v1/placements", "/droveway/v1/volume-placements"
REFUSAL = "No valid host was found: "  # in a list that is said by the list


@click.group(cls=Group, example="droveway placement show web-1")
def placement() -> None:
    """Why a guest is where it is, or nowhere."""


@placement.command("show", example="droveway placement show web-1 --host h3")
@click.argument("server")
@click.option("--all", "everything", is_flag=True, help="Every decision that is kept, not the newest alone.")
@click.option("--host", default="", help="What became of that host: which rule it failed first.")
@AS_JSON
def placement_show(server: str, everything: bool, host: str, as_json: bool) -> None:
    """The decision about SERVER (its id or name), with its reasons."""
    found = Session().get(address(PLACEMENTS, server, all=int(everything), host=host))
    if as_json:
        print_json(found)
        return
    for number, one in enumerate(found["placements"]):
        if number:
            click.echo()
        _decision(f"{one['kind']} of {_server(found['server'])} at {when(one['at_us'])}", one)
    if found.get("waiting"):  # an older API does not tell
        click.secho(f"\nit waits for room until {when(found['waiting']['until_us'])}", bold=True)


@placement.command("list", example="droveway placement list --blocked")
@click.option("--blocked", is_flag=True, help="Requests that wait for a host, instead of decisions.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@AS_JSON
def placement_list(blocked: bool, limit: int, as_json: bool) -> None:
    """The newest decisions, or the requests that wait."""
    found = Session().get(address(PLACEMENTS, blocked=int(blocked), limit=limit))
    if as_json:
        print_json(found)
    elif blocked:
        rows = [
            (
                _name(one),
                when(one["since_us"]),
                when(one["until_us"]),
                one["request"] or "-",
                one["reason"].removeprefix(REFUSAL),
            )
            for one in found["waiting"]
        ]
        show(("Server", "Since", "Until", "Asked", "Because"), rows)
    else:
        decided = [
            (
                when(one["at_us"]),
                _name(one),
                one["kind"],
                one["host"] or "-",
                f"{one['fitting']} of {one['hosts']}",
                one["races"],
                one["reason"].removeprefix(REFUSAL) or one["request"],
            )
            for one in found["placements"]
        ]
        show(("At", "Server", "For", "Host", "Fitted", "Races lost", "Because"), decided)


@placement.command("try", example="droveway placement try --flavor small --image tiny --count 3")
@click.option("--flavor", default="", help="Its id or name.")
@click.option("--image", help="Its id or name.")
@click.option("--zone", help="As --availability-zone at create.")
@click.option("--host", help="As if that host alone had been asked for: says which rule it fails first.")
@click.option("--group", help="A server group, by id or name.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Over those of the image.")
@click.option("--count", type=click.IntRange(1, 50), default=1, show_default=True, help="So many of them.")
@click.option("--server", help="The request of that server again, instead of a flavor.")
@AS_JSON
def placement_try(as_json: bool, properties: tuple[str, ...], count: int, **given: str | None) -> None:
    """Where a server would go now. Changes nothing."""
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value}
    wanted |= {"count": count, "properties": dict(_pair(text) for text in properties)}
    found = Session().post(f"{PLACEMENTS}/try", {"placement": wanted})
    if as_json:
        print_json(found)
        return
    decided = found["placements"]
    _decision("tried now, nothing was changed", decided[0])
    if count > 1:
        placed = sum(one["host"] is not None for one in decided)
        click.echo(f"\n{placed} of {count} would get a host; the above is the decision about the first")
        if not placed:
            return
        show(("Host", "Servers"), [(one["host"], one["count"]) for one in found["spread"]])
        refused = next((one for one in decided if one["host"] is None), None)
        if refused is not None:
            click.echo(f"number {decided.index(refused) + 1}: {one_line(refused['reason'])}")


@placement.command("replay", example="droveway placement replay web-1")
@click.argument("server")
@AS_JSON
def placement_replay(server: str, as_json: bool) -> None:
    """The recorded request about SERVER again, with the recorded seed and settings, against the hosts as they are."""
    found = Session().post(f"{PLACEMENTS}/try", {"replay": server})
    if as_json:
        print_json(found)
        return
    then, now = found["then"], found["now"]
    _decision(f"{then['kind']} of {_server(found['server'])} at {when(then['at_us'])}, decided again now", now)
    click.echo()
    was, is_now = then["host"] or "no host", now["host"] or "no host"
    same = "as then" if was == is_now else f"then {was}"
    click.echo(
        f"host now: {is_now} ({same}); {now['fitting']} of {now['hosts']} fit, then {then['fitting']} of "
        f"{then['hosts']}"
    )
    changed = found["differs"]["changed"]
    if not changed:
        click.echo("every host fits, or fails the same rule first, as it did then")
        return
    click.echo(f"standing otherwise: {_hosts(found['differs']['hosts_changed'])}")
    rows = [(one["then"], one["now"], one["hosts"], _named(one["named"], one["hosts"])) for one in changed]
    show(("Then", "Now", "Hosts", "Which"), rows)


@placement.command("volume", example="droveway placement volume data-1")
@click.argument("volume")
@click.option("--all", "everything", is_flag=True, help="Every decision that is kept, not the newest alone.")
@AS_JSON
def placement_volume(volume: str, everything: bool, as_json: bool) -> None:
    """Why VOLUME (its id or name) lies where it does, or nowhere."""
    found = Session().get(address(VOLUME_PLACEMENTS, volume, all=int(everything)))
    if as_json:
        print_json(found)
        return
    for number, one in enumerate(found["placements"]):
        if number:
            click.echo()
        of = found["volume"]["name"] or found["volume"]["id"]
        _decision(f"{one['kind']} {one_line(of)} at {when(one['at_us'])}", one, "backend")


@placement.command("try-volume", example="droveway placement try-volume --size 10 --type fast")
@click.option("--size", "size_gb", type=click.IntRange(1), default=1, show_default=True, help="GiB.")
@click.option("--type", help="A volume type, by id or name.")
@click.option("--zone", help="As --availability-zone at create.")
@click.option("--backend", help="As if that one alone, HOST@BACKEND, had been asked for.")
@AS_JSON
def placement_try_volume(as_json: bool, **given: str | int | None) -> None:
    """Where a volume would go now. Changes nothing."""
    wanted = {name: value for name, value in given.items() if value}
    found = Session().post(f"{VOLUME_PLACEMENTS}/try", {"placement": wanted})
    if as_json:
        print_json(found)
        return
    _decision("tried now, nothing was changed", found["placement"], "backend")


# -- one decision -----------------------------------------------------------------------------------------------------
def _decision(title: str, one: dict[str, Any], noun: str = "host") -> None:
    chosen = one["host"]
    click.secho(f"{title}: {chosen or f'no {noun}'}", bold=True, fg=None if chosen else "red")
    click.echo(f"asked: {one_line(one['request'])}")
    click.echo(f"looked at {_hosts(one['hosts'], noun)}, {one['fitting']} fitted; seed {one['seed']}")
    if one["fallen"]:
        click.echo()
        show(
            ("Rule", "Fell", "Left", "Because"),
            [
                (
                    fell["rule"],
                    fell["hosts"],
                    fell["left"],
                    "\n".join([fell["reason"], *(f"  {near['host']}: {near['reason']}" for near in fell["nearest"])]),
                )
                for fell in one["fallen"]
            ],
        )
    if one["ranked"]:
        click.echo()
        weighers = list(dict.fromkeys(name for choice in one["ranked"] for name in choice["weights"]))
        show(
            ("Best", "Weight", *weighers),
            [
                (
                    choice["name"],
                    f"{choice['weight']:.3f}",
                    *(f"{choice['weights'][name]:.3f}" if name in choice["weights"] else "-" for name in weighers),
                )
                for choice in one["ranked"]
            ],
        )
        if len(one["ranked"]) > 1 and not weighers:
            click.echo("they weigh the same: lots were drawn by the seed")
    for lost in one["races"]:
        click.echo(f"race lost: {one_line(lost)}")
    for would in one["would_fit"]:
        click.echo(f"it would fit {one_line(would)}")
    if "of_host" in one:
        of_host = one["of_host"]
        rule = f"failed {of_host['rule']} first: " if of_host["rule"] else ""
        click.secho(f"{of_host['host']}: {rule}{one_line(of_host['reason'])}", bold=True)


def _hosts(number: int, noun: str = "host") -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _server(server: dict[str, Any]) -> str:
    return server["id"] if server["name"] == server["id"] else f"{one_line(server['name'])} ({server['id']})"


def _name(one: dict[str, Any]) -> str:
    return one_line(one["name"] or one["server_id"])


def _named(names: list[str], count: int) -> str:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"{', '.join(names)}{more}"


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.UsageError(f"--property {text} must be KEY=VALUE, such as hw_architecture=x86_64")
    return key, value
