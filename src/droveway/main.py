"""The command `droveway`. Starts are imported only when they are started: an agent carries no database."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import click
import structlog

from droveway.cli import stdout
from droveway.config import roles
from droveway.config.file import Config, load
from droveway.domain.faults import Fault, WrongConfiguration
from droveway.process import alone, stderr
from droveway.process.supervisor import EX_CONFIG

CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    envvar="DROVEWAY_CONFIG",
    help="The configuration file (TOML).",
)
HOSTS = click.option("--host", "hosts", multiple=True, help="Which [[host]] of the file; without it, every one.")
SUPERVISED = click.option("--supervised", type=int, hidden=True, help="A pipe that ends with the supervisor.")
OPERATOR = ("audit", "host", "image", "placement", "saga", "service", "task", "user")


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


class _AgentCommands(click.Group):
    """`token` and `join` speak HTTP and are loaded when they are asked for: an agent that runs carries neither."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["join", "token"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        from droveway.cli.joining import COMMANDS

        command: click.Command | None = COMMANDS.get(name)
        return command


@click.group(cls=_Commands)
@click.version_option(package_name="droveway")
@click.option("--os-cloud", metavar="NAME", help="Which cloud of clouds.yaml the commands of operators speak to.")
def droveway(os_cloud: str | None) -> None:
    """A control plane for KVM hosts, OpenStack-API-compatible."""


@droveway.command("all")
@click.option(
    "--config",
    "config_paths",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    envvar="DROVEWAY_CONFIG",
    help="A configuration file (TOML); several, each of its own role.",
)
def all_(config_paths: tuple[Path, ...]) -> None:
    """Everything on this machine: control, API, and the agent of each [[host]]; or the roles of several files."""
    from droveway.process.supervisor import Supervisor

    files = [(_configured(path, "all"), path.resolve()) for path in config_paths]
    for sentence in roles.wrong_beside([config for config, _ in files]):
        raise WrongConfiguration(sentence)
    for config, _ in files:
        if config.role in ("all", "control"):
            alone.check(config)
    sys.exit(Supervisor(files).run())


@droveway.command()
@CONFIG
@SUPERVISED
def control(config_path: Path, supervised: int | None) -> None:
    """Control; and the API, unless `api.listen` is empty."""
    from droveway.process import control as starts

    config = _configured(config_path, "control")
    starts.run(starts.control(config), supervised)


@droveway.command()
@CONFIG
@SUPERVISED
def api(config_path: Path, supervised: int | None) -> None:
    """The API alone; any number of them beside the controls."""
    from droveway.process import control as starts
    from droveway.process.api import api

    config = _configured(config_path, "api")
    starts.run(api(config), supervised)


@droveway.group(cls=_AgentCommands, invoke_without_command=True)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="DROVEWAY_CONFIG",
    help="The configuration file (TOML).",
)
@SUPERVISED
@HOSTS
@click.pass_context
def agent(context: click.Context, config_path: Path | None, supervised: int | None, hosts: tuple[str, ...]) -> None:
    """The agent of a host; of several when they are simulated. And how a new one joins."""
    if context.invoked_subcommand is not None:
        return
    from droveway.process import control as starts
    from droveway.process.agent import agents

    if config_path is None:
        raise click.UsageError("Missing option '--config'.")
    config = _configured(config_path, "agent", supervised)
    starts.run(agents(config, config.names_of(hosts)), supervised)


@droveway.command()
@CONFIG
@SUPERVISED
@HOSTS
def heart(config_path: Path, supervised: int | None, hosts: tuple[str, ...]) -> None:
    """What beats for a host's services; for several hosts when they are simulated."""
    from droveway.process import heart as heart_start

    config = _configured(config_path, "heart", supervised)
    heart_start.heart(config, config_path, config.names_of(hosts), supervised)


@droveway.command("nats-keys")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--prefix", default="droveway", show_default=True, help="Of every subject, as in [nats] of the files.")
def nats_keys(directory: Path, prefix: str) -> None:
    """Make what NATS servers, controls and APIs need so that each host is somebody of its own at the broker."""
    from droveway.drivers.clock import SystemClock, SystemNames
    from droveway.process.identities import make_nats_keys

    for path in make_nats_keys(directory.absolute(), prefix, SystemClock(), SystemNames()):
        click.echo(f"{path} is written")
    click.echo(
        "Include nats-identities.conf in the configuration of the NATS servers, put control-part.toml into the "
        "files of control and API, and keep operator.seed where no machine of the cloud reads it."
    )


def _configured(path: Path, start: str, supervised: int | None = None) -> Config:
    config = load(path, start)
    if start in ("agent", "heart") and supervised is None and config.database:  # `all` has one file for everything
        raise WrongConfiguration(
            f"{path}: database does not belong into an agent's file: an agent holds no database "
            "URL and needs none; take it out, or let `droveway all` start the agent"
        )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # from now on; whoever has a log says so when it comes
    level = getattr(logging, config.log_level.upper())
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    return config


def main() -> None:
    """The entry point: a fault is one sentence and an exit code, never a traceback."""
    stderr.never_fail()
    stdout.tell_trouble()
    try:
        try:
            droveway(prog_name="droveway")
        finally:
            sys.stdout.flush()  # what is left must not fail when nobody can tell it any more
    except WrongConfiguration as fault:
        sys.stderr.write(f"droveway: {fault.sentence}\n")
        sys.exit(EX_CONFIG)
    except Fault as fault:
        sys.stderr.write(f"droveway: {fault.sentence}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
