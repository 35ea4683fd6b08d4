"""Which router goes where."""

from __future__ import annotations

from droveway.domain.network.placing import Agent, Carrier, Placed, carriers, ended, moves

BOTH = {"h1": Carrier(("out",)), "h2": Carrier(())}


def test_a_router_stays_where_it_can_be() -> None:
    assert moves([Placed("r1", "h1"), Placed("r2", "h2"), Placed("r3", "h1", "out")], BOTH) == []
    assert moves([Placed("r1", "h1")], {"h1": Carrier((), is_open=False), "h2": Carrier(())}) == []


def test_one_that_is_nowhere_goes_where_few_are() -> None:
    there = [Placed("r1", "h1"), Placed("r2", ""), Placed("r3", ""), Placed("r4", "")]
    assert [(one.router_id, host) for one, host in moves(there, BOTH)] == [("r2", "h2"), ("r3", "h1"), ("r4", "h2")]


def test_one_whose_host_is_down_goes_elsewhere_and_waits_when_there_is_none() -> None:
    lost = Placed("r1", "h3")
    assert moves([lost], BOTH) == [(lost, "h1")]
    assert moves([lost], {}) == [] == moves([Placed("r1", "")], {})
    assert moves([lost], {"h1": Carrier((), is_open=False)}) == []


def test_a_gateway_goes_where_its_physical_network_is() -> None:
    outside = Placed("r1", "h2", "out")
    assert moves([outside], BOTH) == [(outside, "h1")]
    nowhere = Placed("r1", "h2", "other")
    assert moves([nowhere], BOTH) == []


def test_an_agent_that_has_ended_may_be_awaited_and_gets_no_more_routers() -> None:
    agents = [
        Agent("h1", True, False, "alive", ("out",)),
        Agent("h2", True, True, "alive"),
        *(Agent(state, False, False, state) for state in ("dead", "stopped", "hung", "not reporting", "host gone")),
    ]
    assert ended(agents) == {"dead", "stopped", "hung"}
    assert carriers(agents, ()) == {"h1": Carrier(frozenset({"out"})), "h2": Carrier(frozenset(), is_open=False)}
    assert carriers(agents, ("dead",))["dead"] == Carrier(frozenset(), is_open=False)
