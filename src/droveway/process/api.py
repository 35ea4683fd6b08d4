"""The start of an API alone: any number of them, on any machine that reaches the database, the broker and the images.

What is done is written into the store, as everywhere; controls are nudged over the bus, and asked what only they know.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from droveway.api.image import uploads
from droveway.config.file import Config
from droveway.config.tls import server_tls
from droveway.control.engine.nudges import Nudges
from droveway.control.engine.settled import settled
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.ports.asking import proxy
from droveway.ports.control import ControlQueries
from droveway.process import agents_listener, first_admin
from droveway.process.buses import broker_link, peer_bus
from droveway.process.listeners import listen_at
from droveway.process.relay import Relay
from droveway.process.remote_control import RemoteControl
from droveway.process.serving import ApiServer, keep_the_loop_light, make_api, private_directories
from droveway.store.engine.transaction import open_store

log = structlog.get_logger("droveway")
SERVING_ENDS_S = 5.0


async def api(config: Config) -> None:
    """Until cancelled."""
    peers = peer_bus(broker_link(config))
    if peers is None:
        raise WrongConfiguration(
            "bus = socket cannot serve an API of its own: that bus has one control, with its API in the same process; "
            "set bus = nats or rabbitmq"
        )
    private_directories(config)
    tls = server_tls(config.api)
    listener = listen_at(config.api.listen)
    clock = SystemClock()
    store = await open_store(config.database_url, clock, SystemNames(), log.warning)
    relay, nudges = Relay(store, peers), Nudges()
    store.on_commit(nudges.call)
    made = make_api(
        config, store, partial(settled, store, nudges, clock), proxy(ControlQueries, RemoteControl(store, peers).ask)
    )
    serving = ApiServer(made, listener, config.api, tls=tls)
    try:
        await relay.serve("")
        await first_admin.wait_for(store, clock)
        await uploads.recover(made, others_may_upload=True)
        serving.agents = await agents_listener.opened(config, made)
        keep_the_loop_light()
        await _until_stopped(serving)
    finally:
        await relay.close()
        await store.close()
        serving.close()


async def _until_stopped(serving: ApiServer) -> None:
    running = asyncio.create_task(serving.run(), name="api")
    try:
        await asyncio.wait({running})
    finally:
        serving.end()
        await asyncio.wait({running}, timeout=SERVING_ENDS_S)
        running.cancel()
        await asyncio.wait({running})
    running.result()
