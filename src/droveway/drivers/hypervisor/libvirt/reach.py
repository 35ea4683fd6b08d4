"""Whether another host's libvirtd is there: a connection to its port, and nothing asked of it."""

from __future__ import annotations

import asyncio

from droveway.domain.peer_uri import DEFAULT_PORTS, WrongUri, peer_uri


async def why_not(uri: str, within_s: float) -> str:
    """Why there is no connection; empty when there is one. Its kernel answers even where libvirtd hangs or has ended,
    which is what is asked: is the host there?"""
    try:
        there = peer_uri(uri)
    except WrongUri as wrong:
        return str(wrong)
    if there.transport not in DEFAULT_PORTS or there.is_local:
        return f"{there.where} is no address of another libvirt host"
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(there.address, there.port or DEFAULT_PORTS[there.transport])
    except TimeoutError:
        return f"{there.where} does not answer within {within_s:g} s"
    except ConnectionRefusedError:
        return ""
    except (OSError, ValueError) as error:
        return f"{there.where} cannot be reached: {error}"
    writer.transport.abort()
    return ""
