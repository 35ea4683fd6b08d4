"""What a network agent keeps of its plan outlives it, however it ends, and a change costs no more than it is."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from droveway.agents import kept_plan
from droveway.agents.kept_plan import FileKeptPlan
from droveway.domain.network_change import between
from droveway.domain.network_plan import HostNetworks
from tests.drivers import network_worlds as w


def plan(revision: int, *numbers: int) -> HostNetworks:
    return HostNetworks(revision, "192.0.2.1", (), (w.planned_network(),), tuple(map(w.port, numbers)))


def change(kept: FileKeptPlan, old: HostNetworks, new: HostNetworks) -> HostNetworks:
    kept.change(between(old, new), new)
    return new


def test_changes_follow_the_whole_plan(tmp_path: Path) -> None:
    path = tmp_path / "networks.json"
    kept = FileKeptPlan(path)
    assert kept.read() is None
    kept.write(plan(1, 11))
    whole = path.read_bytes()
    newest = plan(1, 11)
    for new in (plan(2, 11, 12), plan(5, 12), plan(6, 12, 13)):
        newest = change(kept, newest, new)
        assert FileKeptPlan(path).read() == newest
    assert path.read_bytes() == whole, "it was not written again"
    kept.write(plan(7))
    assert FileKeptPlan(path).read() == plan(7) and not (tmp_path / "networks.changes").read_bytes()


def test_half_a_line_was_not_acted_on_and_spoils_nothing_after_it(tmp_path: Path) -> None:
    path = tmp_path / "networks.json"
    kept = FileKeptPlan(path)
    kept.write(plan(1, 11))
    newest = change(kept, plan(1, 11), plan(2, 11, 12))
    with (tmp_path / "networks.changes").open("ab") as file:
        file.write(msgspec.json.encode(between(newest, plan(3)))[:-9])
    again = FileKeptPlan(path)
    assert again.read() == newest
    change(again, newest, plan(3, 13))
    assert FileKeptPlan(path).read() == plan(3, 13)


def test_changes_of_before_the_whole_plan_are_passed_over(tmp_path: Path) -> None:
    """It ended between the two files."""
    path = tmp_path / "networks.json"
    kept = FileKeptPlan(path)
    kept.write(plan(1, 11))
    change(kept, plan(1, 11), plan(2, 11, 12))
    path.write_bytes(msgspec.json.encode(plan(2, 11, 12)))
    assert FileKeptPlan(path).read() == plan(2, 11, 12)


def test_what_could_not_be_written_is_written_whole_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "networks.json"
    kept = FileKeptPlan(path)
    kept.write(plan(1, 11))
    with monkeypatch.context() as full:
        write = os.write
        full.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OSError, match="No space left"):
            change(kept, plan(1, 11), plan(2, 11, 12))
    assert FileKeptPlan(path).read() == plan(1, 11)
    change(kept, plan(1, 11), plan(3, 13))
    assert FileKeptPlan(path).read() == plan(3, 13)


def test_a_long_row_of_changes_is_made_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_plan, "CHANGES_MIN_BYTES", 2_000)
    kept, newest = FileKeptPlan(tmp_path / "networks.json"), plan(1)
    kept.write(newest)
    sizes = []
    for revision in range(2, 40):
        newest = change(kept, newest, plan(revision, revision))
        sizes.append((tmp_path / "networks.changes").stat().st_size)
    assert FileKeptPlan(tmp_path / "networks.json").read() == newest
    assert max(sizes) < 6_000 and sizes.count(0) >= 2
