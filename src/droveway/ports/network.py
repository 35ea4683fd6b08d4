"""What a network agent asks of the packets of its own host.

Guarantees every driver gives (tests/drivers/test_network_contract.py holds them):
- `apply` is idempotent, and a whole state: what is ours and not in the plan is removed, what is there and right is not
  touched, so no packet of an unchanged port is lost;
- a port with security passes nothing before its rules are in force, whatever the order in which its device and its
  plan arrive, and a device of ours that is in no plan passes nothing;
- when `apply` has returned, what it does not name as failed is in force; one thing that fails keeps no other away;
- a rule that is taken away ends the connections that it had allowed; one that stays keeps its own;
- everything goes on without the agent: nothing of it ends with the process;
- no call blocks the event loop; calls of one driver are made one after the other.
"""

from __future__ import annotations

import socket
from typing import Protocol

from droveway.domain.faults import Fault
from droveway.domain.network_plan import HostNetworks, NotInForce


class NetworkRefused(Fault):
    """This host cannot do that, or not like this: the sentence says what is missing."""


class Network(Protocol):
    async def open(self) -> None:
        """Look at what this host can do. Raises NetworkRefused with what is missing (a program, a right, a device)."""
        ...

    async def close(self) -> None:
        """End what the driver itself has open; everything that passes packets stays."""
        ...

    async def apply(self, plan: HostNetworks) -> tuple[NotInForce, ...]:
        """Make the plan true, and name what could not be made."""
        ...

    async def bridge_of(self, network_id: str) -> str:
        """The device to which the hypervisor attaches a port of that network. Raises NetworkRefused when this host has
        not got the network."""
        ...

    async def metadata_sockets(self, network_id: str) -> tuple[socket.socket, ...]:
        """Those that listen at 169.254.169.254 and fe80::a9fe:a9fe, port 80, where the guests of that network reach
        them, and nobody else. The caller closes them. Raises NetworkRefused when this host has no server for that
        network, or another one listens there."""
        ...

    async def metadata_networks(self) -> dict[str, str]:
        """Those for which there is such a place now, and what tells it from one that was there before it: sockets of
        that one are reached by nobody."""
        ...

    async def connections(self, port_id: str) -> str:
        """The tracked connections of a port, as text that `restore_connections` takes on another host; bounded."""
        ...

    async def restore_connections(self, port_id: str, saved: str) -> None:
        """Know them here: after a live migration a guest that only receives would stall without."""
        ...

    async def remove_all(self) -> None:
        """Take away everything that is ours on this host."""
        ...
