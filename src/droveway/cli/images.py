"""`droveway image quota`: how many images a project may have, and how large in all."""

from __future__ import annotations

import click

from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.cli.session import Session, address
from droveway.cli.tables import show

QUOTAS = "/droveway/v1/image-quotas"
LIMIT = click.IntRange(-1, 2**31 - 1)


@click.group(cls=Group, example="droveway image quota red")
def image() -> None:
    """Quotas of the image store: what projects may keep there."""


@image.command("quota", example="droveway image quota red --count 20 --size 10240")
@click.argument("project")
@click.option("--count", type=LIMIT, help="How many images at most; -1 is no limit.")
@click.option("--size", type=LIMIT, help="How many MiB of image data at most; -1 is no limit.")
@click.option("--reset", is_flag=True, help="Back to the defaults, but what is set here.")
@AS_JSON
def image_quota(project: str, count: int | None, size: int | None, reset: bool, as_json: bool) -> None:
    """Show or set the image quotas of PROJECT (its name or id), or of `default`: all of which nothing else is said."""
    session, path = Session(), address(QUOTAS, project)
    asked = {"image_count_total": count, "image_size_total": size}
    wanted = {name: limit for name, limit in asked.items() if limit is not None or reset}
    found = (session.patch(path, {"image_quotas": wanted}) if wanted else session.get(path))["image_quotas"]
    if as_json:
        print_json(found)
        return
    show(("Resource", "Limit", "Used"), [(name, one["limit"], one.get("usage", "-")) for name, one in found.items()])
