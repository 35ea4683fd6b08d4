"""What operators declared of hosts is kept in memory, and is no older than the store where a conclusion follows."""

from __future__ import annotations

import pytest

from droveway.control.liveness.admission import DeclaredGone
from tests.control.test_declared_gone import declare
from tests.control.world import world


async def test_a_host_that_another_control_has_readmitted_is_asked_again() -> None:
    """Who does not ask it takes its guests for gone, and what they have open for let go of (seed 768822934)."""
    async with world() as w:
        admission = w.control.admission
        admission.gone = {"h1": "as it was a moment ago"}
        await admission.check("h1")
        assert admission.gone == {}


async def test_one_that_is_gone_is_asked_nothing() -> None:
    async with world() as w:
        await w.store.run(declare, "h1")
        await w.control.admission.look()
        with pytest.raises(DeclaredGone, match="its board is broken"):
            await w.control.admission.check("h1")
        await w.control.admission.check("h2")
