"""What holds of every command: `-h`, an example, a help that is not cut, JSON, one sentence for a wrong use."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from droveway.cli.commands import Command, Group, first_reason
from droveway.main import droveway

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
STARTS = {"all", "control", "api", "heart"}  # they run until they are told to stop, and say what happens in a log
WITHOUT_JSON = STARTS | {"console"}  # a terminal, and no answer


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from walk(found, (*path, name))


EVERY = list(walk(droveway))
LEAVES = [(path, command) for path, command in EVERY if not isinstance(command, click.Group)]


def named(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else ""


def help_of(path: tuple[str, ...], option: str) -> str:
    told = CliRunner().invoke(droveway, [*path, option], prog_name="droveway")
    assert told.exit_code == 0, told.output
    return told.output


@pytest.mark.parametrize(("path", "command"), EVERY, ids=named)
def test_each_help_has_an_example_and_is_asked_for_in_both_ways(path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Command | Group)
    told = help_of(path, "-h")
    assert told == help_of(path, "--help")
    lines = told.splitlines()
    examples = [line.strip() for line in lines[lines.index("Example:") + 1 :]]
    assert examples == command.example.splitlines()
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.|\S+\.\.\.(?=\s|\])", "", told), "something is cut"
    assert all(option.help for option in command.params if isinstance(option, click.Option)), "an option without help"


@pytest.mark.parametrize(("path", "command"), EVERY, ids=named)
def test_an_example_is_a_command_that_there_is(path: tuple[str, ...], command: click.Command) -> None:
    """It is parsed as far as that goes without doing it: a wrong option or a missing argument fails."""
    assert isinstance(command, Command | Group)
    for line in command.example.splitlines():
        program, *words = shlex.split(line)
        assert program == "droveway"
        found: click.Command = droveway
        assert words[: len(path)] == list(path) or not path, line
        while isinstance(found, click.Group) and words and not words[0].startswith("-"):
            context = click.Context(found)
            name, inner, words = found.resolve_command(context, words)
            assert inner is not None, name
            found = inner
        if "--help" not in words:
            found.make_context(found.name, list(words))


@pytest.mark.parametrize(("path", "command"), [one for one in EVERY if isinstance(one[1], click.Group)], ids=named)
def test_a_list_of_commands_says_the_whole_first_reason(path: tuple[str, ...], command: click.Command) -> None:
    told = " ".join(help_of(path, "-h").split())
    assert isinstance(command, click.Group)
    for name in command.list_commands(click.Context(command)):
        inner = command.get_command(click.Context(command), name)
        assert inner is not None
        assert f"{name} {first_reason(inner)}" in told


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=named)
def test_every_verb_that_prints_prints_json(path: tuple[str, ...], command: click.Command) -> None:
    has = any(option.name == "as_json" and option.opts == ["--json"] for option in command.params)
    assert has is (path[0] not in WITHOUT_JSON)


@pytest.mark.parametrize(("path", "command"), EVERY, ids=named)
def test_a_wrong_use_is_one_reason_and_2(path: tuple[str, ...], command: click.Command) -> None:
    for words in (("--no-such-option",), ("no-such-word",) * 12):
        if path and path[0] == "config" and len(path) == 2 and words[0] != "--no-such-option":
            continue  # any number of files may be named
        told = CliRunner().invoke(droveway, [*path, *words], prog_name="droveway")
        assert told.exit_code == 2, told.output
        lines = told.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("Error: ") and told.stdout == "", told.output
        assert lines[0].endswith("--help' shows how it is used"), lines


def test_a_command_without_an_example_is_not_made() -> None:
    with pytest.raises(TypeError, match="example"):
        click.command(cls=Command)(lambda: None)
    with pytest.raises(TypeError, match="example"):
        click.group(cls=Group, example="droveway x")(lambda: None).command("y")(lambda: None)


# -- completion -------------------------------------------------------------------------------------------------------
def complete(shell: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'droveway'; from droveway.main import main; main()"],
        env=os.environ | {"_DROVEWAY_COMPLETE": shell, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_shells_complete_what_is_typed() -> None:
    told = complete("bash_complete", COMP_WORDS="droveway service w", COMP_CWORD="2")
    assert told.split() == ["plain,watch", "plain,why"]
    told = complete("zsh_complete", COMP_WORDS="droveway host list --j", COMP_CWORD="3")
    assert "--json" in told


@pytest.mark.parametrize("shell", ["zsh", "fish"])  # bash itself must be there, and of some age, for its script
def test_the_documented_way_to_completion_is_one(shell: str) -> None:
    assert f"_DROVEWAY_COMPLETE={shell}_source droveway" in OPERATING.read_text()
    assert "_DROVEWAY_COMPLETE" in complete(f"{shell}_source")
