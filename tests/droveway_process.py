"""The command `droveway` without a start for each: a process that has loaded it forks for every command, which then has
arguments, environment, output and exit code of its own, as in a shell.

It ends with the test process: its input does.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

CLONE = Path(__file__).parents[1]
COMMAND_S = 60  # after which a command is ended by a signal
ENDS_S = 30.0


class DrovewayProcess:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.droveway_process"],
            cwd=CLONE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._one_at_a_time = threading.Lock()

    def run(self, words: list[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Its exit code (below 0: the signal that ended it), output and complaints."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None, "they are pipes"
        with self._one_at_a_time:
            asked.write(json.dumps([words, dict(environment)]) + "\n")
            asked.flush()
            code, out, err = json.loads(answers.readline())
        return code, out, err

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None, "they are pipes"
        self._process.stdin.close()
        self._process.wait(ENDS_S)
        self._process.stdout.close()


@cache
def of_this_process() -> DrovewayProcess:
    made = DrovewayProcess()
    atexit.register(made.close)
    return made


def _forked(words: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _become(words, environment, out.fileno(), err.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


def _become(words: list[str], environment: dict[str, str], out: int, err: int) -> None:
    """The command: it ends this process."""
    from droveway import main

    signal.alarm(COMMAND_S)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["droveway", *words]
    code = 70
    try:
        main.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:  # noqa: BLE001 - as Python would at its end
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    """A line of JSON with its words and environment in, a line with its exit code, output and complaints out."""
    from droveway import main  # noqa: F401 - all that a command needs, once
    from droveway.cli import operator, services  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_forked(*json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
