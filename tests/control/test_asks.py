"""What a request wants, read from the rows: a hint reaches no farther than the project of whoever gives it."""

from __future__ import annotations

from typing import Any

from droveway.control.scheduling.requests import to_boot
from droveway.domain.placement import PlacementRequest
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import Tx
from tests.control.hosts import add_host, flavor, memory_store


async def test_a_hint_finds_living_servers_of_its_own_project_alone() -> None:
    def make(tx: Tx, project_id: str, host: str | None = None, **hints: Any) -> str:
        made = instances.create(tx, NewInstance(project_id, "u", "g", "g", flavor(), None, hints=hints))
        instances.set_(tx, made, host=host)
        return made

    def ask(tx: Tx, **hints: Any) -> PlacementRequest:
        return to_boot(tx, instances.get(tx, make(tx, "red", **hints)), {})

    def story(tx: Tx) -> None:
        for name in ("h1", "h2", "h3"):
            add_host(tx, name)
        own, others, gone = make(tx, "red", "h1"), make(tx, "blue", "h2"), make(tx, "red", "h3")
        instances.set_(tx, gone, deleted=True)
        everybody = [own, others, gone]
        assert ask(tx, same_host=everybody).same_host == ("h1",)
        assert ask(tx, different_host=everybody).different_host == ("h1",)
        assert ask(tx, same_host=others).same_host == ()  # no host at all
        assert ask(tx, different_host=others).different_host == ()

    store = memory_store()
    try:
        await store.run(story)
    finally:
        await store.close()
