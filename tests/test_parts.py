"""The whole run: what failed beside others is played once more, alone, and named whatever comes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab import marked_tests, parts

OPTION = "def pytest_addoption(parser):\n    parser.addoption('--full', action='store_true')\n"
TESTS = """
import os
import pytest
from pathlib import Path

HERE = Path(__file__).parent

@pytest.mark.parametrize("word", ["a b", "c"])
def test_fails_beside(word):
    seen = HERE / f"seen {word}"
    is_first = not seen.exists()
    seen.touch()
    assert word == "c" or not is_first

def test_fails_always():
    assert "DROVEWAY_FAILED_TESTS" not in os.environ  # what a test starts writes nothing there
    assert not (HERE / "always").exists()

def test_crashes_when_it_is_played_again():
    seen = HERE / "seen once"
    if seen.exists():
        os._exit(9)
    seen.touch()
    assert not (HERE / "crash").exists()
"""
CRASHES = "import os\n\ndef test_crashes():\n    os._exit(9)\n"
INTERRUPTED = "def test_interrupted():\n    raise KeyboardInterrupt\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of the clone: tests of which one fails the first time."""
    monkeypatch.setattr(parts, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(parts, "PYTEST", (*parts.PYTEST, "-p", "xdist.plugin", "-p", "no:cacheprovider"))
    monkeypatch.setenv("PYTHONPATH", str(parts.CLONE))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(parts, "CLONE", tmp_path)
    (tmp_path / "conftest.py").write_text(OPTION)
    (tmp_path / "test_some.py").write_text(TESTS)
    return tmp_path


def some(*arguments: str) -> parts.Part:
    return parts.Part("some", ((*parts.PYTEST, *arguments),))


def words(told: str) -> dict[str, str]:
    """What the summary says of each part."""
    rows = told.rpartition("CPU s\n")[2].partition("\nall ")[0].splitlines()
    return {row[:12].strip(): row[13:23].strip() for row in rows}


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_what_holds_alone_is_good_and_named(
    home: Path, capsys: pytest.CaptureFixture[str], workers: tuple[str, ...]
) -> None:
    run = parts.Run([[some(*workers, "test_some.py")], [parts.Part("other", (("true",),))]], [])
    assert run.all() == 0
    told = capsys.readouterr().out
    assert words(told) == {"some": "held alone", "other": "good", "again": "good"}
    assert told.endswith("\nfailed beside others, held alone: test_some.py::test_fails_beside[a b]\n")


def test_what_fails_again_is_bad_and_what_holds_is_named_all_the_same(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "always").touch()
    other = parts.Part("other", ((*parts.PYTEST, "test_some.py::test_fails_always"),))
    assert parts.Run([[some("test_some.py::test_fails_beside")], [other]], []).all() == 1
    told = capsys.readouterr().out
    assert words(told) == {"some": "held alone", "other": "bad (1)", "again": "bad (1)"}
    assert "\nfailed beside others, held alone: test_some.py::test_fails_beside[a b]\nother is bad (1): " in told


def test_a_second_try_that_crashes_shows_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "crash").touch()
    assert parts.Run([[some("test_some.py")]], []).all() == 1
    assert "held alone" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "workers"),
    [("import nowhere_at_all\n", ("-n", "1")), (CRASHES, ("-n", "1")), (INTERRUPTED, ())],
)
def test_what_is_no_failure_of_a_test_is_not_played_again(home: Path, text: str, workers: tuple[str, ...]) -> None:
    (home / "test_bad.py").write_text(text)
    run = parts.Run([[some(*workers, "test_some.py", "test_bad.py")]], [])
    assert run.all() == 1
    assert "again" not in [part.name for part in run.parts]


def test_many_failures_are_not_played_again(home: Path) -> None:
    many = f"@pytest.mark.parametrize('n', range({parts.AGAIN_MAX + 1}))\ndef test_n(n):\n    assert False\n"
    (home / "test_some.py").write_text(f"import pytest\n\n{many}")
    run = parts.Run([[some("test_some.py")]], [])
    assert run.all() == 1
    assert "again" not in [part.name for part in run.parts]


def test_what_measures_promptness_has_no_second_try(home: Path) -> None:
    run = parts.Run([], [some("test_some.py")])
    assert run.all() == 1
    assert "again" not in [part.name for part in run.parts]


HANGS = """
import asyncio, threading
import pytest
from tests import conftest

conftest.AGAIN_S = 1.0

@pytest.mark.timeout(3)
def test_hangs():
    asyncio.run(asyncio.to_thread(threading.Event().wait, 60))

def test_next():
    import os
    print("the next one is played", flush=True)
    os._exit(3)  # not to wait for the thread
"""


def test_a_test_whose_thread_waits_ends_too(home: Path) -> None:
    """Its timeout interrupts it, and then the end of its event loop, which waits for that thread."""
    (home / "test_hangs.py").write_text(HANGS)
    words = ("-p", "tests.conftest", "-p", "pytest_timeout", "-s", "test_hangs.py")
    (home / "conftest.py").unlink()
    done = subprocess.run([*parts.PYTEST, *words], cwd=home, capture_output=True, text=True, check=False, timeout=200)
    assert "the next one is played" in done.stdout, done.stdout + done.stderr
    assert "waits in" in done.stderr


def test_a_part_loads_the_files_that_may_have_its_tests_and_no_others() -> None:
    found = {marker: marked_tests.files(marker) for marker in marked_tests.MARKERS}
    assert {"tests/lab/test_up.py", "tests/drivers/test_hypervisor_resources.py"} < set(found["lab"])  # it imports
    assert {"tests/store/test_both.py", "tests/test_roles.py"} < set(found["servers"])  # a conftest beside it
    assert not any("tests/domain/" in name for names in found.values() for name in names)


def test_a_marker_that_comes_by_another_way_is_refused(home: Path) -> None:
    """What would be run by no part: the file lies where the clone has one without that marker."""
    path = home / "tests" / "domain" / "test_liveness.py"
    path.parent.mkdir(parents=True)
    path.write_text("import pytest\n\nmade = getattr(pytest.mark, 'lab')\n\n\n@made\ndef test_it():\n    pass\n")
    (home / "pytest.ini").write_text("[pytest]\nmarkers = lab: here\n")
    done = subprocess.run(
        [*parts.PYTEST, "tests/domain/test_liveness.py"], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4 and "marked lab, and lab/marked_tests.py does not see it" in done.stderr, done
