"""`./dev` shows what a package manager says when it fails, and only then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

DEV = Path(__file__).parents[1] / "dev"
NOISE = "W: Download is performed unsandboxed\ndebconf: unable to initialize frontend: Dialog"
FUNCTIONS = ("say", "need_packages", "quietly")
# Fails as long as the lists have not been updated; `broken` fails always.
APT = f"""#!/bin/sh
echo '{NOISE}' >&2
echo 'Setting up things'
case "$*" in
*update*) touch updated; exit 0 ;;
esac
[ -f updated ] && [ ! -f broken ]
"""


def function(name: str) -> str:
    """As it stands in the script."""
    lines = DEV.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{name}() {{"))
    last = first if lines[first].endswith("}") else lines.index("}", first)
    return "\n".join(lines[first : last + 1])


def play(directory: Path, command: str) -> subprocess.CompletedProcess[str]:
    fakes = directory / "bin"
    fakes.mkdir()
    for name, text in (("apt-get", APT), ("id", "#!/bin/sh\necho 0\n"), ("noisy", f"#!/bin/sh\necho '{NOISE}' >&2\n")):
        (fakes / name).write_text(text)
        (fakes / name).chmod(0o755)
    script = "\n".join(["set -eu", *map(function, FUNCTIONS), "installed=' gcc '", command])
    return subprocess.run(
        ["sh", "-c", script],
        cwd=directory,
        env={"PATH": f"{fakes}:/usr/bin:/bin", "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("is_updated", [True, False])
def test_an_install_that_succeeds_says_what_it_installs_and_nothing_else(tmp_path: Path, is_updated: bool) -> None:
    if is_updated:
        (tmp_path / "updated").touch()
    done = play(tmp_path, "need_packages gcc nats-server etcd-server; noisy_one() { quietly noisy; }; noisy_one")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "dev: installing nats-server etcd-server\n")
    assert (tmp_path / "updated").exists()
    assert not list(tmp_path.glob("tmp.*"))


def test_what_is_installed_already_is_not_installed(tmp_path: Path) -> None:
    done = play(tmp_path, "need_packages gcc")
    assert (done.returncode, done.stderr, (tmp_path / "updated").exists()) == (0, "", False)


def test_an_install_that_fails_shows_all_that_was_said(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    done = play(tmp_path, "need_packages nats-server || exit 7")
    assert done.returncode == 7
    for line in (*NOISE.splitlines(), "Setting up things"):
        assert done.stderr.count(line) == 1, done.stderr


def test_every_package_manager_is_called_quietly() -> None:
    """apt-get, uv and pip: no line of the script calls one that could speak."""
    calls = [
        line.strip() for line in DEV.read_text().splitlines() if line.strip().startswith(("apt-get", "uv ", "pip "))
    ]
    assert calls == []
    installs = [line.strip() for line in DEV.read_text().splitlines() if "-m pip" in line or "bin/uv" in line]
    assert len(installs) == 3
    assert all(line.startswith("quietly ") or line.endswith("2>/dev/null; then") for line in installs)
