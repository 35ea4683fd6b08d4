"""`droveway user …`: who may log in."""

from __future__ import annotations

from typing import Any

import click

from droveway.cli.columns import write
from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.session import Session, address

USERS = "/droveway/v1/users"


@click.group(cls=Group, example="droveway user list")
def user() -> None:
    """Users, and who may log in."""


ASK = click.option("--ask", is_flag=True, help="Ask for the password; otherwise one is made up and shown once.")


@user.command("list", example="droveway user list --json")
@AS_JSON
def user_list(as_json: bool) -> None:
    """Every user, with the roles that were given to it. Administrators have the role admin."""
    found: list[dict[str, Any]] = Session().get(USERS)["users"]
    if as_json:
        print_json(found)
        return
    rows = [(one["name"], "yes" if one["enabled"] else "no", _roles(one), one["id"]) for one in found]
    write(("User", "Enabled", "Roles", "Id"), rows)


def _roles(one: dict[str, Any]) -> str:
    """member of red; admin of admin, of the domain Default and of the system."""
    held: dict[str, list[str]] = {}
    for each in sorted(one["roles"], key=lambda each: (each["project"] is None, each["domain"] is None)):
        place = each["project"] or (f"the domain {each['domain']}" if each["domain"] else "the system")
        held.setdefault(each["role"], []).append(place)
    return "; ".join(f"{role} of {', '.join(places)}" for role, places in held.items()) or "-"


@user.command("create", example="droveway user create alice --project red --role member")
@click.argument("name")
@click.option("--project", required=True, help="Where the user may work; made when there is none of that name.")
@click.option("--role", default="member", show_default=True, help="reader, member, manager or admin.")
@ASK
@AS_JSON
def user_create(name: str, project: str, role: str, ask: bool, as_json: bool) -> None:
    """Make a user with a role in a project."""
    wanted = {"name": name, "project": project, "role": role, **_asked(ask)}
    made = Session().post(USERS, {"user": wanted})["user"]
    if as_json:
        print_json(made)
        return
    click.echo(f"user {name} has the role {role} in the project {project}")
    _print_password(made)
    click.echo(f"openstack --os-username {name} --os-password ... --os-project-name {project} server list")


@user.command("password", example="droveway user password alice --ask")
@click.argument("name")
@ASK
@AS_JSON
def user_password(name: str, ask: bool, as_json: bool) -> None:
    """Give a user another password. Its tokens end."""
    made = Session().patch(USERS, {"user": {"name": name, **_asked(ask)}})["user"]
    if as_json:
        print_json(made)
        return
    click.echo(f"user {name} has another password")
    _print_password(made)


@user.command("delete", example="droveway user delete alice")
@click.argument("name")
@AS_JSON
def user_delete(name: str, as_json: bool) -> None:
    """Delete a user, by its name or id. Its tokens end. Servers and images belong to
    projects, and stay."""
    gone = Session().delete(address(USERS, name))["user"]
    if as_json:
        print_json(gone)
    else:
        click.echo(f"user {gone['name']} is deleted; what it made stays with its projects")


def _asked(ask: bool) -> dict[str, str]:
    """Never on the command line, which every process of the machine may read."""
    return {"password": click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)} if ask else {}


def _print_password(made: dict[str, Any]) -> None:
    if "password" in made:
        click.echo(f"its password is {made['password']}")
