"""What one host's agent and heart may do at the broker: speak for their host, and hear what is meant for it. Pure.

The subjects are told in drivers/bus/broker_messages.py; docs/operating.md has the same table. `host` is the host's name
as one word of a subject. Of RabbitMQ's two kinds of permissions the topic permissions hold the routing keys; the others
let a host use the exchange and a queue of its own, and neither make nor delete the exchange that all share.
"""

from __future__ import annotations

from typing import NamedTuple

ANY_HOST = "*"  # for a user that all hosts share


def publish_subjects(prefix: str, host: str) -> tuple[str, ...]:
    """What it publishes on."""
    return (
        f"{prefix}.hello.{host}",
        f"{prefix}.hello-to.*.{host}",
        f"{prefix}.notice.*.{host}.*",
        f"{prefix}.beat.{host}",
        f"{prefix}.answer.*.{host}.*",
    )


def subscribe_subjects(prefix: str, host: str) -> tuple[str, ...]:
    """What it subscribes to."""
    return f"{prefix}.ask", f"{prefix}.ask.{host}", f"{prefix}.agent.{host}.*"


class RabbitRights(NamedTuple):
    """Regular expressions, as RabbitMQ's permissions are."""

    exchange: str
    configure: str
    write: str
    read: str
    topic_write: str
    topic_read: str


def rabbitmq(prefix: str, host: str) -> RabbitRights:
    own = r"amq\.gen.*"
    return RabbitRights(
        prefix,
        f"^{own}$",
        f"^({prefix}|{own})$",
        f"^({prefix}|{own})$",
        _pattern(publish_subjects(prefix, host)),
        _pattern(subscribe_subjects(prefix, host)),
    )


def _pattern(subjects: tuple[str, ...]) -> str:
    """A `*` stands for one word."""
    words = [subject.replace(".", r"\.").replace("*", "[^.]+") for subject in subjects]
    return f"^({'|'.join(words)})$"
