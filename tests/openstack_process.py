"""The unmodified `openstack` command in a process that stays, as clients of one cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CLONE = Path(__file__).parents[1]
ENDS_S = 30.0


class OpenstackProcess:
    """`clouds_yaml` names the cloud droveway."""

    def __init__(self, clouds_yaml: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.api.openstack_shell"],
            env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(clouds_yaml), "OS_CLOUD": "droveway"},
            cwd=CLONE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None, "they are pipes"
        self._asked, self._answers = self._process.stdin, self._process.stdout

    def run(self, *words: str, fails: bool = False) -> Any:
        """What the command answers: JSON where it has some, else its text. Of one that fails, what it says."""
        is_shown = not fails and {"list", "show", "create"} & set(words) and words[:2] != ("console", "log")
        self._asked.write(json.dumps([*words, *(["-f", "json"] if is_shown else [])]) + "\n")
        self._asked.flush()
        code, out, err = json.loads(self._answers.readline())
        assert (code != 0) is fails, f"openstack {' '.join(words)}: {out}{err}"
        if fails:
            return err
        return json.loads(out) if out.strip().startswith(("{", "[")) else out

    def close(self) -> None:
        self._asked.close()
        assert self._process.wait(ENDS_S) == 0
        self._answers.close()
