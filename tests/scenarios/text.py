"""A scenario as a text file: acts, and beneath each of them, indented, what followed.

The first line that is no comment says what plays it: `play: detector`. Then each line that begins in the first column
is an act, lines that are indented are what it showed, and `#` begins a comment. Rewriting a scenario puts what the
acts show now in the place of what stood beneath them; comments, empty lines and acts stay as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

INDENT = "    "


class WrongScenario(Exception):
    """The file cannot be played; the message names the file, the line and what is wrong."""


class Act(NamedTuple):
    line: int
    verb: str
    words: tuple[str, ...]
    options: dict[str, str]  # words of the form key=value


class Player(Protocol):
    """One world. An act is the method of that name with `on_` before it; it returns the lines that it shows."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def _act(line: int, text: str) -> Act:
    verb, *words = text.split()
    plain = tuple(word for word in words if "=" not in word)
    return Act(line, verb, plain, dict(word.split("=", 1) for word in words if "=" in word))


def _method(player: Player, act: Act, name: str) -> Callable[[Act], Awaitable[Sequence[str]]]:
    found = getattr(player, f"on_{act.verb.replace('-', '_')}", None)
    if found is None:
        verbs = ", ".join(sorted(one[3:].replace("_", "-") for one in dir(player) if one.startswith("on_")))
        raise WrongScenario(f"{name}:{act.line}: there is no act {act.verb!r}; there are {verbs}")
    return found  # type: ignore[no-any-return]


def player_of(text: str, name: str, players: dict[str, type[Player]]) -> Player:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            kind = line.removeprefix("play:").strip()
            if not line.startswith("play:") or kind not in players:
                raise WrongScenario(f"{name}:{number}: begin with 'play:' and one of {', '.join(sorted(players))}")
            return players[kind]()
    raise WrongScenario(f"{name}: it is empty; begin with 'play:' and one of {', '.join(sorted(players))}")


async def rewritten(text: str, name: str, players: dict[str, type[Player]]) -> str:
    """The same scenario with what its acts show now. Raises WrongScenario."""
    player, lines, has_begun = player_of(text, name, players), list[str](), False
    await player.open()
    try:
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith(INDENT):
                continue
            lines.append(line)
            if not line.strip() or line.startswith("#"):
                continue
            if not has_begun:
                has_begun = True  # the line that names the player
                continue
            act = _act(number, line)
            try:
                shown = await _method(player, act, name)(act)
            except (LookupError, ValueError) as error:
                raise WrongScenario(f"{name}:{number}: {line.strip()}: {error}") from error
            lines += [f"{INDENT}{one}".rstrip() for one in shown]
    finally:
        await player.close()
    return "\n".join(lines) + "\n"
