"""`droveway host …`: which hosts can be used, and everything about one."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.certificates import host_certificates
from droveway.cli.columns import one_line, when, write
from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.migration_plans import host_migratable
from droveway.cli.session import Session, address

HOSTS = "/droveway/v1/hosts"
COLUMNS = ("Host", "Zone", "State", "Usable", "Vcpus", "Memory", "Disk", "Guests", "Hypervisor")
Host = dict[str, Any]


@click.group(cls=Group, example="droveway host list")
def host() -> None:
    """What hosts have, and whether they can be used."""


host.add_command(host_certificates)
host.add_command(host_migratable)


@host.command("list", example="droveway host list --json")
@AS_JSON
def host_list(as_json: bool) -> None:
    """Every host. Vcpus, memory and disk are what is promised of what may be promised."""
    found: list[Host] = Session().get(HOSTS)["hosts"]
    if as_json:
        print_json(found)
        return
    write(
        COLUMNS,
        [
            (
                one["name"],
                one["zone"],
                state(one),
                "yes" if one["usable"] else f"no: {one['word']}",
                of_most(one["vcpus"]),
                f"{of_most(one['memory_mb'])} MiB",
                f"{of_most(one['disk_gb'])} GiB",
                str(one["guests"]),
                hypervisor(one),
            )
            for one in found
        ],
    )
    for one in found:
        if one.get("warning"):
            click.secho(f"! {one['name']}: {one_line(one['warning'])}", fg="yellow")


def state(one: Host) -> str:
    return f"{one['state']}, disabled" if one["status"] == "disabled" else str(one["state"])


def of_most(amount: dict[str, int]) -> str:
    return f"{amount['promised']}/{amount['most']}"


def hypervisor(one: Host) -> str:
    """Libvirt's number 7002022 is 7.2.22."""
    number = one["hypervisor_version"]
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    return f"{one['hypervisor_type']} {version}" if one["hypervisor_type"] else "-"


@host.command("show", example="droveway host show h1")
@click.argument("name", metavar="HOST")
@AS_JSON
def host_show(name: str, as_json: bool) -> None:
    """Everything about HOST: what it has, who holds what of it, and why it is not usable."""
    one: Host = Session().get(address(HOSTS, name))["host"]
    if as_json:
        print_json(one)
        return
    usable = "usable" if one["usable"] else "not usable"
    click.secho(
        f"{one['name']} in zone {one['zone']} is {state(one)} and {usable}",
        bold=True,
        fg=None if one["usable"] else "red",
    )
    for reason in one["why_not"]:
        click.secho(f"  ! {one_line(reason)}", fg="yellow")
    if one.get("warning"):
        click.secho(f"  ! {one_line(one['warning'])}", fg="yellow")
    lines = [*_what_it_is(one), *_amounts(one), *_cells(one)]
    width = max(len(about) for about, _ in lines)
    for about, text in lines:
        click.echo(f"  {about:<{width}}  {one_line(text)}")
    _names(one)
    _guests(one)
    _events(one)


@host.command("declare-gone", example='droveway host declare-gone h7 --because "its board is broken"')
@click.argument("name", metavar="HOST")
@click.option("--because", required=True, help="The reason, shown wherever the host is.")
@AS_JSON
def host_declare_gone(name: str, because: str, as_json: bool) -> None:
    """Say that HOST will not come back by itself. Sagas wait for it no longer, its servers can be deleted, and
    its agent is refused. It is no proof that the machine is off: its guests are started nowhere else."""
    one: Host = Session().post(address(HOSTS, name, "declare-gone"), {"because": because})["host"]
    if as_json:
        print_json(one)
        return
    click.echo(
        f"{name} is declared gone; {len(one['servers'])} servers have their place there: they are started "
        f"nowhere else and can be deleted; 'droveway host readmit {name}' lets it in again"
    )


@host.command("readmit", example="droveway host readmit h7")
@click.argument("name", metavar="HOST")
@AS_JSON
def host_readmit(name: str, as_json: bool) -> None:
    """Let in the agent of a HOST that was declared gone."""
    one: Host = Session().post(address(HOSTS, name, "readmit"))["host"]
    if as_json:
        print_json(one)
        return
    click.echo(
        f"{name} is let in again; it is up once it has ended what is no longer its own: droveway host show {name}"
    )


@host.command("remove", example="droveway host remove h7")
@click.argument("name", metavar="HOST")
@AS_JSON
def host_remove(name: str, as_json: bool) -> None:
    """Forget a HOST that is gone for good, with its services and its place in aggregates. It must be down and hold no
    servers. Its name is free again; a machine of that name comes back by joining anew."""
    gone: Host = Session().delete(address(HOSTS, name))["host"]
    if as_json:
        print_json(gone)
    else:
        click.echo(f"{name} is forgotten, with {', '.join(gone['services'])}")


