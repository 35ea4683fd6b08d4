"""The command `droveway`. Starts are imported only when they are started: an agent carries no database."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
import structlog

from droveway import stderr
from droveway.config import Config, load
from droveway.domain.faults import Fault, WrongConfiguration
from droveway.supervisor import EX_CONFIG

CONFIG = click.option("--config", "config_path", type=click.Path(path_type=Path), required=True,
                      envvar="DROVEWAY_CONFIG", help="The configuration file (TOML).")  # fmt: skip
SUPERVISED = click.option("--supervised", type=int, hidden=True, help="A pipe that ends with the supervisor.")
OPERATOR = ("saga", "service", "task", "user")


class _Commands(click.Group):
    """Operator commands are loaded when they are asked for: they speak HTTP and print tables."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *OPERATOR])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "service":  # apart from the others, which take a while to load what draws their tables
            from droveway.cli.services import service

            return service
        if name in OPERATOR:
            from droveway.cli.operator import COMMANDS

            return COMMANDS[name]
        return super().get_command(ctx, name)


@click.group(cls=_Commands)
@click.version_option(package_name="droveway")
def droveway() -> None:
    """A control plane for KVM hosts, OpenStack-API-compatible."""


@droveway.command("all")
@CONFIG
def all_(config_path: Path) -> None:
    """Everything on this machine: control, API, and the agent of each [[host]]."""
    from droveway.supervisor import Supervisor

    sys.exit(Supervisor(_configured(config_path), config_path.resolve()).run())


@droveway.command()
@CONFIG
@SUPERVISED
def control(config_path: Path, supervised: int | None) -> None:
    """Control and the API."""
    from droveway import starts

    config = _configured(config_path)
    starts.run(starts.control(config), supervised)


@droveway.command()
@CONFIG
@SUPERVISED
@click.option("--host", "hosts", multiple=True, required=True, help="Which [[host]] of the configuration.")
def agent(config_path: Path, supervised: int | None, hosts: tuple[str, ...]) -> None:
    """The agent of a host; of several when they are simulated."""
    from droveway import starts

    config = _configured(config_path)
    starts.run(starts.agents(config, hosts), supervised)


@droveway.command()
@CONFIG
@SUPERVISED
@click.option("--host", "hosts", multiple=True, required=True, help="Which [[host]] of the configuration.")
def heart(config_path: Path, supervised: int | None, hosts: tuple[str, ...]) -> None:
    """What beats for a host's services; for several hosts when they are simulated."""
    from droveway import heart_start

    heart_start.heart(_configured(config_path), config_path, hosts, supervised)


def _configured(path: Path) -> Config:
    config = load(path)
    level = getattr(logging, config.log_level.upper())
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.add_log_level,
                    structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer(
                        key_order=["timestamp", "level", "event"])],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr), cache_logger_on_first_use=True,
    )  # fmt: skip
    return config


def main() -> None:
    """The entry point: a fault is one sentence and an exit code, never a traceback."""
    stderr.never_fail()
    try:
        droveway(prog_name="droveway")
    except WrongConfiguration as fault:
        sys.stderr.write(f"droveway: {fault.sentence}\n")
        sys.exit(EX_CONFIG)
    except Fault as fault:
        sys.stderr.write(f"droveway: {fault.sentence}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
