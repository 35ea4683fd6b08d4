"""The contract of storage over thin volumes, on a kernel that maps devices: in a guest where this one's does not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lab import storage_guest

CLONE = Path(__file__).resolve().parent.parent.parent
WITHIN_S = 1500.0
REASON = storage_guest.obstacle() or ("" if shutil.which("thin_check") else "apt-get install thin-provisioning-tools")


@pytest.mark.full
@pytest.mark.servers
@pytest.mark.timeout(WITHIN_S + 60)
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_thin_volumes_keep_the_contract(tmp_path: Path) -> None:
    tests = f"{sys.executable} -m pytest tests/drivers/test_storage_contract.py -q -k lvm-thin --basetemp=/tmp/tests"
    environment = f"PATH={'/usr/sbin:/usr/bin:/sbin:/bin'} HOME=/root DM_DISABLE_UDEV=1 PYTHONPATH=src"
    said = storage_guest.run(f"cd {CLONE} && {environment} {tests} 2>&1", tmp_path, WITHIN_S)
    assert "ended with 0" in said, said[-4000:]
    assert "skipped" not in said, said[-4000:]
