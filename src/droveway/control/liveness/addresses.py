"""Which host is at which address: two cannot be at one, and none at the name of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from droveway.domain.peer_uri import WrongUri, peer_uri


class Addresses:
    """By the peer URIs of accepted reports. The first host at an address holds it until it says another."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}  # where each host is
        self._holders: dict[str, str] = {}  # by address: its host

    def learn(self, uris: Mapping[str, str]) -> None:
        """What the store knew when this control started; afterwards every report is put in."""
        if not self._known:
            for host, uri in uris.items():
                self.put(host, uri)

    def put(self, host: str, uri: str) -> None:
        self.forget(host)
        try:
            self._known[host] = where = peer_uri(uri).place
        except WrongUri:  # of an older release: it is dropped once it reports
            self._known[host] = ""
            return
        self._holders.setdefault(where, host)

    def forget(self, host: str) -> None:
        where = self._known.pop(host, "")
        if self._holders.get(where) == host:
            del self._holders[where]

    def taken(self, host: str, uri: str, is_there: Callable[[str], bool]) -> str | None:
        """Why that host cannot be at that address, as a sentence; None when it can. `uri` fits the grammar. A machine
        that was given another name is at the address of a host that is no longer there."""
        there = peer_uri(uri)
        for other in (self._holders.get(there.place, host), there.address):
            if other != host and is_there(other):
                return (
                    f"its peer URI {uri} names the address of host {other}; set peer_uri in the file of its agent "
                    "to its own address"
                )
        return None
