"""What a client may take of an API before anybody knows who it is, and how many files a process may have open."""

from __future__ import annotations

import resource
import socket

import msgspec

from droveway.domain.faults import WrongConfiguration

FILES_MAX = 65536
FILES_KEPT_MIN = 64  # the database, the log, the broker, images that are being read
FILES_OF_A_HOST = 4  # its agent and its heart, each while an older connection of it is still being closed
CONNECTIONS_MIN = 16
EXAMPLE_PORTS = {"http": 8774, "https": 8775}


class HttpBounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bounds of the public listener, as keys of [api]. Nothing here is shared with the bus."""

    max_connections: int = 4096  # of all clients; fewer where the process may not open as many files
    max_connections_per_address: int = 1024  # 0: no bound of its own, for a balancer in front
    max_requests_per_s_per_address: int = 4000  # on average of a client, at one API; 0: no bound
    max_requests_per_s_per_project: int = 4000  # likewise of a project
    max_url_bytes: int = 16 * 1024  # of the request line
    max_headers: int = 128  # of a request
    max_header_bytes: int = 64 * 1024  # of all headers of a request together
    header_timeout_s: float = 10.0  # from the connection, or a request's first byte, to its last header
    idle_timeout_s: float = 30.0  # between two requests of a connection
    body_timeout_s: float = 30.0  # each such time of a body brings `min_bytes_per_s` or more on average
    send_timeout_s: float = 60.0  # each such time a client takes as much of its reply
    min_bytes_per_s: int = 1024  # less than that on average ends the connection


BOUNDS: dict[str, tuple[float, float, str]] = {
    "max_connections": (CONNECTIONS_MIN, FILES_MAX, "connections, such as 4096"),
    "max_connections_per_address": (0, FILES_MAX, "connections, such as 1024, where 0 is no bound"),
    "max_requests_per_s_per_address": (0, 1_000_000, "requests a second, such as 4000, where 0 is no bound"),
    "max_requests_per_s_per_project": (0, 1_000_000, "requests a second, such as 4000, where 0 is no bound"),
    "max_url_bytes": (1024, 1 << 20, "bytes, such as 16384"),
    "max_headers": (16, 1024, "headers, such as 128"),
    "max_header_bytes": (4096, 1 << 20, "bytes, such as 65536"),
    "header_timeout_s": (0.1, 600, "seconds, such as 10.0"),
    "idle_timeout_s": (0.1, 3600, "seconds, such as 30.0"),
    "body_timeout_s": (0.1, 3600, "seconds, such as 30.0"),
    "send_timeout_s": (0.1, 3600, "seconds, such as 60.0"),
    "min_bytes_per_s": (0, 1 << 30, "bytes a second, such as 1024"),
}


def numbers(bounds: HttpBounds) -> list[tuple[str, float, float, float, str]]:
    """Each key of [api] with its value, its least, its most and what it is."""
    return [(f"api.{name}", getattr(bounds, name), *BOUNDS[name]) for name in HttpBounds.__struct_fields__]


def wrong_address(listen: str, key: str = "api.listen") -> list[str]:
    """Every sentence that is wrong with `api.listen`, or another address that is listened at."""
    address, _, port = listen.rpartition(":")
    is_bracketed = address.startswith("[") and address.endswith("]")
    if not address or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        return [f"{key} = {listen!r} must be ADDRESS:PORT, such as 127.0.0.1:8774 or [::1]:8774"]
    if ":" in address and not is_bracketed:
        return [f"{key} = {listen!r}: an IPv6 address stands in brackets before its port, such as [{address}]:{port}"]
    if is_bracketed and not _is_ipv6(address[1:-1]):
        return [f"{key} = {listen!r}: what stands in brackets is no IPv6 address; [::1]:8774 would be one"]
    return []


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def wrong_url(listen: str, url: str, key: str = "api.listen", scheme: str = "http") -> list[str]:
    """Where clients are told to go must be a place to which they can go."""
    address = listen.rpartition(":")[0]
    if url or (address not in {"0", "0.0.0.0"} and not _is_unspecified(address.strip("[]"))):
        return []
    return [
        f"{key} = {listen} is every address of this machine, and none that a client can connect to: say in "
        f"{key.replace('listen', 'url')} how clients reach it, such as "
        f'url = "{scheme}://cloud.example:{EXAMPLE_PORTS[scheme]}"'
    ]


def _is_unspecified(text: str) -> bool:
    return _is_ipv6(text) and not any(socket.inet_pton(socket.AF_INET6, text.partition("%")[0]))


def raise_open_files() -> int:
    """As many as this process may have, FILES_MAX at most: the usual soft bound of 1024 is low for a process with a
    connection a client or a host. How many that is."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = FILES_MAX if most in (resource.RLIM_INFINITY, -1) else min(most, FILES_MAX)
    if now != resource.RLIM_INFINITY and now < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return files


def connections_of(bounds: HttpBounds, files: int, hosts: int = 0) -> int:
    """How many the public listener may have open: what is kept for the bus and the database is never given to a client,
    and each client may have a file of an image open beside its connection. `files`: what the process may open; `hosts`:
    how many connect to this very process. Raises WrongConfiguration."""
    kept = max(FILES_KEPT_MIN, files // 4) + hosts * FILES_OF_A_HOST
    found = min(bounds.max_connections, (files - kept) // 2)
    if found < CONNECTIONS_MIN:
        raise WrongConfiguration(
            f"this program may open {files} files, of which {kept} are kept for the database, the bus and {hosts} "
            f"hosts: too few for an API; raise RLIMIT_NOFILE (ulimit -n, or LimitNOFILE= of its unit) to 4096"
        )
    return found
