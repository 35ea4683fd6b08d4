"""The start of a control, with the API in the same process unless another one serves it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import structlog

from droveway.config import images
from droveway.config.file import Config
from droveway.domain.faults import Busy
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.ports.bus import ControlBus

log = structlog.get_logger("droveway")
SERVING_ENDS_S = 5.0


async def control(config: Config) -> None:
    """Control; and the API in the same process, unless `api.listen` is empty."""
    from droveway.api.image import uploads
    from droveway.config.tls import server_tls
    from droveway.control.questions import Questions
    from droveway.process import agents_listener, alone, first_admin, listeners, serving
    from droveway.process.buses import broker_link, control_bus, peer_bus
    from droveway.process.relay import Relay
    from droveway.store.engine.databases import is_postgresql
    from droveway.store.engine.transaction import open_store

    serving.private_directories(config)
    lock = alone.hold(config)
    tls = server_tls(config.api) if config.api.listen else None
    listener = listeners.listen_at(config.api.listen) if config.api.listen else None
    clock = SystemClock()
    is_alone = config.is_alone and not is_postgresql(config.database_url)
    store = await open_store(config.database_url, clock, SystemNames(), log.warning, is_alone=is_alone)
    link = broker_link(config)
    part, peers = _part(config, clock, store, control_bus(config, link)), peer_bus(link)
    relay = Relay(store, peers)
    api = (
        None
        if listener is None
        else serving.ApiServer(
            _api_beside(config, store, part, peers),
            listener,
            config.api,
            len(config.host) if config.is_alone else 0,
            tls,
        )
    )
    try:
        await alone.check_leases(config, store, clock)
        await first_admin.make(config, store)
        if api is not None:
            await uploads.recover(api.api, others_may_upload=not config.is_alone)
            api.agents = await agents_listener.opened(config, api.api)
        await part.start()
        await relay.serve(part.name, Questions(part.answers))
        store.owner = (part.name, part.epoch)
        serving.keep_the_loop_light()
        await _until_stopped(part, api)
    finally:
        await relay.close()
        await store.close()
        if api is not None:
            api.close()
        if lock is not None:
            os.close(lock)


def _part(config: Config, clock: SystemClock, store: Any, bus: ControlBus) -> Any:
    from droveway.control.control import Control
    from droveway.control.engine.saga import ControlSettings
    from droveway.control.liveness.observer import LivenessSettings
    from droveway.process.agent import periodic_tasks

    settings = ControlSettings(
        images_path=images.path_of_hosts(config.image_store, config.images_path),
        api_urls=images.urls_of_hosts(config.agents.api_urls, config.api_url),
        network_quotas=config.network.quota,
        stop_grace_s=config.shutdown_timeout,
        placement=config.scheduler.settings,
        copy=config.migration.target,
        copies_at_once=config.migration.max_concurrent_live_migrations,
        boot_tries=config.scheduler.max_attempts,
        reclaim_s=config.reclaim_instance_interval,
        resize_confirm_s=config.resize_confirm_window,
        shelved_offload_s=config.shelved_offload_time,
        kept_s=config.deleted_kept_days * 24 * 3600,
    )
    membership = config.membership
    part = Control(
        store,
        bus,
        clock,
        config.name,
        settings,
        LivenessSettings(
            membership.report_interval_s, membership.service_down_time_s, config.hung_time_s, config.storm_hold_time
        ),
        tasks=periodic_tasks(config.name, config.scripts_of_control),
    )
    part.why.driver = config.bus
    _use_membership_driver(part, config, clock, store)
    return part


def _api_beside(config: Config, store: Any, part: Any, peers: Any) -> Any:
    """An API that asks its own control; and another one what only that knows."""
    from droveway.ports.asking import proxy
    from droveway.ports.control import ControlQueries
    from droveway.process.remote_control import LocalControl, RemoteControl
    from droveway.process.serving import make_api

    answers = part.answers
    if peers is not None:
        answers = proxy(ControlQueries, LocalControl(answers, part.name, part.duty, RemoteControl(store, peers)).ask)
    return make_api(config, store, part.sagas_settled, answers)


def _use_membership_driver(part: Any, config: Config, clock: SystemClock, store: Any) -> None:
    """With a membership driver its word counts instead of the beats that arrive here."""
    from droveway.control.liveness.members import Members
    from droveway.process.membership import service_group
    from droveway.store.fleet import services

    group = service_group(config.membership, clock, store)
    if group is None:
        return
    is_db = config.membership.driver == "db"
    part.defer_to(getattr(group, "beat", None), stamps=not is_db)
    part.why.membership = config.membership.driver
    interval_s = min(1.0, config.membership.report_interval_s)
    own = tuple(f"{config.name}/{binary}" for binary in services.CONTROL) if is_db else ()
    part.members = part.why.members = Members(group, part.observer, clock, interval_s, own)


async def _until_stopped(part: Any, api: Any) -> None:
    """Control and the API, until this is cancelled or one of them ends; raises what that one raised."""
    running = asyncio.create_task(part.run(), name="control")
    serving = None if api is None else asyncio.create_task(api.run(), name="api")
    tasks = {running} if serving is None else {running, serving}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # The API first: requests under way are answered while whatever they wait for still runs.
        if serving is not None:
            api.end()
            await asyncio.wait({serving}, timeout=SERVING_ENDS_S)
            serving.cancel()
        has_failed = running.done()
        running.cancel()
        await asyncio.wait(tasks)
        if not has_failed:
            with contextlib.suppress(Busy):
                await part.leave()
        for task in tasks:
            if not task.cancelled():
                task.result()
