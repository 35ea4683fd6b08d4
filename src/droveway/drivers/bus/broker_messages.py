"""What crosses a broker, and on which subject. PREFIX is `nats.prefix` or `rabbitmq.prefix`, HOST a name as one word.

    PREFIX.hello.HOST                  an agent names itself, to all controls
    PREFIX.hello-to.CONTROL.HOST       the same, to one
    PREFIX.ask, .ask.HOST              a control asks all agents, or one host's, to say hello
    PREFIX.agent.HOST.ID               to one agent: welcome, command, probe
    PREFIX.notice.KIND.HOST.ID         from one agent: report, service, changed, gone
    PREFIX.beat.HOST                   beats.py
    PREFIX.answer.CONTROL.HOST.SECRET  that host's answer, to the control that asked; the secret is the request's own

ID is one life of one agent, and a host has an agent a service: which service it is says its hello. Subjects do not name
services, so what a host may do at its broker does not change with the services that it carries.

A broker's permissions hold each host to the subjects with its own name (docs/operating.md).
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from droveway.drivers.bus.decoding import decoder
from droveway.ports.bus import AgentDisconnected, Command, GuestChanged, Hello, Report, ServiceReport, Welcome
from droveway.ports.replies import Answer

AgentId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class HelloFrom(msgspec.Struct, frozen=True):
    """`agent` names one agent's life: it stays over reconnects, and no two agents share it."""

    agent: AgentId
    hello: Hello


class WelcomeFrom(msgspec.Struct, frozen=True, tag="welcome"):
    control: str
    welcome: Welcome


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Are you there?"""


class CommandMessage(msgspec.Struct, frozen=True, tag="command"):
    command: Command


class ProbeReply(msgspec.Struct, frozen=True, tag="here"):
    """The answer to a probe."""


class Answered(msgspec.Struct, frozen=True, tag="answer"):
    answer: Answer


NOTICE_KINDS: dict[type, str] = {
    Report: "report",
    ServiceReport: "service",
    GuestChanged: "changed",
    AgentDisconnected: "gone",
}

encode = msgspec.msgpack.Encoder().encode
decode_hello = decoder(HelloFrom)
decode_for_agent = decoder(WelcomeFrom | Probe | CommandMessage)
decode_answer = decoder(ProbeReply | Answered)
decode_notice = decoder(Report | ServiceReport | GuestChanged | AgentDisconnected)


def word(name: str) -> str:
    """A name as one word of a subject: what a broker gives a meaning to, and = itself, is written =XX."""
    return re.sub(rb"[^A-Za-z0-9_-]", lambda found: b"=%02X" % found[0][0], name.encode()).decode()
