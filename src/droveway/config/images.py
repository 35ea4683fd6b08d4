"""How images reach hosts, as keys of the configuration file: `image_store`, `agents.api_urls` and [image_cache]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from droveway.domain.peer_uri import PeerUri

STORES = ("file", "path")
URLS_MAX = 64


class ImageCacheConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host keeps of images that no disk needs, and whom it trusts when it fetches one."""

    max_gib: int = 50  # of disk that bases may take which nothing uses
    max_age_hours: float = 24.0  # since a disk was last made on it
    tls_ca: str = ""  # who has signed the certificates of APIs at https://; empty: whom this machine trusts


def numbers(cache: ImageCacheConfig) -> list[tuple[str, float, float, float, str]]:
    return [
        ("image_cache.max_gib", cache.max_gib, 0, 1 << 20, "GiB, such as 50"),
        ("image_cache.max_age_hours", cache.max_age_hours, 0.2, 24 * 3650, "hours, such as 24"),
    ]


def path_of_hosts(store: str, images_path: str) -> str:
    """Where hosts see the images; empty: they fetch them."""
    return images_path if store == "path" else ""


def urls_of_hosts(api_urls: Sequence[str], api_url: str) -> tuple[str, ...]:
    """The APIs as hosts reach them."""
    return tuple(url.rstrip("/") for url in api_urls) or (api_url,)


def warnings(config: Any) -> list[str]:
    """What is allowed, and not safe or not of use, in a file of a control: a ticket gives the image to every
    reader of it, and the bytes that come back are compared with a sha512 that has travelled by the bus alone."""
    if config.role not in ("all", "control") or config.image_store != "file":
        return []
    given = config.agents.api_urls
    has_hosts_elsewhere = config.bus != "socket" and not config.host
    if not given and has_hosts_elsewhere and _is_here(config.api_url):
        return [
            f"agents.api_urls is missing, so hosts on other machines would fetch images from {config.api_url}, which "
            'is each host itself: name the APIs as hosts reach them, such as api_urls = ["https://api-1.example:8775"]'
        ]
    return [
        f"{'agents.api_urls' if given else 'api.url'}: {url} is not encrypted, so tickets and images of hosts can be "
        "read on the way: name an https:// address, such as that of api.agents_listen, where hosts show "
        "their certificates"
        for url in urls_of_hosts(given, config.api_url)
        if url.startswith("http://") and not _is_here(url)
    ]


def _is_here(url: str) -> bool:
    """A loopback address, so what is sent there leaves no machine."""
    host = urlsplit(url).hostname or ""
    return PeerUri("tls", host).is_local


def problems(role: str, store: str, api_urls: Sequence[str], api_url: str) -> list[str]:
    """Every sentence that is wrong with how hosts find images."""
    found = [] if store in STORES else [f"image_store = {store!r} must be file or path"]
    if len(api_urls) > URLS_MAX:
        found.append(f"agents.api_urls names {len(api_urls)} APIs; at most {URLS_MAX} are taken")
    found += [
        f"agents.api_urls: {url[:128]!r} must be http://HOST:PORT or https://HOST:PORT, as hosts reach that API"
        for url in api_urls
        if not _is_url(url)
    ]
    if role == "control" and store == "file" and not api_urls and not _is_url(api_url):
        found.append(
            "agents.api_urls is missing: this control serves no API itself, and hosts fetch images from APIs; name "
            'them as hosts reach them, such as api_urls = ["http://api-1.example:8774"], or set image_store = "path" '
            "where every host sees the files"
        )
    return found


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_right and "@" not in parts.netloc and not parts.query and not parts.fragment
