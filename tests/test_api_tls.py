"""TLS of the API's own: the certificate that its files hold now is shown, without a restart and without a gap."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from pathlib import Path

import pytest

from droveway.config import tls
from droveway.config.file import load
from droveway.config.tls import ServerTls, server_tls
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.clock import SystemClock
from droveway.pki import x509
from droveway.process.listeners import listen_at
from droveway.process.serving import ApiServer
from tests.api.world import World

YEAR_US = 365 * 24 * 3600 * 1_000_000


class Files:
    """A CA of the test's own, and what it has signed last."""

    def __init__(self, home: Path) -> None:
        self.home, self.cert, self.key = home, home / "cert.pem", home / "key.pem"
        self._now_us = SystemClock().now_us()
        key, pem = x509.make_authority("test", self._now_us, self._now_us + YEAR_US, 0)
        self._authority = x509.authority(key, pem)
        (home / "ca.pem").write_text(pem)
        self.renew("1")

    def renew(self, serial: str) -> None:
        key = x509.make_key()
        public = x509.public_key(x509.request(key, "api"))
        pem = x509.sign(
            self._authority,
            public,
            serial,
            "api",
            "spiffe://droveway/service/api",
            ("127.0.0.1",),
            self._now_us,
            self._now_us + YEAR_US // 2,
        )
        for path, text in ((self.key, key), (self.cert, pem)):
            fresh = path.with_suffix(".new")
            fresh.write_text(text)
            fresh.rename(path)


async def shown(port: int, home: Path) -> str:
    """The serial of the certificate that a new client is shown, which it has checked."""
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    certificate = writer.get_extra_info("ssl_object").getpeercert()
    writer.write(b"GET /identity/v3 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    return str(certificate["serialNumber"]).lstrip("0")


async def test_a_certificate_that_was_renewed_is_shown_to_the_next_client(tmp_path: Path) -> None:
    files = Files(tmp_path)
    world, listener = World(tmp_path), listen_at("127.0.0.1:0")
    port = listener.getsockname()[1]
    serving = ApiServer(world.api, listener, tls=ServerTls("api", str(files.cert), str(files.key)))
    running = asyncio.create_task(serving.run())
    try:
        assert await shown(port, tmp_path) == "1"
        files.renew("2")
        assert await shown(port, tmp_path) == "2"
        good = files.cert.read_text()
        files.cert.write_text("in the middle of being written")
        assert await shown(port, tmp_path) == "2", "the one before is shown on"
        files.cert.write_text(good)
        assert await shown(port, tmp_path) == "2"
        before = files.cert.stat()
        kept = tmp_path / "kept"
        shutil.copy(files.key, kept)
        files.renew("3")
        third = files.cert.read_text(), files.key.read_text()
        assert await shown(port, tmp_path) == "3"
        for path, text in zip((files.cert, files.key), third, strict=True):  # no sign of a change but the signal
            path.write_text(text)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        tls.read_again()
        assert await shown(port, tmp_path) == "3"
    finally:
        serving.end()
        await running
        listener.close()
        await world.close()


def test_wrong_files_do_not_start_and_are_named(tmp_path: Path) -> None:
    files = Files(tmp_path)
    config = tmp_path / "cloud.toml"

    def written(**keys: str) -> Path:
        lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
        config.write_text(f'state_path = "{tmp_path}"\n[api]\nlisten = "127.0.0.1:8774"\n{lines}')
        return config

    good = load(written(tls_cert=str(files.cert), tls_key=str(files.key)))
    assert good.api_url == "https://127.0.0.1:8774"
    assert server_tls(good.api) is not None
    assert load(written()).api_url == "http://127.0.0.1:8774"
    for keys, word in (
        ({"tls_cert": str(files.cert)}, "go together"),
        ({"tls_cert": str(files.cert), "tls_key": "/nothing"}, "there is no such file"),
    ):
        with pytest.raises(WrongConfiguration, match=word):
            load(written(**keys))
    files.key.write_text(x509.make_key())  # of another certificate
    with pytest.raises(WrongConfiguration, match=r"api\.tls_cert, tls_key: cannot be used"):
        server_tls(load(written(tls_cert=str(files.cert), tls_key=str(files.key))).api)
    with pytest.raises(WrongConfiguration, match="allowed_origins"):
        load(_with_origin(config, tmp_path, "https://board.test/path"))
    assert load(_with_origin(config, tmp_path, "https://board.test")).api.allowed_origins == ("https://board.test",)


def _with_origin(config: Path, home: Path, origin: str) -> Path:
    config.write_text(f'state_path = "{home}"\n[api]\nallowed_origins = ["{origin}"]\n')
    return config
