"""Membership servers that do not let everybody in: TLS with certificates of both ends, and a user with a password."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from droveway.config.membership import EtcdConfig, MembershipSettings, MemcachedConfig, ZookeeperConfig, problems
from droveway.config.tls import tls_context
from droveway.drivers.membership.etcd_wire import Access, EtcdConnection, after, credentials, number, text
from droveway.drivers.membership.memcached_wire import MemcachedConnection
from droveway.ports.membership import EVERY_SERVICE
from lab import servers
from tests.drivers.membership_worlds import (
    READY_S,
    MemcachedWorld,
    World,
    etcd_settings,
    memcached_settings,
    zookeeper_settings,
)
from tests.drivers.test_nats_bus import authority, signed

H1 = "h1/nova-compute"
USER, PASSWORD = "droveway", "pass-word"
DRIVERS = ["zookeeper", "etcd", "memcached"]


def with_access(settings: MembershipSettings, **access: str) -> MembershipSettings:
    part = msgspec.structs.replace(getattr(settings, settings.driver), **access)
    return msgspec.structs.replace(settings, **{settings.driver: part})


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> servers.Certified:
    home = tmp_path_factory.mktemp("tls")
    ca = authority(home / "ca")
    return servers.Certified(ca[0], *signed(home / "own", ca))


@pytest.fixture(params=DRIVERS)
def closed(request: pytest.FixtureRequest, certified: servers.Certified, tmp_path: Path) -> Iterator[World]:
    with _closed(request.param, certified, tmp_path) as world:
        yield world
        asyncio.run(world.all_die())


@contextlib.contextmanager
def _closed(name: str, certified: servers.Certified, tmp_path: Path) -> Iterator[World]:
    """The driver's server, which lets in who has a certificate and knows the password; and the settings to enter."""
    if (reason := servers.obstacle(name)) is not None:
        pytest.skip(reason)
    access = {
        "tls_ca": str(certified.ca),
        "tls_cert": str(certified.cert),
        "tls_key": str(certified.key),
        "user": USER,
        "password": PASSWORD,
    }
    if name == "zookeeper":
        with servers.zookeeper(tmp_path, tls=certified) as server:
            yield World(with_access(zookeeper_settings(server.address), **access)).serve(server)
    elif name == "etcd":
        with servers.etcd(tmp_path, certified) as server:
            asyncio.run(close_etcd(server.address, certified))
            yield World(with_access(etcd_settings(server.address), **access)).serve(server)
    else:
        with servers.memcached(tmp_path, tls=certified, login=f"{USER}:{PASSWORD}") as server:
            yield MemcachedWorld(with_access(memcached_settings(server.address), **access)).serve(server)


async def close_etcd(address: str, certified: servers.Certified) -> None:
    """One user who may do everything, and one who may read and write below the prefix of the members alone."""
    etcd = EtcdConnection(address, READY_S, Access(credentials(*map(str, certified))))
    prefix = b"/servicegroups/"
    below = number(1, 2) + text(2, prefix) + text(3, after(prefix))
    for method, message in [
        ("UserAdd", text(1, b"root") + text(2, b"secret")),
        ("UserGrantRole", text(1, b"root") + text(2, b"root")),
        ("RoleAdd", text(1, b"members")),
        ("RoleGrantPermission", text(1, b"members") + text(2, below)),
        ("UserAdd", text(1, USER.encode()) + text(2, PASSWORD.encode())),
        ("UserGrantRole", text(1, USER.encode()) + text(2, b"members")),
        ("AuthEnable", b""),
    ]:
        await etcd._ask(f"Auth/{method}", message)
    await etcd.close()


# kazoo leaves the socket of an attempt that failed to the garbage collector
@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.servers
def test_members_are_seen_through_tls_as_a_user(closed: World) -> None:
    async def story() -> None:
        async with closed.opened() as seen:
            member = await closed.member(H1)
            await seen.until(H1, "present", within_s=READY_S)
            closed.stop()
            await seen.until(H1, "unknown", within_s=READY_S)
            closed.start()
            await seen.until(H1, "present", "held", within_s=READY_S)
            await member.kill()
            await seen.until(H1, "absent", within_s=READY_S)
        assert not problems(closed.settings)

    asyncio.run(story())


