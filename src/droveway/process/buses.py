"""The ends of the bus that the configuration chooses."""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.config.drivers import BUSES
from droveway.config.file import Config
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import AgentBus, ControlBus
from droveway.ports.peer_bus import PeerBus
from droveway.process.load import load


def control_bus(config: Config, link: Any) -> ControlBus:
    """`link` is that of `broker_link`."""
    if link is not None:
        from droveway.drivers.bus.broker import BrokerControlBus
        from droveway.drivers.bus.broker_link import FEW_RECONNECT_MAX_S

        link.reconnect_max_s = FEW_RECONNECT_MAX_S
        return BrokerControlBus(link, SystemNames())
    from droveway.drivers.bus.socket import SocketControlBus

    return SocketControlBus(config.bus_path)


def peer_bus(link: Any) -> PeerBus | None:
    """None without a broker: the socket bus has one control, and its API is in the same process."""
    if link is None:
        return None
    from droveway.drivers.bus.broker_link import FEW_RECONNECT_MAX_S
    from droveway.drivers.bus.broker_peers import BrokerPeerBus

    link.reconnect_max_s = FEW_RECONNECT_MAX_S
    return BrokerPeerBus(link, SystemNames())


def agent_bus(config: Config) -> AgentBus:
    link = broker_link(config)
    if link is not None:
        from droveway.drivers.bus.broker_agent import BrokerAgentBus

        return BrokerAgentBus(link, SystemChance(), SystemNames())
    from droveway.drivers.bus.socket import SocketAgentBus

    return SocketAgentBus(config.bus_path, SystemChance())


def broker_link(config: Config) -> Any:
    """One connection to the broker, for all ends of a process; None when the bus needs no broker."""
    driver = BUSES[config.bus]
    if not driver.has_broker:
        return None
    settings = msgspec.to_builtins(getattr(config, config.bus)) | {"ping_interval_s": config.ping_interval_s}
    return load(driver.start)(settings)
