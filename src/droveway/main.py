"""The command `droveway`. Starts are imported only when they are started: an agent carries no database."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click

from droveway import logs
from droveway.cli import stdout
from droveway.cli.commands import AS_JSON, Group, one_reason, print_json
from droveway.config import roles
from droveway.config.file import Config, load
from droveway.domain.faults import Fault, WrongConfiguration
from droveway.domain.service_kinds import COMPUTE
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
SERVICE = click.option(
    "--service",
    default=COMPUTE,
    show_default=True,
    help="Which of the services that the [[host]] carries this process is.",
)
SUPERVISED = click.option("--supervised", type=int, hidden=True, help="A pipe that ends with the supervisor.")
OPERATOR = (
    "aggregate",
    "audit",
    "ca",
    "config",
    "console",
    "host",
    "image",
    "migration",
    "placement",
    "saga",
    "service",
    "task",
    "user",
)


class _Commands(Group):
    """Operator commands are loaded when they are asked for: they speak HTTP and print tables. What is typed wrong is
    told in one sentence, wherever on the line it stands."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with one_reason():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with one_reason():
            return super().invoke(ctx)

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


class _AgentCommands(Group):
    """These speak HTTP and are loaded when they are asked for: an agent that runs carries none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["join", "renew", "token"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        from droveway.cli.joining import COMMANDS

        command: click.Command | None = COMMANDS.get(name)
        return command


@click.group(
    cls=_Commands,
    example="droveway service list\ndroveway service why --help",
)
@click.version_option(package_name="droveway")
@click.option("--os-cloud", metavar="NAME", help="Which cloud of clouds.yaml the commands of operators speak to.")
def droveway(os_cloud: str | None) -> None:
    """A control plane for KVM hosts, OpenStack-API-compatible."""


@droveway.command("all", example="droveway all --config /etc/droveway/cloud.toml")
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
    for reason in roles.wrong_beside([config for config, _ in files]):
        raise WrongConfiguration(reason)
    for config, _ in files:
        if config.role in ("all", "control"):
            alone.check(config)
    sys.exit(Supervisor(files).run())


@droveway.command(example="droveway control --config /etc/droveway/control.toml")
@CONFIG
@SUPERVISED
def control(config_path: Path, supervised: int | None) -> None:
    """Control; and the API, unless `api.listen` is empty."""
    from droveway.process.run import collect_seldom, run

    collect_seldom()
    from droveway.process.control import control

    config = _configured(config_path, "control")
    run(control(config), supervised)


@droveway.command(example="droveway api --config /etc/droveway/api.toml")
@CONFIG
@SUPERVISED
def api(config_path: Path, supervised: int | None) -> None:
    """The API alone; any number of them beside the controls."""
    from droveway.process.run import collect_seldom, run

    collect_seldom()
    from droveway.process.api import api

    config = _configured(config_path, "api")
    run(api(config), supervised)


@droveway.group(
    cls=_AgentCommands, invoke_without_command=True, example="droveway agent --config /etc/droveway/agent.toml"
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="DROVEWAY_CONFIG",
    help="The configuration file (TOML).",
)
@SUPERVISED
@HOSTS
@SERVICE
@click.pass_context
def agent(
    context: click.Context, config_path: Path | None, supervised: int | None, hosts: tuple[str, ...], service: str
) -> None:
    """One service of a host, its compute agent unless said otherwise; of several hosts when they are simulated. And how
    a new one joins."""
    if context.invoked_subcommand is not None:
        return
    from droveway.process.agent import agents
    from droveway.process.run import run

    if config_path is None:
        raise click.UsageError("Missing option '--config'.")
    config = _configured(config_path, "agent", supervised)
    run(agents(config, config.carriers(hosts, service), service), supervised)


@droveway.command(example="droveway heart --config /etc/droveway/agent.toml")
@CONFIG
@SUPERVISED
@HOSTS
def heart(config_path: Path, supervised: int | None, hosts: tuple[str, ...]) -> None:
    """The process that sends heartbeats for a host's services; for several hosts when they are simulated."""
    from droveway.process import heart as heart_start

    config = _configured(config_path, "heart", supervised)
    heart_start.heart(config, config_path, config.names_of(hosts), supervised)


