"""Who may say what over the bus, and the sentences for who says something else."""

from __future__ import annotations

from droveway.domain.service_kinds import COMPUTE
from droveway.ports.bus import AgentDisconnected, Beat, GuestChanged, Hello, Report, ServiceReport


def wrong_sender(notice: Report | ServiceReport | GuestChanged | AgentDisconnected | Beat | Hello) -> str:
    """Why what a service said of another one does not count."""
    named = notice.service if isinstance(notice, (ServiceReport, AgentDisconnected, Hello)) else COMPUTE
    of_service = "" if named == COMPUTE else f"{named[:64]} on "
    return f"its agent spoke in the name of {of_service}host {notice.host[:64]}; nothing of that counts"


def is_own(notice: Report | ServiceReport | GuestChanged | AgentDisconnected | Beat | Hello, hello: Hello) -> bool:
    """Whether the service that said this hello may say that: of its host, and of itself alone. Guests are compute's;
    beats are a heart's, for all services of the host."""
    if notice.host != hello.host:
        return False
    if isinstance(notice, (ServiceReport, AgentDisconnected, Hello)):
        return notice.service == hello.service
    return isinstance(notice, Beat) or hello.service == COMPUTE


def display_name(host: str, service: str) -> str:
    """That service, in a sentence about what it did not do."""
    return f"the agent of {host}" if service == COMPUTE else f"{service} on {host}"


def name_taken(hello: Hello, holder: Hello) -> str:
    """Why a second live process of that name is refused."""
    return (
        f"{hello.service} on host {hello.host} is taken by the agent at {holder.address}; the one at "
        f"{hello.address} is refused: stop one of them or give it another name"
    )
