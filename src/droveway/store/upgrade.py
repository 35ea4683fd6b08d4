"""Brings a database to this program's schema. Run as a program of its own, so that alembic's memory goes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine, inspect, select, table
from sqlalchemy import column as col
from sqlalchemy.exc import DBAPIError

from droveway.domain.faults import Busy, WrongConfiguration
from droveway.store.engine.databases import FailureKind, message_of, open_engine, opening_fault, shown, trouble

HEAD = "0040"
REVISIONS = tuple(f"{number:04}" for number in range(1, int(HEAD) + 1))
TIMEOUT_S = 330
_FAILED, _LATER = 1, 75  # exit codes; the second: it may go better later


def bring_up_to_date(url: str) -> None:
    """Check the revision and upgrade when it is older. Raises WrongConfiguration; and Busy when the server may answer
    later."""
    engine = open_engine(url)
    try:
        found = _revision(engine)
    except DBAPIError as error:
        raise opening_fault(url, error) from None
    finally:
        engine.dispose()
    if found == HEAD:
        return
    if found is not None and found not in REVISIONS:
        raise WrongConfiguration(
            f"the database {shown(url)} is from a newer droveway (revision {found}; this one knows up to {HEAD}); "
            "upgrade this program, or restore the backup made before the upgrade"
        )
    # The URL, which may hold a password, is told where no list of processes shows it.
    done = subprocess.run(
        [sys.executable, "-m", "droveway.store.upgrade"],
        input=url,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    if done.returncode == _LATER:
        raise Busy(f"the database {shown(url)} could not be upgraded now: {last}")
    if done.returncode != 0:
        raise WrongConfiguration(f"the database {shown(url)} cannot be upgraded to revision {HEAD}: {last}")


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(select(col("version_num")).select_from(table("alembic_version"))).scalar()


def upgrade(url: str) -> None:
    """Run the revisions that are missing, in one transaction. Of several that begin together one does it, and the
    others find it done."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", str(Path(__file__).parent / "versions"))
    script = ScriptDirectory.from_config(config)
    engine = open_engine(url)
    steps = EnvironmentContext(config, script, fn=lambda rev, _: script._upgrade_revs(HEAD, rev))
    with steps, engine.connect().execution_options(upgrades=True) as connection, connection.begin():
        steps.configure(connection=connection)  # under the lock: it reads what there is
        with steps.begin_transaction():
            steps.run_migrations()


def _main(url: str) -> int:
    try:
        upgrade(url)
    except DBAPIError as error:
        # The connection was lost, or not even made: that may pass. A statement that failed will fail again.
        fault = opening_fault(url, error)
        may_pass = isinstance(fault, Busy) and trouble(error) is not FailureKind.OWN
        print(message_of(error) if isinstance(fault, Busy) else fault.reason, file=sys.stderr)  # noqa: T201 - for the caller
        return _LATER if may_pass else _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.stdin.read()))
