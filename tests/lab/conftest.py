"""One cloud for all tests of a session: every test leaves it as it found it, and checks that it did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cloud import Cloud, CloudFailed
from lab.demo import own_cloud
from tests.lab.witness import Witness


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """Two real hosts and the program."""
    with own_cloud() as made:
        try:
            made.up(simulated=False, foreground=False, quiet=True)
        except CloudFailed:
            print(made.log.read_text())
            raise
        yield made


@pytest.fixture(scope="session")
def session_witness(cloud: Cloud) -> Iterator[Witness]:
    made = Witness(cloud)
    yield made
    made.compute.close()


@pytest.fixture(scope="session")
def _ada(session_witness: Witness) -> str:
    return session_witness.booted("ada")


@pytest.fixture
def witness(session_witness: Witness) -> Iterator[Witness]:
    """The cloud with what earlier tests left on purpose; after the test nothing is lost and nothing left."""
    before = set(session_witness.servers)
    said = session_witness.cloud.log.stat().st_size
    yield session_witness
    print(session_witness.cloud.log.read_text()[said:])  # shown when the test has failed
    for server in session_witness.servers - before:
        session_witness.delete(server)
    session_witness.settled()


@pytest.fixture
def ada(witness: Witness, _ada: str) -> Iterator[str]:
    """A guest that has run since the session began: it must run on after each test, with no tick missing."""
    yield _ada
    witness.compute.wait(_ada, "ACTIVE")
    witness.ticks_on(_ada)
