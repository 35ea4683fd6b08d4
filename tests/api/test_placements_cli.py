"""`droveway placement …` and `droveway audit` as an operator types them, against an API that is really served."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from droveway.cli import tables
from droveway.control.engine.nudges import Nudges
from droveway.control.scheduling.dry_run import DryRun
from droveway.control.scheduling.placer import Placer
from droveway.domain.placement import PlacementSettings
from tests.api.test_services_cli import Served

FINDING = {
    "key": "stray claim/9/h2",
    "kind": "stray claim",
    "severity": "medium",
    "what": "migration 9",
    "where": "h2",
    "since_us": 1_700_000_000_000_000,
    "reason": "nothing migrates",
    "repair": "release claim",
    "plan": "release the claim",
    "subject": "9",
}
NO_UTF8 = "\udcff"  # a byte that is none, as Python hands it on
BY_HAND = FINDING | {"key": "no place/a/-", "kind": "no place", "where": "-", "repair": "human", "plan": "look at it"}


class Operator(Served):
    """Its audits find what they are told to, and repair what `mends` says."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "droveway.main", *words]

    def finds(self, *findings: dict[str, Any], mends: bool = True) -> list[list[str]]:
        asked: list[list[str]] = []

        async def audit() -> dict[str, Any]:
            return {
                "at_us": 0,
                "hosts": 3,
                "hosts_answered": 2,
                "instances": 5,
                "more": 0,
                "findings": list(findings),
                "not_looked_at": [{"host": "h3", "because": "it is down"}],
            }

        async def repair(keys: list[str]) -> dict[str, Any]:
            asked.append(keys)
            chosen = [finding for finding in findings if finding["key"] in keys]
            left = [] if mends else [{"finding": finding, "because": "it is still so"} for finding in chosen]
            return {"done": chosen if mends else [], "left": left, "gone": []}

        self.world.control.audit, self.world.control.repair = audit, repair
        return asked


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path)
    placer = Placer(made.world.store, made.world.clock, Nudges(), PlacementSettings(), 1.0)
    trial = DryRun(made.world.store, placer)
    made.world.control.try_placement, made.world.control.replay_placement = trial.attempt, trial.replay
    yield made
    made.stop()


def test_an_audit_that_finds_nothing_exits_with_0(served: Operator) -> None:
    served.finds()
    assert served.says("audit") == (
        0,
        ["nothing is wrong: 5 servers, 2 of 3 hosts answered", "not looked at: h3: it is down"],
    )


def test_what_is_found_is_shown_and_nothing_is_done_without_being_asked(served: Operator) -> None:
    asked = served.finds(FINDING, BY_HAND)
    code, lines = served.says("audit")
    assert code == 1 and lines[0].startswith("2 wrong: ") and not asked
    at = lines.index("medium    stray claim: migration 9 on h2")
    assert lines[at + 1 : at + 3] == [
        "          nothing migrates (since 2023-11-14 22:13:20)",
        "          --repair: release the claim",
    ]
    assert "          by hand: look at it" in lines
    code, lines = served.says("audit", "--repair")  # nobody says yes
    assert code == 1 and "what would be done, each only if it is still true then:" in lines and not asked
    code, lines = served.says("audit", "--repair", "--json")
    assert code == 2 and "add --yes" in lines[-1] and not asked


@pytest.mark.parametrize(
    ("findings", "mends", "code"),
    [
        ((FINDING,), True, 0),
        ((FINDING,), False, 1),
        ((FINDING, BY_HAND), True, 1),
        ((BY_HAND,), True, 1),
    ],
)
def test_a_repair_does_what_is_safe_and_says_what_is_left(
    served: Operator, findings: Any, mends: bool, code: int
) -> None:
    asked = served.finds(*findings, mends=mends)
    found, lines = served.says("audit", "--repair", "--yes")
    assert found == code
    if FINDING not in findings:
        assert not asked
        return
    assert asked == [[FINDING["key"]]]
    said = "done: migration 9: release the claim" if mends else "left: migration 9: it is still so"
    assert said in lines


