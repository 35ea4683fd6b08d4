"""An operator's own scripts: `[[periodic]]` of the configuration, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

SCRIPTS_MAX = 100
DAY_S = 24 * 3600.0
ARGUMENT_CHARS_MAX = 32_768
CONTROL, AGENTS = "control", "agents"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ScriptConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One [[periodic]]. `command` is a list, run as it stands, or a string for /bin/sh. `on` is control, agents (each
    one) or a list of hosts."""

    name: str  # in `task list`
    command: str | tuple[str, ...]  # what is run
    every_s: float  # between two turns
    timeout_s: float  # after which it is ended
    on: str | tuple[str, ...] = AGENTS  # control | agents | a list of hosts

    @property
    def argv(self) -> tuple[str, ...]:
        return ("/bin/sh", "-c", self.command) if isinstance(self.command, str) else self.command

    def runs_on(self, host: str) -> bool:
        """Whether that host's agent runs it."""
        return self.on == AGENTS if isinstance(self.on, str) else host in self.on


def wrongs(scripts: Sequence[ScriptConfig], hosts: Iterable[str]) -> list[str]:
    """Every sentence that is wrong with them."""
    names = [script.name for script in scripts]
    found = [f"two [[periodic]] are named {name}; names must differ" for name in names if names.count(name) > 1]
    if len(scripts) > SCRIPTS_MAX:
        found.append(f"there are {len(scripts)} [[periodic]]; at most {SCRIPTS_MAX} are taken")
    known = set(hosts)
    for script in scripts:
        found += _wrongs(script, known)
    return found


def _wrongs(script: ScriptConfig, hosts: set[str]) -> list[str]:
    name, on = script.name, script.on
    if not _NAME.fullmatch(name):
        return [f"the name of a [[periodic]] = {name!r} must be 1 to 64 of the characters a-z A-Z 0-9 . - _"]
    found = []
    if not 1 <= script.every_s <= 30 * DAY_S:
        found.append(f"periodic {name}: every_s = {script.every_s} must be from 1 to {30 * DAY_S:.0f} seconds")
    if not 0.1 <= script.timeout_s <= DAY_S:
        found.append(f"periodic {name}: timeout_s = {script.timeout_s} must be from 0.1 to {DAY_S:.0f} seconds")
    if not (script.command.strip() if isinstance(script.command, str) else any(script.command[:1])):
        found.append(f"periodic {name}: command is empty; write a list such as ['/bin/sync'], or a line for a shell")
    if any("\0" in part or len(part) > ARGUMENT_CHARS_MAX for part in script.argv):
        found.append(f"periodic {name}: command holds a nul character, or more than {ARGUMENT_CHARS_MAX} characters")
    if on in ("", ()) or (isinstance(on, str) and on not in (CONTROL, AGENTS)):
        found.append(f"periodic {name}: on = {on!r} must be control, agents, or a list of the names of [[host]]s")
    elif not isinstance(on, str):
        found += [
            f"periodic {name}: on names {host}; there is no [[host]] of that name" for host in on if host not in hosts
        ]
    return found
