"""Does the virtual environment hold what the lock names, and is the project on its path?

Run by the environment's own interpreter, before anything else is installed in it: it needs the standard library only.
    environment.py check LOCK     exit code 0 when everything is there in the locked version
    environment.py link CLONE     put the clone's sources on the path and make the command `droveway`
    environment.py compile        what the program itself imports, so that its first start is like the others: a process
                                  that compiles needs 40 MiB more, for as long as it lives
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import sysconfig
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def missing(lock: Path, without: frozenset[str]) -> list[str]:
    """What is absent or of another version. A line with a marker (`; sys_platform == …`) may be for other machines."""
    found = []
    for name, wanted in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+) *\\?$", lock.read_text(), re.MULTILINE):
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = ""
        if installed != wanted and name not in without:
            found.append(f"{name}=={wanted}")
    return found


def link(clone: Path) -> None:
    """What an editable install would leave behind, without the build backend that it would need."""
    packages = Path(sysconfig.get_path("purelib"))
    (packages / "droveway.pth").write_text(f"{clone / 'src'}\n")
    told = re.search(r'^version = "(.+)"', (clone / "pyproject.toml").read_text(), re.MULTILINE)
    number = told[1] if told else "0"
    if not list(packages.glob("droveway-*.dist-info")):
        information = packages / f"droveway-{number}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: droveway\nVersion: {number}\n")
    command = Path(sys.executable).with_name("droveway")
    command.write_text(f"#!{sys.executable}\nfrom droveway.main import main\n\nmain()\n")
    command.chmod(0o755)


def compile_imported() -> None:
    """Without libvirt, what serves simulated hosts."""
    import droveway.process

    for module in pkgutil.iter_modules(droveway.process.__path__):
        with suppress(ImportError):
            importlib.import_module(f"droveway.process.{module.name}")


if __name__ == "__main__":
    verb, argument = (*sys.argv[1:3], "")[:2]
    if verb == "link":
        link(Path(argument))
    elif verb == "compile":
        compile_imported()
    elif absent := missing(Path(argument), frozenset(sys.argv[3:])):
        sys.exit(f"missing: {', '.join(absent)}")
