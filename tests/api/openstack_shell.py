"""The unmodified `openstack` command in a process that is started once: a line of JSON with its words in, a line with
its exit code, output and complaints out. Starting it for each command would take longer than what it does."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from openstackclient import shell


def main() -> None:
    answers = sys.stdout
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = shell.OpenStackShell().run(json.loads(line))
            except SystemExit as end:  # of words that the command does not know
                code = end.code
        answers.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