@droveway.group(cls=Group, example="droveway backup verify --config /etc/droveway/agent.toml")
def backup() -> None:
    """The store of volumes' backups, as a host that has it sees it."""


@backup.command("verify", example="droveway backup verify --config /etc/droveway/agent.toml --backup ID")
@CONFIG
@click.option("--backup", "backup_ids", multiple=True, metavar="ID", help="Which one; without it, every one.")
@AS_JSON
def verify_backups(config_path: Path, backup_ids: tuple[str, ...], as_json: bool) -> None:
    """Read every chunk of backups and name each that is not what was stored. Ends with 1 where there is one."""
    import asyncio

    from droveway.process.backups import verify

    found = asyncio.run(verify(load(config_path, "agent").backup, backup_ids))
    if as_json:
        print_json({one: {"chunks": chunks, "damage": list(damage)} for one, (chunks, damage) in found.items()})
    else:
        for one, (chunks, damage) in found.items():
            click.echo(f"backup {one}: {chunks} chunks, {f'{len(damage)} damaged' if damage else 'all as stored'}")
            for sentence in damage:
                click.echo(f"  {sentence}")
    if any(damage for _, damage in found.values()):
        sys.exit(1)


@droveway.command("nats-keys", example="droveway nats-keys /etc/droveway/nats")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--prefix", default="droveway", show_default=True, help="Of every subject, as in [nats] of the files.")
@AS_JSON
def nats_keys(directory: Path, prefix: str, as_json: bool) -> None:
    """Make what NATS servers, controls and APIs need so that each host has an identity of its own at the broker."""
    from droveway.drivers.clock import SystemClock, SystemNames
    from droveway.process.identities import make_nats_keys

    written = make_nats_keys(directory.absolute(), prefix, SystemClock(), SystemNames())
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(f"{path} is written")
    click.echo(
        "Include nats-identities.conf in the configuration of the NATS servers, put control-part.toml into the "
        "files of control and API, and keep operator.seed where no machine of the cloud reads it."
    )


@droveway.command("nats-revoke", example="droveway nats-revoke h7 --directory /etc/droveway/nats")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option(
    "--directory", type=click.Path(path_type=Path), required=True, help="What nats-keys made, with operator.seed in it."
)
@AS_JSON
def nats_revoke(hosts: tuple[str, ...], directory: Path, as_json: bool) -> None:
    """End what these hosts were told of the broker, such as of a machine that was lost; who joins anew is told anew."""
    from droveway.drivers.clock import SystemClock
    from droveway.process.identities import revoke_nats_users

    written = revoke_nats_users(directory.absolute(), hosts, SystemClock())
    if as_json:
        print_json({"files": [str(written)], "hosts": list(hosts)})
        return
    click.echo(
        f"{written} is written: lay it where every NATS server includes it, and let each read it "
        "(nats-server --signal reload); then they end what these hosts have open, and refuse it"
    )


def _configured(path: Path, start: str, supervised: int | None = None) -> Config:
    config = load(path, start)
    if start in ("agent", "heart") and supervised is None and config.database:  # `all` has one file for everything
        raise WrongConfiguration(
            f"{path}: database does not belong into an agent's file: an agent holds no database "
            "URL and needs none; take it out, or let `droveway all` start the agent"
        )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # from now on; a process that has a log notes it when it comes
    logs.configure(config.log_level)
    return config


def main() -> None:
    """The entry point: a fault is one sentence and an exit code, never a traceback."""
    stderr.never_fail()
    stdout.report_write_errors()
    try:
        try:
            droveway(prog_name="droveway")
        finally:
            sys.stdout.flush()  # what is left must not fail when it can be reported no more
    except WrongConfiguration as fault:
        sys.stderr.write(f"droveway: {fault.reason}\n")
        sys.exit(EX_CONFIG)
    except Fault as fault:
        sys.stderr.write(f"droveway: {fault.reason}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
