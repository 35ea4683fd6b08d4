"""A plugin of pytest, `-p lab.failed_tests`: keeps the names of the tests that failed, for lab/parts.py.

One a line in the file that DROVEWAY_FAILED_TESTS names. What is no test's failure, as a file that cannot be collected
or a worker that crashed, stands there with a ! before it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Taken out: neither workers nor what the tests start write to it.
_kept = os.environ.pop("DROVEWAY_FAILED_TESTS", "")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _keep(report.nodeid if report.when in {"setup", "call", "teardown"} else f"!{report.nodeid}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _keep(f"!{report.nodeid}")


def _keep(line: str) -> None:
    if _kept:
        with Path(_kept).open("a") as file:
            file.write(f"{line}\n")


def failed(kept: Path) -> list[str] | None:
    """The tests that failed, each once; None when that is not all that went wrong."""
    lines = list(dict.fromkeys(kept.read_text().splitlines())) if kept.exists() else []
    return None if not lines or any(line.startswith("!") for line in lines) else lines
