"""The fence: what was written is there after a crash, a torn line is not, and the log does not grow for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from droveway.agents.fences import REPORT, Fence, Fences, FileFences, MemoryFences
from droveway.domain.faults import WrongConfiguration
from droveway.domain.model import Subject, SubjectKind, of_instance


def test_the_last_word_counts_after_a_restart(tmp_path: Path) -> None:
    fences = FileFences(tmp_path / "state" / "fences.log")
    for generation in range(1, 6):
        fences.write(of_instance("a"), Fence(generation, "Start"))
        fences.note(of_instance("a"), Fence(generation, "Start", "refused", "no “disk”\nat all"))
    fences.write(of_instance("b"), Fence(9, "Remove"))
    fences.close()
    again = FileFences(tmp_path / "state" / "fences.log")
    assert again.read(of_instance("a")) == Fence(5, "Start", "refused", "no “disk”\nat all")
    assert again.read(of_instance("b")) == Fence(9, "Remove")
    assert again.read(of_instance("c")) == Fence()


@pytest.mark.parametrize("torn", [b'["b",{"generation":', b"\0\0\0\0", b'["a",{"generation":99}]'])
def test_a_torn_line_does_not_count_and_does_no_harm(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "fences.log"
    fences = FileFences(path)
    fences.write(of_instance("a"), Fence(3, "Stop"))
    fences.close()
    with path.open("ab") as log:
        log.write(torn)
    again = FileFences(path)
    assert again.read(of_instance("a")) == Fence(3, "Stop")
    again.write(of_instance("b"), Fence(1, "Start"))
    again.close()
    assert FileFences(path).read(of_instance("b")) == Fence(1, "Start")


def test_a_long_log_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "fences.log"
    fences = FileFences(path)
    for generation in range(1500):
        fences.note(of_instance("a"), Fence(generation, "Start"))
    fences.close()
    FileFences(path).close()
    assert path.read_bytes().count(b"\n") == 1
    assert FileFences(path).read(of_instance("a")).generation == 1499


@pytest.mark.parametrize("make", [MemoryFences, None])
def test_both_kinds_agree(tmp_path: Path, make: type[MemoryFences] | None) -> None:
    fences: Fences = make() if make else FileFences(tmp_path / "fences.log")
    fences.write(of_instance("a"), Fence(1, "Start"))
    fences.note(of_instance("a"), Fence(1, "Start", "ok"))
    assert fences.read(of_instance("a")).outcome == "ok"


def test_one_id_of_two_kinds_has_two_fences(tmp_path: Path) -> None:
    fences = FileFences(tmp_path / "fences.log")
    volume = Subject(SubjectKind.VOLUME, "a")
    fences.write(of_instance("a"), Fence(7, "Stop"))
    fences.write(volume, Fence(2, "Detach"))
    fences.close()
    again = FileFences(tmp_path / "fences.log")
    assert (again.read(of_instance("a")).generation, again.read(volume).generation) == (7, 2)


def test_the_file_of_the_release_before_is_that_of_instances_and_of_the_report(tmp_path: Path) -> None:
    """Its first lines, as that release wrote them; then one of this release behind them."""
    path = tmp_path / "fences.log"
    path.write_bytes(
        b'["0b4c",{"generation":3,"verb":"Prepare","outcome":"","sentence":""}]\n'
        b'["report",{"generation":1795983086,"verb":"report","outcome":"","sentence":""}]\n'
        b'["0b4c",{"generation":9,"verb":"Remove","outcome":"ok","sentence":""}]\n'
        b'["0b4d",{"generation":4,"verb":"Start","outcome":"refused","sentence":"no disk"}]\n'
    )
    for _ in range(2):
        fences = FileFences(path)
        assert fences.read(of_instance("0b4c")) == Fence(9, "Remove", "ok")
        assert fences.read(of_instance("0b4d")) == Fence(4, "Start", "refused", "no disk")
        assert fences.read(REPORT).generation == 1795983086
        fences.close()
    kinds = (b'["instance",', b'["service",')
    assert all(line.startswith(kinds) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize("line", [b'["disc","a",{}]', b'["a"]', b'["instance","a",{},{}]', b'{"a":1}', b"[1,{}]"])
def test_a_line_that_is_none_is_damage(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "fences.log"
    path.write_bytes(line + b"\n")
    with pytest.raises(WrongConfiguration, match="line 1 is damaged"):
        FileFences(path)
