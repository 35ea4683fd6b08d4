"""Volumes of this host over NBD with mutual TLS: a server (nbdkit) for each host that was admitted to one, on a port of
its own, that trusts the disk CA of that host (pki/disk_identity.py) and no other.

    exports/VOLUME/HOST/export.json     where its bytes are, and its port
    exports/VOLUME/HOST/server          the process that serves it
    exports/VOLUME/HOST/admitted.pem    the CA of that host
    exports/VOLUME/HOST/tls/            what the server shows and whom it trusts

So a guest that moves is not disturbed when its next host is admitted, and a host is cut off by the end of its server. A
server outlives this process and is found again by the next one. It is begun anew, on its port, when it ends, and when
the certificate of this host has changed: clients connect again, and what was not answered is sent again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from droveway.drivers.storage import state_file
from droveway.drivers.storage.child import PATH
from droveway.drivers.storage.exports.processes import ServerProcess, connections, of_pid
from droveway.drivers.storage.image_data import checked
from droveway.drivers.storage.lvm.volume_group import Part
from droveway.ports.storage import StorageRefused

ADMITTED, SERVER = "admitted.pem", "server"
FIRST_PORT, LAST_PORT = 50_100, 51_999
STARTS_WITHIN_S = 20.0
THREADS = 16
_PIECE = 200  # of a log, in a sentence
_POLL_S = 0.01


class Export(msgspec.Struct, frozen=True):
    """To one host. `pid` 0: none serves it."""

    volume_id: str
    host: str
    part: Part
    port: int
    read_only: bool = False
    pid: int = 0
    started_ticks: int = 0

    @property
    def process(self) -> ServerProcess:
        return ServerProcess(self.pid, self.started_ticks)


class NbdExports:
    """All of it blocks. `address`: where it listens; `certificate`: the directory with cert.pem and key.pem of this
    host."""

    def __init__(self, directory: Path, address: str, certificate: Path) -> None:
        self._directory, self.address, self._certificate = directory, address, certificate
        self._choosing = threading.Lock()  # a port: volumes are admitted to side by side

    # -- what there is --------------------------------------------------------------------------------------------
    def known(self) -> list[str]:
        """The volumes to which some host is admitted."""
        return sorted(path.name for path in self._directory.iterdir()) if self._directory.exists() else []

    def find(self, volume_id: str, host: str) -> Export | None:
        home = self._home(volume_id, host)
        if not (text := state_file.read(home / "export.json")):
            return None
        found = msgspec.json.decode(text, type=Export)
        pid, _, ticks = state_file.read(home / SERVER).partition(" ")
        if pid.isdigit() and ticks.isdigit():
            return msgspec.structs.replace(found, pid=int(pid), started_ticks=int(ticks))
        return found  # it is not served, or by a server of an older release, which wrote it there

    def hosts(self, volume_id: str) -> list[str]:
        try:
            return sorted(unquote(name) for name in os.listdir(self._of_volume(volume_id)))
        except FileNotFoundError:
            return []

    def clients(self, volume_id: str, host: str) -> list[str]:
        """Connections of that host that stand."""
        found = self.find(volume_id, host)
        return [] if found is None else connections(found.port)

    def _of_volume(self, volume_id: str) -> Path:
        return self._directory / checked(volume_id)

    def _home(self, volume_id: str, host: str) -> Path:
        return self._of_volume(volume_id) / quote(host, safe="")

    # -- who may open it ------------------------------------------------------------------------------------------
    def admit(self, volume_id: str, part: Part, host: str, identity: str, *, read_only: bool) -> Export:
        found, kept = self.find(volume_id, host), self._home(volume_id, host) / ADMITTED
        is_same = found is not None and (found.part, found.read_only) == (part, read_only)
        if found is not None and is_same and found.process.is_alive() and state_file.read(kept) == identity:
            return found
        if state_file.read(kept) != identity:
            state_file.write(kept, identity)
        with self._choosing:
            port = self._free_port() if found is None else found.port
            export = Export(volume_id, host, part, port, read_only)
            self._keep(export)  # now it is taken
        return self._begin(export, is_kept=True)

    def withdraw(self, volume_id: str, host: str) -> None:
        """Its connections end, and it opens none any more."""
        self._end(volume_id, host)
        shutil.rmtree(self._home(volume_id, host), ignore_errors=True)
        with contextlib.suppress(OSError):  # another host is admitted still
            self._of_volume(volume_id).rmdir()

    def look(self, volume_id: str) -> None:
        """Let it be served again to each host where its server has ended, or shows a certificate that was replaced
        since."""
        for host in self.hosts(volume_id):
            found = self.find(volume_id, host)
            if found is None or (found.process.is_alive() and self._shows_the_newest(found)):
                continue
            self._begin(found)

    def renew(self, volume_id: str, part: Part) -> None:
        """It has another size or place."""
        for host in self.hosts(volume_id):
            found = self.find(volume_id, host)
            if found is not None and found.part != part:
                self._begin(msgspec.structs.replace(found, part=part))

    # -- its server -----------------------------------------------------------------------------------------------
    def _begin(self, export: Export, *, is_kept: bool = False) -> Export:
        """In place of the one that is there. `is_kept`: it is on the disk already."""
        pid_file = self._home_of(export) / "pid"
        self._end(export.volume_id, export.host)
        self._lay_out(export)
        if not is_kept:
            self._keep(export)
        self._run(export, pid_file)
        process = _served_by(pid_file)
        if process is None:
            raise StorageRefused(f"nbdkit does not serve volume {export.volume_id}: {self._words(export)}")
        state_file.write(self._home_of(export) / SERVER, f"{process.pid} {process.started_ticks}", is_lasting=False)
        return msgspec.structs.replace(export, pid=process.pid, started_ticks=process.started_ticks)

    def _home_of(self, export: Export) -> Path:
        return self._home(export.volume_id, export.host)

    def _end(self, volume_id: str, host: str) -> None:
        """The one that is known, and one that was begun by a process which ended before it could write that down."""
        pid_file = self._home(volume_id, host) / "pid"
        found, text = self.find(volume_id, host), state_file.read(pid_file).strip()
        if found is not None:
            found.process.end()
        process = of_pid(int(text)) if text.isdigit() else None
        if process is not None and str(pid_file) in process.command():
            process.end()
        pid_file.unlink(missing_ok=True)

    def _keep(self, export: Export) -> None:
        """It outlives the machine's power, which ends its server: that stands in a file of its own."""
        home, unserved = self._home_of(export), msgspec.structs.replace(export, pid=0, started_ticks=0)
        (home / SERVER).unlink(missing_ok=True)
        state_file.write(home / "export.json", msgspec.json.encode(unserved).decode())

    def _lay_out(self, export: Export) -> None:
        home = self._home_of(export)
        state_file.write(home / "tls" / "ca-cert.pem", state_file.read(home / ADMITTED), is_lasting=False)
        for source, name in (("cert.pem", "server-cert.pem"), ("key.pem", "server-key.pem")):
            state_file.write(home / "tls" / name, self._own(source), is_lasting=False)

    def _own(self, name: str) -> str:
        text = state_file.read(self._certificate / name)
        if not text:
            raise StorageRefused(
                f"Volumes are served with TLS, and this host has no certificate ({self._certificate / name}): let it "
                "join with 'droveway agent join', and see tls_path."
            )
        return text

    def _shows_the_newest(self, export: Export) -> bool:
        return state_file.read(self._home_of(export) / "tls" / "server-cert.pem") == self._own("cert.pem")

    def _run(self, export: Export, pid_file: Path) -> None:
        """It goes into the background when its configuration was good."""
        home, part = self._home_of(export), export.part
        within = () if part.is_whole else ("--filter=offset",)
        range_of = () if part.is_whole else (f"offset={part.offset_bytes}", f"range={part.length_bytes}")
        command = [
            *("nbdkit", "-P", str(pid_file), "-i", self.address, "-p", str(export.port), "-t", str(THREADS)),
            *("--tls=require", f"--tls-certificates={home / 'tls'}", "--tls-verify-peer", "--log=stderr"),
            *(("-r",) if export.read_only else ()),
            *within,
            *("file", part.device, *range_of),
        ]
        with (home / "log").open("wb") as log:  # of its start: in the background it says nothing
            try:
                done = subprocess.run(
                    ["setsid", "--wait", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=STARTS_WITHIN_S,
                    check=False,
                    cwd="/",
                    env={"PATH": PATH, "LANG": "C.UTF-8"},  # nothing of ours: it outlives this process
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise StorageRefused(f"nbdkit cannot be started: {error}") from None
        if done.returncode:
            words = self._words(export)
            missing = " (install nbdkit)" if "No such file" in words and "nbdkit" in words else ""
            raise StorageRefused(f"nbdkit does not serve volume {export.volume_id}: {words}{missing}")

    def _words(self, export: Export) -> str:
        return " ".join((self._home_of(export) / "log").read_text(errors="replace").split())[-_PIECE:]

    def _free_port(self) -> int:
        pairs = ((name, host) for name in self.known() for host in self.hosts(name))
        taken = {found.port for name, host in pairs if (found := self.find(name, host)) is not None}
        for port in range(FIRST_PORT, LAST_PORT + 1):
            if port not in taken and self._is_free(port):
                return port
        raise StorageRefused(f"All ports between {FIRST_PORT} and {LAST_PORT} of this host are taken by exports.")

    def _is_free(self, port: int) -> bool:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.address, port))
            except OSError:
                return False
        return True


def _served_by(pid_file: Path) -> ServerProcess | None:
    """It writes the file when it begins to listen."""
    for _ in range(int(STARTS_WITHIN_S / _POLL_S)):
        text = state_file.read(pid_file).strip()
        if text:
            return of_pid(int(text))
        time.sleep(_POLL_S)
    return None
