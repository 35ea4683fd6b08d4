"""A real PostgreSQL for tests, demos and benchmarks: a cluster of its own, run by an unprivileged user.

with postgresql.server() as pg:
    url = pg.create("cloud"); ... pg.kill(); pg.start()
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg

from lab import nodes, servers

CONNECT_S = 30
USER, PASSWORD = "droveway", "se:cr@t"
SYSTEM_USER = "postgres"


class PostgresqlNode(servers.Node):
    """One cluster. `is_safe` False: nothing is forced to the disk, which only tests may want."""

    def __init__(
        self, *, is_safe: bool = False, home: Path | None = None, port: int = 0, password: str = PASSWORD
    ) -> None:
        """A cluster that is there already is used as it is. In a temporary directory where none is given: another
        user, as whom the server runs, may not enter the caller's."""
        port = port or servers.free_ports(1)[0]
        if home is None:
            home = Path(tempfile.mkdtemp(prefix="droveway-postgresql-"))
        programs = Path(servers.probe("postgresql")).parent
        user = SYSTEM_USER if os.geteuid() == 0 else ""
        if user:
            shutil.chown(home, user, user)
        command = [
            str(programs / "postgres"),
            "-D",
            str(home / "data"),
            "-k",
            "",
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "shared_buffers=32MB",
            "-c",
            "max_connections=100",
            "-c",
            f"fsync={'on' if is_safe else 'off'}",
            "-c",
            "lc_messages=C",
        ]
        super().__init__(home, port, command, partial(serves, password), user, {"LC_ALL": "C"})
        if not (home / "data" / "PG_VERSION").exists():
            self._make(programs, user, password)

    def _make(self, programs: Path, user: str, password: str) -> None:
        home, unfinished = self.directory, self.directory / "new"
        shutil.rmtree(unfinished, ignore_errors=True)  # of one that was interrupted
        secret = home / "password"
        secret.touch(0o600)
        secret.write_text(password)
        if user:
            shutil.chown(secret, user, user)
        become = ["setpriv", *self._as, "--"]
        made = subprocess.run(
            [
                *become,
                str(programs / "initdb"),
                "-D",
                str(unfinished),
                "-U",
                USER,
                "-A",
                "scram-sha-256",
                f"--pwfile={secret}",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-N",
            ],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=nodes.READY_S,
            check=False,
        )
        if made.returncode != 0:
            raise servers.ServerFailed(f"initdb failed: {made.stderr.strip()}")
        secret.unlink()
        unfinished.rename(home / "data")

    def send(self, number: signal.Signals) -> None:
        """To the server and all its processes: each of them is a session of its own."""
        children = [] if self._process is None or number is signal.SIGINT else _children(self.pid)
        super().send(number)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, number: signal.Signals) -> None:
        # SIGTERM would wait until every client has gone.
        super().end(signal.SIGINT if number is signal.SIGTERM else number)


class Postgresql(servers.Server):
    """A running one: started here, or by somebody else, when its port is given."""

    def __init__(self, nodes: list[servers.Node], *, port: int = 0, password: str = PASSWORD) -> None:
        super().__init__(nodes)
        self._port, self._password = port, password

    @property
    def port(self) -> int:
        return self._port or super().port

    def url(self, name: str, *, user: str = USER, password: str = "") -> str:
        password = password or self._password
        return f"postgresql://{user}:{password.replace(':', '%3A').replace('@', '%40')}@127.0.0.1:{self.port}/{name}"

    def create(self, name: str, template: str = "template1") -> str:
        """A database of that name, as `template` is; its URL."""
        self.say(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def say(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """One statement, as the owner of everything; its rows."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=CONNECT_S) as connection:
            found = connection.execute(statement)  # type: ignore[call-overload]
            return found.fetchall() if found.description else []


@contextlib.contextmanager
def server(*, is_safe: bool = False) -> Iterator[Postgresql]:
    servers.must_be_installed("postgresql")
    node = PostgresqlNode(is_safe=is_safe)
    running = Postgresql([node])
    try:
        running.start()
        yield running
    finally:
        running.kill()
        shutil.rmtree(node.directory, ignore_errors=True)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def serves(password: str, port: int) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(
            host="127.0.0.1", port=port, user=USER, password=password, dbname="postgres", connect_timeout=2
        ).close()
        return True
    return False
