"""Ids of the operating system's chance, which is drawn in stock."""

from __future__ import annotations

import os
import uuid

from droveway.drivers import clock
from droveway.drivers.clock import SystemNames


def test_no_id_is_given_twice() -> None:
    given = [SystemNames().uuid() for _ in range(5 * clock.UUIDS_AT_ONCE)]
    assert len(set(given)) == len(given)
    assert {uuid.UUID(one).version for one in given} == {4}


def test_a_process_that_forks_does_not_share_its_stock() -> None:
    SystemNames().uuid()
    assert clock._drawn, "there is a stock"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, SystemNames().uuid().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        theirs = told.read()
    assert os.waitpid(child, 0)[1] == 0
    assert uuid.UUID(theirs).version == 4
    ours = {str(uuid.UUID(bytes=one, version=4)) for one in clock._drawn}
    assert theirs not in ours
