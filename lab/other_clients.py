"""Clients that need an environment of their own: openstack.cloud for Ansible wants another openstacksdk than we do."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("DROVEWAY_DIR", str(CLONE / ".droveway"))) / "clients"
NEEDS = {
    "ansible": ("ansible==12.3.0", "openstacksdk==4.8.0"),
    "libcloud": ("apache-libcloud==3.9.1",),
    "neutron-lib": ("neutron-lib==5.0.1",),
    "openstacksdk": ("openstacksdk==4.22.0", "fixtures", "oslotest", "requests-mock", "testtools"),
    "rally": ("rally-openstack==4.1.0",),
}
OF_NPM = {"pkgcloud": "pkgcloud@2.2.0"}
PACKAGES = {  # of Debian
    "fog": "ruby-fog-openstack",
    "gophercloud": "golang-github-gophercloud-gophercloud-dev",
    "packer": "packer",
    "prometheus": "prometheus",
}
GOPHERCLOUD = Path("/usr/share/gocode/src/github.com/gophercloud/gophercloud")  # golang-github-gophercloud-…-dev
MADE_S = 600.0


def environment(name: str) -> Path:
    """Its directory of commands; made where it is missing. Raises OSError, CalledProcessError, TimeoutExpired."""
    made = HOME / name
    if not (made / "complete").exists():
        shutil.rmtree(made, ignore_errors=True)
        HOME.mkdir(parents=True, exist_ok=True)
        _run(sys.executable, "-m", "venv", str(made))
        _run(str(made / "bin/python"), "-m", "pip", "--disable-pip-version-check", "-q", "install", *NEEDS[name])
        (made / "complete").touch()
    return made / "bin"


def of_npm(name: str) -> Path:
    """The directory that has it among its modules. Raises OSError, CalledProcessError, TimeoutExpired."""
    made = HOME / name
    if not (made / "complete").exists():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        _run("npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(made), OF_NPM[name])
        (made / "complete").touch()
    return made


def version(name: str) -> str:
    """As its page tells it. Raises OSError where it is not installed, and cannot be; CalledProcessError."""
    if name in PACKAGES:
        done = subprocess.run(
            ("dpkg-query", "-W", "-f", "${Version}", PACKAGES[name]), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise FileNotFoundError(f"install {PACKAGES[name]}")
        return done.stdout.split(":")[-1].partition("-")[0].partition("+")[0]
    if name == "openstack":
        return importlib.metadata.version("python-openstackclient")
    wanted = NEEDS[name][0] if name in NEEDS else OF_NPM[name]
    return wanted.replace("@", "==").partition("==")[2]


def go_program(source: Path) -> Path:
    """It, compiled against Debian's gophercloud. Raises OSError where there is no compiler or no source of it."""
    if not GOPHERCLOUD.is_dir():
        raise FileNotFoundError(f"{GOPHERCLOUD}: install golang-github-gophercloud-gophercloud-dev and golang-go")
    HOME.mkdir(parents=True, exist_ok=True)
    made = HOME / source.stem
    env = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(HOME / "go-cache")}
    _run("go", "build", "-o", str(made), str(source), **env)
    return made


def _run(*command: str, **env: str) -> None:
    subprocess.run(command, env=os.environ | env, check=True, capture_output=True, timeout=MADE_S)
