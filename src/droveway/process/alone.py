"""Over the socket bus one control has its database for itself: a second one hears no host, and would call all of them
down as soon as the first one stood still.

A lock beside a SQLite file says so, for as long as the process lives and not a moment longer. Controls at a broker
share that lock. Two machines see no lock of each other: a PostgreSQL database is asked whose lease moves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from droveway.config.file import Config
from droveway.domain.faults import WrongConfiguration

if TYPE_CHECKING:
    from droveway.ports.clock import Clock
    from droveway.store.engine.transaction import Store, Tx

ENDS_WITHIN_S = 5.0  # of a control that was just told to end, or whose supervisor was killed
LOOK_S = 0.1
LEASE_MOVES_WITHIN_S, LEASE_LOOK_S = 12.0, 1.0  # more than two renewals of a control that lives
HOLDER_MAX_BYTES = 512
SQLITE = "sqlite:///"


def hold(config: Config, wait_s: float = ENDS_WITHIN_S) -> int | None:
    """The lock of this process on its database, to be closed at its end. None where there is no file to lock: then the
    store says what is wrong. Blocks while another one may be ending. Raises WrongConfiguration."""
    if not config.database_url.startswith(SQLITE):
        return None
    database = Path(config.database_url.removeprefix(SQLITE)).resolve()  # by whatever name: one file
    try:
        lock = os.open(f"{database}.control", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    until_s = time.monotonic() + wait_s  # noqa: TID251 - before anything of the program runs
    while not _is_locked(lock, alone=config.is_alone):
        if time.monotonic() >= until_s:  # noqa: TID251 - see above
            holder = os.pread(lock, HOLDER_MAX_BYTES, 0).decode(errors="replace").strip()
            os.close(lock)
            raise WrongConfiguration(_taken(config, holder or "another control"))
        time.sleep(LOOK_S)
    with contextlib.suppress(OSError):  # a full disk: the lock holds, and names no process
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"control {config.name!r} (pid {os.getpid()}, bus {config.bus})\n".encode(), 0)
    return lock


def check(config: Config) -> None:
    """Before anything else is started, so that there is one sentence. Raises WrongConfiguration."""
    lock = hold(config)
    if lock is not None:
        os.close(lock)


def _is_locked(lock: int, *, alone: bool) -> bool:
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: no better off than before
    return True


def _taken(config: Config, holder: str) -> str:
    return (
        f"{holder} works on {_shown(config)} already, and over the socket bus a control works there alone: another "
        "one hears none of its hosts and would call them down; stop that one first, or let all of them meet at a "
        'broker (bus = "nats" or "rabbitmq")'
    )


def _shown(config: Config) -> str:
    """Without a password."""
    return config.database_url.rpartition("@")[2] if "@" in config.database_url else config.database_url


async def check_leases(config: Config, store: Store, clock: Clock) -> None:
    """Where a lock cannot be seen: is the lease of another control renewed? Raises WrongConfiguration, Busy."""
    if not config.is_alone or config.database_url.startswith(SQLITE):
        return
    first, until_s = await store.read(_others, config.name), clock.monotonic_s() + LEASE_MOVES_WITHIN_S
    while first and clock.monotonic_s() < until_s:
        await clock.sleep(LEASE_LOOK_S)
        now = await store.read(_others, config.name)
        for name, counter in first.items():
            if now.get(name, counter) != counter:
                raise WrongConfiguration(_taken(config, f"control {name!r}"))


def _others(tx: Tx, name: str) -> dict[str, int]:
    from droveway.store.work import leases

    own = leases.CONTROLS + name
    return {
        row["name"].removeprefix(leases.CONTROLS): row["counter"]
        for row in leases.listing(tx)
        if row["name"].startswith(leases.CONTROLS) and row["name"] != own
    }
