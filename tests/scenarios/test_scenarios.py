"""Each scenario shows what stands in its file. After a change that is meant, run
`python -m tests.scenarios.play --rewrite` and read what became of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from droveway import simulation
from tests.scenarios.play import PLAYERS, difference, files
from tests.scenarios.text import INDENT, WrongScenario, rewritten

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scenarios.md"


def again(text: str) -> str:
    return asyncio.run(rewritten(text, "a.txt", PLAYERS))


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_it_shows_what_stands_in_it(path: Path) -> None:
    assert not (found := difference(path)), f"{found}\n\nis it meant? python -m tests.scenarios.play --rewrite"


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_it_begins_with_what_it_is_about(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ") and any(line.startswith(INDENT) for line in lines)
    assert all(len(line) <= 120 for line in lines if line.startswith("#")), f"{path.name}: a comment is too long"


def test_the_page_names_every_scenario_and_every_act() -> None:
    page = PAGE.read_text()
    assert [path.stem for path in files() if f"`{path.stem}`" not in page] == []
    acts = {one[3:].replace("_", "-") for kind in PLAYERS.values() for one in dir(kind) if one.startswith("on_")}
    assert [act for act in sorted(acts) if not re.search(rf"`{act}[ `]", page)] == []


def test_a_scenario_of_a_seed_is_of_one_that_was_bad() -> None:
    once_bad = (Path(simulation.__file__).parent / "once_bad.txt").read_text()
    seeds = [path.stem.removeprefix("seed_") for path in files() if path.stem.startswith("seed_")]
    assert seeds and all(re.search(rf"^{seed}\s", once_bad, re.MULTILINE) for seed in seeds)


def test_rewriting_keeps_comments_and_acts_and_changes_what_was_shown() -> None:
    text = "# why\n\nplay: placement\nhost h1\n\n# here\nplace ram_mb=512\n    h9, of 7 that fit\n"
    now = again(text)
    assert now == text.replace("h9, of 7", "h1, of 1") and again(now) == now


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty; begin with 'play:' and one of detector, placement, sagas"),
        ("play: chess\n", "a.txt:1: begin with 'play:' and one of detector, placement, sagas"),
        ("play: placement\nplaice\n", r"a.txt:2: there is no act 'plaice'; there are change, group, host, place, set"),
        ("play: placement\nhost h1\nplace ram=512\n", "a.txt:3: place ram=512: PlacementRequest has no ram"),
        ("play: detector\nhang h7\n", "a.txt:2: hang h7: 'h7'"),
        ("play: detector\nwait soon\n", "a.txt:2: wait soon: could not convert"),
    ],
)
def test_a_wrong_scenario_says_where_and_why(text: str, why: str) -> None:
    with pytest.raises(WrongScenario, match=why):
        again(text)
