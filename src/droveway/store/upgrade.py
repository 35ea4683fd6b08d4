"""Brings a database to this program's schema. Run as a program of its own, so that alembic's memory goes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine, inspect, select, table, text
from sqlalchemy import column as col
from sqlalchemy.exc import DBAPIError

from droveway.domain.faults import WrongConfiguration
from droveway.store.transaction import open_engine

HEAD = "0002"
REVISIONS = ("0001", "0002")
TIMEOUT_S = 300


def bring_up_to_date(url: str) -> None:
    """Check the revision and upgrade when it is older. Raises WrongConfiguration."""
    engine = open_engine(url)
    try:
        found = _revision(engine)
    except DBAPIError as error:
        raise WrongConfiguration(f"the database {url} cannot be opened: {error.orig}") from None
    finally:
        engine.dispose()
    if found == HEAD:
        return
    if found is not None and found not in REVISIONS:
        raise WrongConfiguration(
            f"the database {url} is from a newer droveway (revision {found}; this one knows up to {HEAD}); "
            "upgrade this program, or restore the backup made before the upgrade"
        )
    done = subprocess.run(
        [sys.executable, "-m", "droveway.store.upgrade", url], capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise WrongConfiguration(f"the database {url} cannot be upgraded to revision {HEAD}: {last}")


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(select(col("version_num")).select_from(table("alembic_version"))).scalar()


def upgrade(url: str) -> None:
    """Run the revisions that are missing, in one transaction."""
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
    with steps, engine.connect().execution_options(writes=True) as connection:
        if url.startswith("sqlite"):
            connection.execute(text("SELECT 1"))
        steps.configure(connection=connection)
        with steps.begin_transaction():
            steps.run_migrations()
        connection.commit()


if __name__ == "__main__":
    upgrade(sys.argv[1])
