"""The ends of the bus that the configuration chooses."""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.config.file import Config
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import AgentBus, ControlBus, PeerBus


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
    ping = {"ping_interval_s": config.ping_interval_s}
    if config.bus == "nats":
        from droveway.drivers.bus.nats_link import NatsLink, NatsSettings

        return NatsLink(msgspec.convert(msgspec.to_builtins(config.nats) | ping, NatsSettings), SystemChance())
    if config.bus == "rabbitmq":
        from droveway.drivers.bus.rabbitmq_link import RabbitLink, RabbitSettings

        return RabbitLink(msgspec.convert(msgspec.to_builtins(config.rabbitmq) | ping, RabbitSettings), SystemChance())
    return None