def test_wrong_words_are_one_reason(served: Operator) -> None:
    for words, said in (
        (
            ("show", "nobody"),
            "Error: There is no server 'nobody'; 'openstack server list --all-projects' shows those there are.",
        ),
        (("replay", "nobody"), "Error: There is no server 'nobody'"),
        (("try", "--flavor", "nope"), "Error: There is no flavor 'nope'; 'openstack flavor list --all' shows those"),
        (("try", "--flavor", "tiny", "--host", "h9"), "Error: there is no host h9"),
        (("try",), "Error: Name a flavor, or a server"),
        (("try", "--flavor", "tiny", "--property", "x"), "Error: --property x must be KEY=VALUE"),
        (("try", "--server", "a", "--zone", "z"), "Error: A server's request is tried again as it was: leave out zone"),
        (("try", "--flavor", NO_UTF8), "Error: '\\udcff' is not UTF-8 text"),
        (("show", NO_UTF8), "Error: '\\udcff' is not UTF-8 text"),
        (("show", "a", "--host", NO_UTF8), "Error: '\\udcff' is not UTF-8 text"),
        (("show", ""), "Error: a name is wanted"),
        (("show", "a/b"), "Error: There is no server 'a/b'"),
    ):
        code, lines = served.says("placement", *words)
        is_typed_wrong = "KEY=VALUE" in said or "UTF-8" in said or "a name is" in said
        assert code == (2 if is_typed_wrong else 1) and len(lines) == 1 and lines[0].startswith(said), lines


def test_every_name_that_is_asked_for_may_be_odd(served: Operator) -> None:
    for words in (("host", "show"), ("saga", "show"), ("saga", "retry"), ("task", "list"), ("service", "why")):
        for name in ("a/b", "a b", "ünï", "a\nb", "..", "%00", "x" * 2000, "", NO_UTF8):
            code, lines = served.says(*words, name)
            assert code == (2 if name in ("", NO_UTF8) else 1), (words, name, lines)
            assert len(lines) == 1 and lines[0].startswith("Error: "), (words, name, lines)
            assert len(lines[0]) < 200 and "esource could not" not in lines[0], lines


def test_a_dry_run_is_told_rule_by_rule(served: Operator) -> None:
    code, lines = served.says("placement", "try", "--flavor", "tiny", "--host", "h2", "--count", "2")
    assert code == 0 and lines[0] == "tried now, nothing was changed: h2"
    assert lines[1] == "asked: 1 vcpu, 128 MiB memory, 1 GiB disk; on h2 and nowhere else"
    assert lines[2].startswith("looked at 2 hosts, 1 fitted; seed ")
    assert lines[4].split() == ["Rule", "Fell", "Left", "Because"]
    assert lines[5].split() == ["asked", "1", "1", "h2", "was", "asked", "for"]
    assert "2 of 2 would get a host; the above is the decision about the first" in lines
    code, lines = served.says(
        "placement", "try", "--flavor", "tiny", "--property", "hw_architecture=none", "--count", "2"
    )
    assert code == 0 and lines[-1] == "0 of 2 would get a host; the above is the decision about the first"
    code, lines = served.says("placement", "list", "--blocked")
    assert code == 0 and lines[0].split() == ["Server", "Since", "Until", "Asked", "Because"]


def test_a_long_reason_stands_beneath_its_row_where_its_column_would_be_narrow() -> None:
    columns = ("Server", "Since", "Asked", "Because")
    row = ("g1", "2026-11-21 09:18:08", "1 vcpu, 128 MiB memory, 1 GiB disk; " * 2, "sim1: it is down; " * 9)
    assert (tables.is_tight(columns, [row], 80), tables.is_tight(columns, [row], 400)) == (True, False)
    assert not tables.is_tight(columns, [("g1", "-", "-", "short")], 80)
    for width in (80, 120):
        head, told, other = tables.stacked(columns, [row, ("g2", "-", "-", "-")], width)
        assert head.split() == list(columns)
        lines = told.splitlines()
        assert max(map(len, lines)) <= width
        assert {line[:4] for line in lines if "down" in line} == {"    "}
        assert " ".join(told.split()).count("it is down;") == 9
        assert other.split() == ["g2", "-", "-"]
