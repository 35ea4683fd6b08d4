"""What the tests run in worker processes."""

from __future__ import annotations

import subprocess
import sys
import time

from droveway.domain.faults import Conflict
from droveway.periodic.mark import periodic


@periodic(every_s=1.0, in_process=True, timeout_s=20.0)
def counts() -> int:
    print("a print is no result")
    return 42


@periodic(every_s=1.0, in_process=True, timeout_s=20.0)
def fails() -> None:
    raise ValueError("not today")


@periodic(every_s=1.0, in_process=True, timeout_s=20.0)
def refuses() -> None:
    raise Conflict("the other one is at work")


@periodic(every_s=1.0, in_process=True, timeout_s=0.5)
def hangs() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "left behind by hangs"])
    while True:
        time.sleep(1000)
