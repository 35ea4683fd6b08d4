"""cloud-init's own code, out of the distribution's packages and not installed: it reads what guests are told of
themselves, as a guest would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab.image import CACHE, ImageFailed

PACKAGES = ("cloud-init", "python3-configobj", "python3-six")  # what else it imports this program's tests have anyway
READ_S = 60
_READ = """
import base64, json, sys
from cloudinit import helpers
from cloudinit.sources import DataSourceConfigDrive, DataSourceEc2, DataSourceOpenStack
from cloudinit.sources.helpers import openstack

where, macs = sys.argv[1], json.loads(sys.argv[2])
if where.startswith("http://"):
    settings = {"datasource": {"OpenStack": {"metadata_urls": [where]}, "Ec2": {"metadata_urls": [where]}}}
    paths = helpers.Paths({})
    found = DataSourceOpenStack.DataSourceOpenStack(settings, None, paths)._crawl_metadata()
    ec2 = DataSourceEc2.DataSourceEc2(settings, None, paths)
    ec2._cloud_name = DataSourceEc2.CloudNames.UNKNOWN
    assert ec2.wait_for_metadata_service(), "no EC2 metadata"
    found["ec2"] = ec2.crawl_metadata()
else:
    found = DataSourceConfigDrive.read_config_drive(where)
if found.get("networkdata"):
    found["network_config"] = openstack.convert_net_json(found["networkdata"], known_macs=macs)
print(json.dumps(found, default=lambda data: base64.b64encode(data).decode()))
"""


def code(cache: Path = CACHE) -> Path:
    """A directory for PYTHONPATH. Downloaded once; safe for several processes at once."""
    wanted = cache / "cloud-init"
    if not wanted.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".cloud-init-", dir=cache) as made:
            download = ["apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", *PACKAGES]
            done = subprocess.run(download, cwd=made, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                raise ImageFailed(f"cloud-init cannot be downloaded: {done.stderr.strip()}; run apt-get update")
            for package in Path(made).glob("*.deb"):
                subprocess.run(["dpkg", "-x", str(package), f"{made}/unpacked"], check=True, timeout=120)
            try:
                Path(made, "unpacked").rename(wanted)
            except OSError:  # another process was faster
                if not wanted.is_dir():
                    raise
    return wanted / "usr/lib/python3/dist-packages"


def read(where: Path | str, macs: dict[str, str] | None = None, namespace: str = "") -> dict[str, Any]:
    """What its data source finds in the files of a config drive, or what those of OpenStack and of EC2 (in `ec2`) find
    at the address of a metadata service, asked from within a network namespace. `macs`: the guest's devices by MAC,
    whose configuration is then in `network_config`. Bytes are base64."""
    asked = [sys.executable, "-c", _READ, str(where), json.dumps(macs or {})]
    within = ["ip", "netns", "exec", namespace] if namespace else []
    environment = os.environ | {"PYTHONPATH": str(code())}
    done = subprocess.run(
        [*within, *asked], env=environment, capture_output=True, text=True, timeout=READ_S, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
