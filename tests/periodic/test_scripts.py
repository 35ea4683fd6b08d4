"""[[periodic]] of the configuration: what is taken, and the sentence about each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from droveway.config.file import Config, load
from droveway.domain.faults import WrongConfiguration
from droveway.domain.service_kinds import COMPUTE, SCRIPTS

HOST = '[[host]]\nname = "s1"\nhypervisor = "simulated"\n'
SCRIPT = '[[periodic]]\nname = "tidy"\ncommand = ["/bin/true"]\nevery_s = 60\ntimeout_s = 5\n'


def loaded(directory: Path, text: str) -> Config:
    path = directory / "droveway.toml"
    path.write_text(f'state_path = "/tmp/d"\n{text}')
    return load(path)


def test_a_script_says_where_it_runs(tmp_path: Path) -> None:
    line = SCRIPT.replace("tidy", "line").replace('["/bin/true"]', '"true | true"')
    config = loaded(
        tmp_path,
        SCRIPT
        + line
        + 'on = "control"\n'
        + SCRIPT.replace("tidy", "one")
        + 'on = ["s1"]\n'
        + HOST
        + HOST.replace("s1", "s2"),
    )
    assert [script.name for script in config.scripts_on("s1", COMPUTE)] == ["tidy", "one"]
    assert [script.name for script in config.scripts_on("s2", COMPUTE)] == ["tidy"]
    (on_control,) = config.scripts_of_control
    assert on_control.argv == ("/bin/sh", "-c", "true | true")
    assert config.periodic[0].argv == ("/bin/true",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("every_s = 60", "every_s = 0.5"), ["periodic tidy", "every_s = 0.5", "from 1 to"]),
        (("every_s = 60", "every_s = nan"), ["every_s = nan"]),
        (("timeout_s = 5", "timeout_s = 0.0"), ["timeout_s = 0.0", "from 0.1"]),
        (("timeout_s = 5", "timeout_s = 1e9"), ["timeout_s = 1000000000.0", "to 86400"]),
        (("timeout_s = 5", ""), ["missing key", "timeout_s"]),
        (("timeout_s", "timeout"), ["unknown key", "timeout", "timeout_s"]),
        (('name = "tidy"', 'name = "a b"'), ["[[periodic]]", "'a b'"]),
        (('["/bin/true"]', "[]"), ["command is empty"]),
        (('["/bin/true"]', '[""]'), ["command is empty"]),
        (('["/bin/true"]', '" "'), ["command is empty"]),
        (('["/bin/true"]', r'"a\u0000b"'), ["nul character"]),
        (('["/bin/true"]', "7"), ["command"]),
        (("timeout_s = 5", 'timeout_s = 5\non = "everywhere"'), ["on = 'everywhere'", "control, agents, or a list"]),
        (("timeout_s = 5", "timeout_s = 5\non = []"), ["on = ()", "control, agents, or a list"]),
        (("timeout_s = 5", 'timeout_s = 5\non = ["s7"]'), ["on names s7", "no [[host]]"]),
        (("timeout_s = 5", "timeout_s = 5\n" + SCRIPT), ["two [[periodic]] are named tidy"]),
        (
            ("timeout_s = 5", "timeout_s = 5\n" + "".join(SCRIPT.replace("tidy", f"s{n}") for n in range(100))),
            ["there are 101 [[periodic]]", "at most 100"],
        ),
    ],
)
def test_a_wrong_script_does_not_start(tmp_path: Path, change: tuple[str, str], words: list[str]) -> None:
    with pytest.raises(WrongConfiguration) as caught:
        loaded(tmp_path, SCRIPT.replace(*change) + HOST)
    for word in words:
        assert word in caught.value.reason, caught.value.reason


def test_a_service_for_scripts_has_all_of_them_and_the_compute_agent_none(tmp_path: Path) -> None:
    both = HOST + 'services = ["nova-compute", "droveway-scripts"]\n'
    config = loaded(tmp_path, SCRIPT + both + HOST.replace("s1", "s2"))
    assert [script.name for script in config.scripts_on("s1", SCRIPTS)] == ["tidy"]
    assert config.scripts_on("s1", COMPUTE) == ()
    assert [script.name for script in config.scripts_on("s2", COMPUTE)] == ["tidy"]
