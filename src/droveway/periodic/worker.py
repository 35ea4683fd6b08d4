"""Carries out one function in this process: `python -m droveway.periodic.worker MODULE:FUNCTION`. The last line of
stdout is what it returned, or, with exit code 1, the sentence of what it raised."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

from droveway.domain.faults import Fault

LINE_CHARS = 1000


def main(where: str) -> int:
    """The exit code. What the function itself prints goes to stderr."""
    ours = os.dup(1)
    os.dup2(2, 1)
    code, line = 0, ""
    try:
        module, _, name = where.partition(":")
        result = getattr(importlib.import_module(module), name)()
        line = "" if result is None else str(result)
    except Fault as fault:
        code, line = 1, fault.reason
    except Exception as error:  # noqa: BLE001 - quarantine: this is said on a line to the program, which goes on
        traceback.print_exc()
        code, line = 1, f"{type(error).__name__}: {error}".removesuffix(": ")
    os.write(ours, " ".join(line.split())[:LINE_CHARS].encode("utf-8", "replace") + b"\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
