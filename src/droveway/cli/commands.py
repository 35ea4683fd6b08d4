"""What every command of ours has: an example in its --help, lists that are not cut, and one sentence for a wrong use.

A command or group that is made without an example is refused when it is defined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs: what the API says.")


HELP = {"help_option_names": ["-h", "--help"]}  # of each, since click remembers how it was first asked


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


class Command(click.Command):
    def __init__(self, *arguments: Any, example: str, **named: Any) -> None:
        super().__init__(*arguments, **{"context_settings": HELP, **named})
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _write_example(self.example, formatter)


class Group(click.Group):
    command_class = Command
    group_class = type

    def __init__(self, *arguments: Any, example: str, **named: Any) -> None:
        super().__init__(*arguments, **{"context_settings": HELP, **named})
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _write_example(self.example, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The whole first sentence of each, where click cuts it at the end of the line."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        lines = [(name, first_reason(command)) for name, command in found if command and not command.hidden]
        if lines:
            with formatter.section("Commands"):
                formatter.write_dl(lines)


def first_reason(command: click.Command) -> str:
    text = " ".join((command.help or "").split())
    return re.split(r"(?<=\.) (?=[A-Z])", text, maxsplit=1)[0]


def _write_example(example: str, formatter: click.HelpFormatter) -> None:
    """As it is typed, however long: a line that is broken cannot be copied."""
    with formatter.section("Example"):
        for line in example.splitlines():
            formatter.write(f"{' ' * formatter.current_indent}{line}\n")


# -- wrong use --------------------------------------------------------------------------------------------------------
class WrongUse(click.ClickException):
    """The command was typed wrong: one sentence, exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.format_message()}", file=file, err=file is None)


@contextmanager
def one_reason() -> Iterator[None]:
    """Around everything that reads a command line. A group that is asked for nothing shows its help, as ever."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        reason = " ".join(error.format_message().split()).removesuffix(".")
        path = "droveway" if error.ctx is None else error.ctx.command_path
        between = "" if reason.endswith("?") else ";"
        raise WrongUse(f"{reason}{between} '{path} --help' shows how it is used") from None