def _what_it_is(one: Host) -> list[tuple[str, str]]:
    service, report, has = one["service"], one["report"], one["resources"]
    changed, last_heard = when(report["changed_at_us"]), when(report["heard_at_us"])
    again = f", said again {last_heard}" if last_heard != changed else ""
    report_text = f"generation {report['generation']} of {changed}{again}, protocol {report['protocol']}"
    word = one["declared"]
    declared = f"{word['word']} by an operator, {when(word['at_us'])}: {word['because']}"
    lines = [
        *([("declared", declared)] if word["word"] else []),
        ("service", f"{service['state']} since {when(service['since_us'])}: {service['reason']}"),
        ("report", report_text if report["changed_at_us"] else "none yet"),
        ("aggregates", ", ".join(one["aggregates"]) or "none"),
    ]
    if has:
        topology = ", ".join(f"{count} {part}" for part, count in has["cpu_topology"].items())
        cpu = f"{has['cpu_arch']} {has['cpu_model']} {has['cpu_vendor']}".strip()
        lines += [
            ("hypervisor", f"{hypervisor(one)} on {has['hypervisor_hostname']}"),
            ("CPU", f"{cpu}{f' ({topology})' if topology else ''}, {len(has['cpu_features'])} features"),
            ("machines", ", ".join(has["machine_types"][:8]) + (" …" if len(has["machine_types"]) > 8 else "")),
        ]
    return lines


def _amounts(one: Host) -> list[tuple[str, str]]:
    has, measured = one["resources"], one["measured"] or {}
    if not has:
        return []
    kept = {"memory_mb": has["reserved_memory_mb"], "disk_gb": has["reserved_disk_gb"]}
    free = {
        "memory_mb": measured.get("memory_free_mb", has["memory_free_mb"]),
        "disk_gb": measured.get("disk_free_gb", has["disk_free_gb"]),
    }
    lines = []
    for about, unit in (("vcpus", ""), ("memory_mb", " MiB"), ("disk_gb", " GiB")):
        text = f"{one[about]['has']}{unit}, {of_most(one[about])} promised"
        text += f", {kept[about]} kept back" if kept.get(about) else ""
        text += f", {free[about]} free as measured" if about in free else ""
        lines.append((about.partition("_")[0], text))
    if measured:
        load = ", ".join(f"{each:.2f}" for each in measured["load"])
        lines.append(
            ("load", f"{load}, up for {measured['uptime_s'] // 86400} days {measured['uptime_s'] // 3600 % 24} hours")
        )
    return lines


def _cells(one: Host) -> list[tuple[str, str]]:
    lines = []
    for cell in one["cells"]:
        text = f"{len(cell['cpus'])} CPUs, {cell['memory_mb_held']}/{cell['memory_mb']} MiB held"
        pinned = ", ".join(map(str, cell["pinned_cpus"]))
        lines.append((f"cell {cell['id']}", text + (f", pinned: {pinned}" if pinned else "")))
    return lines


def _names(one: Host) -> None:
    for other in one["names"]:
        click.secho(f"! {_other_name(one, other)}", fg="yellow")


def _other_name(one: Host, other: Host) -> str:
    """One machine has reported under both names; which of them it goes by now is the one that is up."""
    name, mine = other["name"], one["name"]
    if one["state"] == "up" and other["state"] == "up":
        return f"{name} says that it is the same machine, and is up too: give each a uuid of its own"
    if other["state"] == "up":
        held = len(one["servers"])
        if held:
            return (
                f"this machine now reports as {name}, and {held} servers have their place here: call it {mine} "
                "again and start its agent; nothing is lost, they run on meanwhile"
            )
        return f"this machine now reports as {name}: the name {mine} holds nothing any more, delete its compute service"
    if one["state"] != "up":
        return f"{name} is the same machine, and neither name reports: start the agent under the one that it has now"
    if other["servers"]:
        return (
            f"this machine was called {name}, and {other['servers']} servers have their place there: call it "
            f"{name} again and start its agent; nothing is lost, they run on meanwhile"
        )
    return f"this machine was called {name}: that name holds nothing any more, delete its compute service"


def _guests(one: Host) -> None:
    if one["servers"]:
        click.echo()
        write(
            ("Server", "Name", "State", "Vcpus", "Memory", "Used", "CPU time"),
            [
                (
                    guest["id"],
                    guest["name"],
                    guest["state"],
                    str(guest["vcpus"]),
                    f"{guest['memory_mb']} MiB",
                    *_use(guest),
                )
                for guest in one["servers"]
            ],
        )
    for guest in one["strangers"]:
        place = f"its place is {guest['place']}" if guest["place"] else "it has no place"
        click.secho(f"! {guest['id']} {one_line(guest['name'])} runs here, and {place}; nothing was ended", fg="yellow")


def _use(guest: dict[str, Any]) -> tuple[str, str]:
    use = guest["use"]
    return ("-", "-") if use is None else (f"{use['memory_mb']} MiB", f"{use['cpu_time_ms'] / 1000:.1f} s")


def _events(one: Host) -> None:
    if one["events"]:
        click.echo()
        write(
            ("At", "What", "Sentence"),
            [(when(each["at_us"]), each["kind"], each["reason"]) for each in one["events"]],
        )
