"""`droveway config …`: whether a configuration file would start, without starting it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from droveway.cli.commands import AS_JSON, Group, print_json
from droveway.config import images, roles
from droveway.config.file import Config, load
from droveway.domain.faults import WrongConfiguration

EX_CONFIG = 78  # as a start that finds its file wrong


@click.group(cls=Group, example="droveway config check /etc/droveway/control.toml")
def config() -> None:
    """Configuration files."""


@config.command("check", example="droveway config check /etc/droveway/control.toml /etc/droveway/api.toml")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@AS_JSON
def config_check(files: tuple[Path, ...], as_json: bool) -> None:
    """Say whether each FILE would start; of several, also whether they can be used together, as `droveway all`
    uses them. What would start and is not safe is a warning. The exit code is 78 when one would not, otherwise 0.
    Nothing is started, and nothing is connected to."""
    found = [_look(path) for path in files]
    right = [one for _, one in found if isinstance(one, Config)]
    beside = roles.wrong_beside(right) if len(right) > 1 else []
    if as_json:
        print_json({"files": [_as_json(path, one) for path, one in found], "together": beside})
    else:
        for path, one in found:
            click.echo(_line(path, one))
            for reason in _warnings(one):
                click.echo(f"warning: {path}: {reason}")
        for reason in beside:
            click.echo(f"wrong: {reason}")
    if beside or len(right) < len(found):
        sys.exit(EX_CONFIG)


def _look(path: Path) -> tuple[Path, Config | str]:
    """The configuration, or the sentence that says what is wrong with it."""
    try:
        return path, load(path)
    except WrongConfiguration as fault:
        return path, fault.reason


def _warnings(one: Config | str) -> list[str]:
    return [] if isinstance(one, str) else images.warnings(one)


def _as_json(path: Path, one: Config | str) -> dict[str, Any]:
    if isinstance(one, str):
        return {"file": str(path), "right": False, "reason": one}
    return {
        "file": str(path),
        "right": True,
        "role": one.role,
        "bus": one.bus,
        "hosts": [each.name for each in one.host],
        "warnings": _warnings(one),
    }


def _line(path: Path, one: Config | str) -> str:
    if isinstance(one, str):
        return f"wrong: {one}"
    hosts = f", {len(one.host)} hosts" if len(one.host) > 1 else f", host {one.host[0].name}" if one.host else ""
    return f"{path} is right: role {one.role}, bus {one.bus}{hosts}"
