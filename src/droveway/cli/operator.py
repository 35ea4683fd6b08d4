"""`droveway saga …` and `droveway user …`; and where the others are."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from droveway.cli.audit import audit
from droveway.cli.hosts import host
from droveway.cli.images import image
from droveway.cli.placement import placement
from droveway.cli.session import Session, address
from droveway.cli.tables import show, when
from droveway.cli.tasks import task

SAGAS, USERS = "/droveway/v1/sagas", "/droveway/v1/users"
MARKS = {
    "+": "done",
    "-": "undone",
    "!": "failed",
    "^": "too late to undo",
    "?": "waits",
    "X": "broken",
    "~": "left for later",
}


@click.group()
def saga() -> None:
    """What is being done, step by step."""


@saga.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
def saga_list(everything: bool, limit: int) -> None:
    """Sagas, newest first."""
    found = Session().get(address(SAGAS, all=int(everything), limit=limit))["sagas"]
    rows = [
        (
            s["id"][:8],
            s["kind"],
            s["server_id"],
            s["status"],
            s["generation"],
            when(s["updated_at_us"]),
            s["blocked"] or s["error"] or "-",
        )
        for s in found
    ]
    show(("Saga", "Kind", "Server", "Status", "Generation", "Updated_At", "Because"), rows)


@saga.command("show")
@click.argument("saga_id")
def saga_show(saga_id: str) -> None:
    """One saga with its steps: when, how long, and why. SAGA_ID may be its beginning."""
    found = Session().get(address(SAGAS, saga_id))["saga"]
    console = Console(highlight=False, markup=False)
    console.print(f"{found['kind']} of server {found['server_id']}: {found['status']}, saga {found['id']}")
    for label, text in (("failed", found["error"]), ("waits", found["blocked"]), ("cancelled", found["cancel"])):
        if text:
            console.print(f"{label}: {text}")
    rows = [
        (
            when(step["at_us"]),
            step["step"],
            MARKS[step["mark"]],
            f"{step['ms']:.1f}",
            step["generation"],
            step.get("text", ""),
        )
        for step in found["steps"]
    ]
    show(("At", "Step", "Was", "ms", "Generation", "Because"), rows)


@saga.command("retry")
@click.argument("saga_id")
def saga_retry(saga_id: str) -> None:
    """Let a broken saga go on from where it stopped, once its cause is gone."""
    Session().post(address(SAGAS, saga_id, "retry"))
    click.echo(f"saga {saga_id} goes on; 'droveway saga show {saga_id}' tells how")


@saga.command("cancel")
@click.argument("saga_id")
def saga_cancel(saga_id: str) -> None:
    """Undo a saga, if its point of no return has not passed. SAGA_ID may be its beginning."""
    Session().post(address(SAGAS, saga_id, "cancel"))
    click.echo(f"saga {saga_id} is undone if it is not too late; 'droveway saga show {saga_id}' tells")


@click.group()
def user() -> None:
    """Who may log in."""


ASK = click.option("--ask", is_flag=True, help="Ask for the password; otherwise one is made up and shown once.")


@user.command("create")
@click.argument("name")
@click.option("--project", required=True, help="Where the user may work; made when there is none of that name.")
@click.option("--role", default="member", show_default=True, help="reader, member, manager or admin.")
@ASK
def user_create(name: str, project: str, role: str, ask: bool) -> None:
    """Make a user with a role in a project."""
    wanted = {"name": name, "project": project, "role": role, **_asked(ask)}
    made = Session().post(USERS, {"user": wanted})["user"]
    click.echo(f"user {name} has the role {role} in the project {project}")
    _tell_password(made)
    click.echo(f"openstack --os-username {name} --os-password ... --os-project-name {project} server list")


@user.command("password")
@click.argument("name")
@ASK
def user_password(name: str, ask: bool) -> None:
    """Give a user another password; whoever is logged in as that user no longer is."""
    made = Session().patch(USERS, {"user": {"name": name, **_asked(ask)}})["user"]
    click.echo(f"user {name} has another password")
    _tell_password(made)


def _asked(ask: bool) -> dict[str, str]:
    """Never on the command line, which every process of the machine may read."""
    return {"password": click.prompt("Password", hide_input=True, confirmation_prompt=True)} if ask else {}


def _tell_password(made: dict[str, Any]) -> None:
    if "password" in made:
        click.echo(f"its password is {made['password']}")


COMMANDS: dict[str, click.Command] = {
    "audit": audit,
    "host": host,
    "image": image,
    "placement": placement,
    "saga": saga,
    "task": task,
    "user": user,
}
