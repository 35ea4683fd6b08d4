"""The services that a control at a broker has let in: by host and service, and by the life that each names on its
subjects."""

from __future__ import annotations

from droveway.drivers.bus.broker_messages import HelloFrom, word
from droveway.ports.senders import display_name


class Agent:
    """One service of a host, in one life of its process."""

    def __init__(self, hello_from: HelloFrom, prefix: str) -> None:
        self.id, self.hello = hello_from.agent, hello_from.hello
        self.name = name = word(hello_from.hello.host)
        self.subject = f"{prefix}.agent.{name}.{hello_from.agent}"
        self.beat_subject = f"{prefix}.beat.{name}".encode()
        self.waiting: set[bytes] = set()  # the subjects of the answers that it owes

    @property
    def key(self) -> tuple[str, str]:
        return self.hello.host, self.hello.service

    @property
    def display_name(self) -> str:
        return display_name(self.hello.host, self.hello.service)


class Agents:
    """One agent a service of a host; the subjects of each name its host and its life, and not the service."""

    def __init__(self) -> None:
        self._by_host: dict[str, dict[str, Agent]] = {}
        self._by_life: dict[tuple[str, str], Agent] = {}

    def get(self, host: str, service: str) -> Agent | None:
        return self._by_host.get(host, {}).get(service)

    def of(self, host: str) -> dict[str, Agent]:
        """By their services."""
        return self._by_host.get(host, {})

    def by_life(self, name: str, agent_id: str) -> Agent | None:
        """`name`: of its host, as one word of a subject."""
        return self._by_life.get((name, agent_id))

    def put(self, agent: Agent) -> None:
        """In the place of any other that bore this name."""
        host, service = agent.key
        if (before := self.get(host, service)) is not None:
            self.remove(before)
        self._by_host.setdefault(host, {})[service] = agent
        self._by_life[agent.name, agent.id] = agent

    def remove(self, agent: Agent) -> None:
        """Nothing when another one bears its name by now."""
        host, service = agent.key
        if self.get(host, service) is not agent:
            return
        del self._by_host[host][service]
        if not self._by_host[host]:
            del self._by_host[host]
        self._by_life.pop((agent.name, agent.id), None)
