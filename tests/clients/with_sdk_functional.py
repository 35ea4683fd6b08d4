"""openstacksdk's own functional tests, of the services that are here: run by its environment, with their packages. One
line of JSON for each test: a skip says why, a failure its last line."""
# ruff: noqa: N802 - the names are unittest's

import json
import sys
import unittest


def _end_of(told: str) -> str:
    lines = [line.strip() for line in told.strip().splitlines() if line.strip() and not line.startswith(("}}}", "---"))]
    return (lines[-1] if lines else "")[:400]


class Told(unittest.TestResult):
    """What became of each, when it is known."""

    def _say(self, test, **what):
        print(json.dumps({"step": test.id().removeprefix("openstack.tests.functional."), **what}), flush=True)

    def addSuccess(self, test, details=None):
        self._say(test, ok=True)

    def addError(self, test, err=None, details=None):
        self.addFailure(test, err, details)

    def addFailure(self, test, err=None, details=None):
        if err is not None:
            said = f"{err[0].__name__}: {err[1]}"
        else:
            told = [one.as_text() for name, one in (details or {}).items() if name.startswith("traceback")]
            said = _end_of(told[0]) if told else "no reason is told"
        self._say(test, ok=False, said=said.replace("\n", " ")[:400])

    def addSkip(self, test, reason=None, details=None):
        if reason is None:
            reason = details["reason"].as_text() if details and "reason" in details else ""
        self._say(test, skipped=True, said=str(reason)[:400])

    def addExpectedFailure(self, test, err=None, details=None):
        self._say(test, ok=True)

    def addUnexpectedSuccess(self, test, details=None):
        self._say(test, ok=True)


loader = unittest.TestLoader()
suite = unittest.TestSuite()
for package in sys.argv[1:]:
    if ".test_" in package:
        suite.addTests(loader.loadTestsFromName(f"openstack.tests.functional.{package}"))
    else:
        import importlib

        there = importlib.import_module(f"openstack.tests.functional.{package}").__path__[0]
        top = importlib.import_module("openstack").__path__[0].rpartition("/")[0]
        suite.addTests(unittest.TestLoader().discover(there, top_level_dir=top))
suite.run(Told())
