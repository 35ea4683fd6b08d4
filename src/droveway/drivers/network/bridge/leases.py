"""Leases that stand in the way. dnsmasq gives nobody an address while another one has the lease of it, and a lease runs
for a day: the address of a port that is gone, given to a new one on the same host, would reach no guest.

The file of leases is read when dnsmasq starts, and never again (its manual, `--dhcp-leasefile`); so it ends, loses
those lines and starts, which no guest with a lease notices.
"""

from __future__ import annotations

HOSTS, LEASES = "hosts", "leases"
FIELDS = 5  # of a line: until when, MAC (or IAID), address, name, client id


def kept(leases: str, before: str, now: str) -> str:
    """The leases without those of an address that is another port's by now, or no port's. `before` and `now`: the file
    of hosts. An IPv6 lease names no MAC: it goes when its address has changed hands."""
    had, has = _owners(before), _owners(now)
    return "".join(line for line in leases.splitlines(keepends=True) if _is_kept(line.split(), had, has))


def _is_kept(fields: list[str], had: dict[str, str], has: dict[str, str]) -> bool:
    if len(fields) != FIELDS:
        return True  # the server's own identity
    _, mac, address, *_ = fields
    if ":" in address:
        return address in has and had.get(address, has[address]) == has[address]
    return has.get(address) == mac.lower()


def _owners(hosts: str) -> dict[str, str]:
    """The MAC of each address, as namespaces.py writes them: `mac,set:tag,address[,name]`."""
    fields = (line.split(",") for line in hosts.splitlines())
    return {address.strip("[]"): mac.lower() for mac, _, address, *_ in fields}
