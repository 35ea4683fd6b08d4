"""What this API tells a joining agent: how to reach the broker, and how often to beat. Never a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from droveway.api.wiring import Joining
from droveway.config import Config, NatsConfig, RabbitmqConfig
from droveway.domain.faults import WrongConfiguration

NOBODYS = {("", ""), ("guest", "guest")}  # what a broker takes that asks nobody
CA_FILE = "broker-ca.pem"  # beside the agent's file


def joining(config: Config) -> Joining:
    """Raises WrongConfiguration when a file that agents need cannot be read."""
    if config.bus == "socket":
        return Joining(sentence="The socket bus reaches agents on control's own machine only, so none can join: set "
                                "bus = nats or rabbitmq, and start again.")  # fmt: skip
    broker = _broker(config)
    if broker is None:
        return Joining(sentence="This API does not know which user of the broker agents are to be: set user and "
                                f"password in [agents.{config.bus}] (docs/operating.md: permissions).")  # fmt: skip
    told = {key: value for key, value in msgspec.to_builtins(broker).items() if not key.startswith("tls_")}
    files: dict[str, str] = {}
    if broker.tls_ca:
        try:
            files[CA_FILE] = Path(broker.tls_ca).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise WrongConfiguration(f"{config.bus}.tls_ca = {broker.tls_ca} cannot be read: {error}") from None
        told["tls_ca"] = CA_FILE
    membership = config.membership
    settings: dict[str, Any] = {
        "bus": config.bus, "report_interval": membership.report_interval_s,
        "service_down_time": membership.service_down_time_s, config.bus: told,
    }  # fmt: skip
    if membership.driver != "bus":
        settings["servicegroup_driver"] = membership.driver
        if hasattr(config, membership.driver):
            settings[membership.driver] = msgspec.to_builtins(getattr(config, membership.driver))
    return Joining(settings, files)


def _broker(config: Config) -> NatsConfig | RabbitmqConfig | None:
    """The agents' own user; or ours, where the broker asks nobody who he is: our own password is never handed out.
    What the agents' table leaves out is as it is for us."""
    own: NatsConfig | RabbitmqConfig = config.nats if config.bus == "nats" else config.rabbitmq
    theirs = config.agents.nats if config.bus == "nats" else config.agents.rabbitmq
    if theirs is None:
        return own if (own.user, own.password) in NOBODYS else None
    usual = type(theirs)()
    left_out = {key: getattr(own, key) for key in ("servers", "tls_ca", "prefix", "virtual_host")
                if hasattr(own, key) and getattr(theirs, key) == getattr(usual, key)}  # fmt: skip
    return msgspec.structs.replace(theirs, **left_out)
