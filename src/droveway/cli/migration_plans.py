"""`droveway migration plan|predictions`, `droveway host migratable`: could it move, where to, what would it take."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.columns import one_line
from droveway.cli.commands import AS_JSON, Command, print_json
from droveway.cli.session import Session, address
from droveway.cli.tables import show, when

MIGRATIONS = "/droveway/v1/migrations"
MIB = 1024**2
MARKS = {True: "yes", False: "NO", None: "?"}
SIGNS = {"moves": "+", "does not end": "~", "unknown": "?", "blocked": "-"}


@click.command("plan", cls=Command, example="droveway migration plan web-1 --host h3")
@click.argument("server")
@click.option("--host", help="That destination alone; without, those that come into question.")
@click.option("--no-measure", is_flag=True, help="Do not measure how fast the guest writes to its memory.")
@AS_JSON
def migration_plan(server: str, host: str | None, no_measure: bool, as_json: bool) -> None:
    """Could SERVER (its id or name) be migrated, and what would it take? Changes nothing."""
    wanted: dict[str, Any] = {"server": server, "measure": not no_measure}
    if host:
        wanted["host"] = host
    found = Session().post(f"{MIGRATIONS}/plan", {"migration": wanted})
    if as_json:
        print_json(found)
        return
    of_server = found["server"]
    click.secho(f"{one_line(of_server['name'])} ({of_server['id']}) on {of_server['host']}", bold=True)
    click.echo(_load(found["load"]))
    click.echo(_way(found["way"]))
    _checks(found["checks"])
    for one in found["hosts"]:
        click.echo()
        _host(one, found["mode"])
    if not found["hosts"]:
        click.echo("\nthere is no other host")
    if found["more"]:
        click.echo(f"\n{found['more']} hosts more keep the rules and were not asked; --host asks one")


def _load(load: dict[str, Any] | None) -> str:
    if load is None:
        return "how much there is to send is not known: its host did not say"
    used = f"{load['used_bytes'] / MIB:.0f} of {load['memory_bytes'] / MIB:.0f} MiB of its memory are used"
    if load["dirty_bytes_per_s"] is None:
        return f"{used}; how fast it writes to it has not been measured"
    ago = "now" if load["measured_ago_s"] < 5 else f"{load['measured_ago_s']:.0f} s ago"
    return f"{used}; it writes to {load['dirty_bytes_per_s'] / MIB:.0f} MiB of it a second, measured {ago}"


def _way(way: dict[str, Any]) -> str:
    known = f"learnt from {way['learnt_from']} migrations" if way["learnt_from"] else "assumed: too few are recorded"
    rate, setup_s, downtime_ms = way["bytes_per_s"] / MIB, way["setup_s"], 1000 * way["downtime_s"]
    return f"{rate:.0f} MiB a second, {setup_s:.1f} s and {downtime_ms:.0f} ms of silence besides ({known})"


def _checks(checks: list[dict[str, Any]]) -> None:
    show(("Check", "Passed", "Because"), [(one["name"], MARKS[one["passed"]], one["reason"] or "-") for one in checks])


def _host(one: dict[str, Any], mode: str) -> None:
    blocked = f": {', '.join(one['blockers'])}" if one["blockers"] else ""
    click.secho(
        f"to {one['host']}: {one['verdict']}{blocked}", bold=True, fg=None if one["verdict"] == "moves" else "red"
    )
    _checks([check for check in one["checks"] if check["passed"] is not True] or one["checks"])
    if one["copy_bytes"]:
        click.echo(f"{one['copy_bytes'] / MIB:.0f} MiB of its disks go along")
    rows = [
        (f"{found['mode']} *" if found["mode"] == mode else found["mode"], *_times(found))
        for found in one["predictions"]
    ]
    if rows:
        show(("Mode (* is used)", "Takes", "Silent for"), rows)


def _times(found: dict[str, Any]) -> tuple[str, str]:
    if found["duration_s"] is None:
        return "does not end", "-"
    return f"{found['duration_s']:.1f} s", f"{1000 * found['downtime_s']:.0f} ms"


@click.command("predictions", cls=Command, example="droveway migration predictions --limit 20")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@AS_JSON
def migration_predictions(limit: int, as_json: bool) -> None:
    """What was foreseen of migrations before their copy began, and how they were; newest first."""
    found = Session().get(address(f"{MIGRATIONS}/predictions", limit=limit))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            when(one["at_us"]),
            one_line(one["name"] or one["server_id"]),
            f"{one['source']} -> {one['destination']}",
            f"{one['bytes'] / MIB:.0f}",
            _seconds(one["predicted_ms"]),
            _seconds(one["duration_ms"]),
            "-" if one["error_percent"] is None else f"{one['error_percent']:+.0f} %",
            one["learnt_from"],
            one["outcome"] or "under way",
        )
        for one in found["predictions"]
    ]
    show(("At", "Server", "From -> to", "MiB", "Foreseen", "Was", "Error", "Learnt from", "Outcome"), rows)
    if found["median_error_percent"] is not None:
        click.echo(f"median error: {found['median_error_percent']:.0f} %")


def _seconds(ms: int | None) -> str:
    return "-" if ms is None else f"{ms / 1000:.1f} s"


@click.command("migratable", cls=Command, example="droveway host migratable h1")
@click.argument("name", metavar="[HOST]", required=False)
@AS_JSON
def host_migratable(name: str | None, as_json: bool) -> None:
    """Which servers could be migrated to which hosts: of HOST, or all. Changes nothing."""
    found = Session().get(address(f"{MIGRATIONS}/matrix", host=name or ""))
    if as_json:
        print_json(found)
        return
    pairs = {(one["server_id"], one["host"]): one for one in found["pairs"]}
    rows = [
        (
            one_line(server["name"]),
            server["host"],
            *(_sign(pairs.get((server["id"], host))) for host in found["hosts"]),
        )
        for server in found["servers"]
    ]
    show(("Server", "On", *found["hosts"]), rows)
    click.echo("+ moves, - blocked, ? unknown, . is there")
    stuck = [server for server in found["servers"] if not _can_move(server["id"], found["pairs"])]
    for server in stuck:
        first = next((one for one in found["pairs"] if one["server_id"] == server["id"]), None)
        why = f"{first['blocker']}: {one_line(first['reason'])}" if first else "there is no other host"
        click.secho(f"! {one_line(server['name'])} can move nowhere: {why}", fg="yellow")
    for what in ("servers", "hosts"):
        if found[f"more_{what}"]:
            click.echo(f"{found[f'more_{what}']} {what} more are not shown")


def _sign(pair: dict[str, Any] | None) -> str:
    if pair is None:
        return "."
    sign = SIGNS[pair["verdict"]]
    return f"{sign} {pair['blocker']}" if pair["blocker"] else sign


def _can_move(server_id: str, pairs: list[dict[str, Any]]) -> bool:
    return any(one["server_id"] == server_id and one["verdict"] == "moves" for one in pairs)
