"""The fence: what was written is there after a crash, a torn line is not, and the log does not grow for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from droveway.agents.fences import Fence, Fences, FileFences, MemoryFences


def test_the_last_word_counts_after_a_restart(tmp_path: Path) -> None:
    fences = FileFences(tmp_path / "state" / "fences.log")
    for generation in range(1, 6):
        fences.write("a", Fence(generation, "Start"))
        fences.note("a", Fence(generation, "Start", "refused", "no “disk”\nat all"))
    fences.write("b", Fence(9, "Remove"))
    fences.close()
    again = FileFences(tmp_path / "state" / "fences.log")
    assert again.read("a") == Fence(5, "Start", "refused", "no “disk”\nat all")
    assert again.read("b") == Fence(9, "Remove")
    assert again.read("c") == Fence()


@pytest.mark.parametrize("torn", [b'["b",{"generation":', b"\0\0\0\0", b'["a",{"generation":99}]'])
def test_a_torn_line_does_not_count_and_does_no_harm(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "fences.log"
    fences = FileFences(path)
    fences.write("a", Fence(3, "Stop"))
    fences.close()
    with path.open("ab") as log:
        log.write(torn)
    again = FileFences(path)
    assert again.read("a") == Fence(3, "Stop")
    again.write("b", Fence(1, "Start"))
    again.close()
    assert FileFences(path).read("b") == Fence(1, "Start")


def test_a_long_log_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "fences.log"
    fences = FileFences(path)
    for generation in range(1500):
        fences.note("a", Fence(generation, "Start"))
    fences.close()
    FileFences(path).close()
    assert path.read_bytes().count(b"\n") == 1
    assert FileFences(path).read("a").generation == 1499


@pytest.mark.parametrize("make", [MemoryFences, None])
def test_both_kinds_agree(tmp_path: Path, make: type[MemoryFences] | None) -> None:
    fences: Fences = make() if make else FileFences(tmp_path / "fences.log")
    fences.write("a", Fence(1, "Start"))
    fences.note("a", Fence(1, "Start", "ok"))
    assert fences.read("a").outcome == "ok"
