"""What this API tells a joining agent: how to reach the broker, and how often to beat. Never a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from droveway.api.wiring import JoinSettings
from droveway.config.file import AgentsNatsConfig, AgentsRabbitmqConfig, Config, NatsConfig, RabbitmqConfig
from droveway.domain.faults import WrongConfiguration
from droveway.ports.clock import Clock, Names
from droveway.process import identities

WITHOUT_AUTHENTICATION = {("", ""), ("guest", "guest")}  # the user of a broker without authentication
UNSAID = (("jwt", ""), ("makes_exchange", True))  # what an agent's file need not say
CA_FILE, MEMBERSHIP_CA_FILE = "broker-ca.pem", "membership-ca.pem"  # beside the agent's file


def joining(config: Config, clock: Clock, names: Names) -> JoinSettings:
    """Raises WrongConfiguration when a file that agents need, or the key that signs for them, cannot be read."""
    if config.bus == "socket":
        return JoinSettings(
            reason="The socket bus reaches agents on control's own machine only, so none can join: set "
            "bus = nats or rabbitmq, and start again."
        )
    broker = _broker(config)
    if broker is None:
        how = "signing_key" if config.bus == "nats" else "per_host = true"
        return JoinSettings(
            reason="This API does not know who agents are to be at the broker: set "
            f"{how} in [agents.{config.bus}], or, in a lab, user and password there "
            "(docs/operating.md: permissions)."
        )
    kind = NatsConfig if config.bus == "nats" else RabbitmqConfig
    table = {
        key: msgspec.to_builtins(getattr(broker, key)) for key in kind.__struct_fields__ if not key.startswith("tls_")
    }
    table = {key: value for key, value in table.items() if (key, value) not in UNSAID}
    files: dict[str, str] = {}
    if broker.tls_ca:
        files[CA_FILE] = _authority(config.bus, broker.tls_ca)
        table["tls_ca"] = CA_FILE
    membership = config.membership
    settings: dict[str, Any] = {
        "bus": config.bus,
        "report_interval": membership.report_interval_s,
        "service_down_time": membership.service_down_time_s,
        config.bus: table,
    }
    if membership.driver != "bus":
        settings["servicegroup_driver"] = membership.driver
        if hasattr(config, membership.driver):
            settings[membership.driver] = members = msgspec.to_builtins(getattr(config, membership.driver))
            for key in ("tls_cert", "tls_key"):  # this API's own
                del members[key]
            if members["tls_ca"]:
                files[MEMBERSHIP_CA_FILE] = _authority(membership.driver, members["tls_ca"])
                members["tls_ca"] = MEMBERSHIP_CA_FILE
    return JoinSettings(settings, files, identify=_identify(config, broker, clock, names))


def _authority(section: str, path: str) -> str:
    """Raises WrongConfiguration."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongConfiguration(f"{section}.tls_ca = {path} cannot be read: {error}") from None


def _identify(config: Config, broker: NatsConfig | RabbitmqConfig, clock: Clock, names: Names) -> identities.Identify:
    theirs: AgentsNatsConfig | AgentsRabbitmqConfig | None
    theirs = config.agents.nats if config.bus == "nats" else config.agents.rabbitmq
    if isinstance(theirs, AgentsNatsConfig) and theirs.signing_key:
        return identities.nats(theirs, broker.prefix, clock)
    if isinstance(theirs, AgentsRabbitmqConfig) and (theirs.per_host or theirs.management_url):
        taken = {config.rabbitmq.user, theirs.user, theirs.management_user}
        return identities.rabbitmq(theirs, broker.prefix, getattr(broker, "virtual_host", "/"), names, taken)
    return identities.shared("" if (broker.user, broker.password) in WITHOUT_AUTHENTICATION else broker.user)


def _broker(config: Config) -> NatsConfig | RabbitmqConfig | None:
    """The agents' own user; or ours, where the broker has no authentication: our own password is never handed out.
    What the agents' table leaves out is as it is for us."""
    own: NatsConfig | RabbitmqConfig = config.nats if config.bus == "nats" else config.rabbitmq
    theirs = config.agents.nats if config.bus == "nats" else config.agents.rabbitmq
    if theirs is None:
        return own if (own.user, own.password) in WITHOUT_AUTHENTICATION and not getattr(own, "jwt", "") else None
    usual = type(theirs)()
    left_out = {
        key: getattr(own, key)
        for key in ("servers", "tls_ca", "prefix", "virtual_host")
        if hasattr(own, key) and getattr(theirs, key) == getattr(usual, key)
    }
    return msgspec.structs.replace(theirs, **left_out)