@pytest.mark.servers
def test_a_connection_through_tls_is_closed_at_once(certified: servers.Certified, tmp_path: Path) -> None:
    """The loop may end: nothing is left that waits for the other end to say goodbye."""

    async def story(world: World) -> None:
        tls = tls_context("memcached", *map(str, certified))
        client = MemcachedConnection(world.server.address, READY_S, tls, f"{USER} {PASSWORD}".encode())
        await client.started()
        client.close()

    with _closed("memcached", certified, tmp_path) as world:
        for _ in range(5):
            asyncio.run(story(world))
        gc.collect()  # what is unclosed is warned of


@pytest.mark.servers
def test_others_are_not_let_in(closed: World, tmp_path: Path) -> None:
    """Nobody is judged by an end that may not ask, and what is wrong is said."""

    async def story() -> None:
        stranger = authority(tmp_path / "other")
        for wrong in (
            {"password": "guessed"},
            {"tls_ca": str(stranger[0])},
            {"tls_cert": "", "tls_key": ""},
            {"tls_ca": "", "tls_cert": "", "tls_key": ""},
        ):
            other = World(with_access(closed.settings, **wrong))
            async with other.opened() as seen:
                await asyncio.wait_for(seen.end.join(EVERY_SERVICE, H1), READY_S)
                assert await seen.look(H1) in ("unknown", "absent"), wrong
        async with closed.opened() as seen:
            await asyncio.wait_for(seen.end.get_all(EVERY_SERVICE), READY_S)
            assert await seen.look(H1) == "absent"

    if closed.settings.driver == "zookeeper":  # it lets in any user; what is somebody's is not shown to others
        check_zookeeper_acl(closed)
    else:
        asyncio.run(story())


def check_zookeeper_acl(closed: World) -> None:
    z = closed.settings.zookeeper
    tls: dict[str, Any] = {"use_ssl": True, "ca": z.tls_ca, "certfile": z.tls_cert, "keyfile": z.tls_key}

    async def story() -> None:
        async with closed.opened() as seen:
            await closed.member(H1)
            await seen.until(H1, "present", within_s=READY_S)
            for auth in (None, [("digest", f"{USER}:guessed")]):
                await asyncio.to_thread(look, auth)

    def look(auth: Any) -> None:
        client = KazooClient(closed.server.address, auth_data=auth, **tls)
        client.start()
        for ask in (client.get_children, client.delete):
            with pytest.raises(NoAuthError):
                ask(f"/servicegroups/{EVERY_SERVICE}")
        client.stop()
        client.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ({"tls_cert": "/nowhere/c"}, "tls_cert and {}.tls_key go together"),
        ({"tls_ca": "/nowhere/ca"}, "{}.tls_ca = /nowhere/ca: there is no such file"),
        ({"tls_cert": __file__, "tls_key": __file__}, "which {}.tls_ca turns on"),
        ({"user": "u"}, "{}.user and {}.password go together"),
        ({"password": "p"}, "{}.user and {}.password go together"),
        ({"user": "u\n", "password": "p"}, "must each be one line"),
    ],
)
@pytest.mark.parametrize("name", DRIVERS)
def test_wrong_keys_do_not_start(name: str, access: dict[str, str], words: str) -> None:
    assert any(words.replace("{}", name) in reason for reason in wrong(name, access)), wrong(name, access)


def test_what_a_server_would_take_apart_does_not_start() -> None:
    assert any("a colon" in one for one in wrong("zookeeper", {"user": "a:b", "password": "p"}))
    assert any("a space" in one for one in wrong("memcached", {"user": "a", "password": "p q"}))
    assert not wrong("etcd", {"user": "a:b", "password": "p q"})


def wrong(name: str, access: dict[str, str]) -> list[str]:
    kinds: dict[str, Callable[..., Any]] = {
        "zookeeper": ZookeeperConfig,
        "etcd": EtcdConfig,
        "memcached": MemcachedConfig,
    }
    return problems(MembershipSettings(name, **{name: kinds[name]("localhost:1", **access)}))
