"""TLS as sections of the configuration name it: an authority, and a certificate of one's own with its key."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

from droveway.domain.faults import WrongConfiguration

log = structlog.get_logger("droveway")


def wrong_files(section: str, tls_ca: str, tls_cert: str, tls_key: str) -> list[str]:
    """Every sentence that is wrong with these keys, before anything is opened."""
    problems = []
    if bool(tls_cert) != bool(tls_key):
        problems.append(f"{section}.tls_cert and {section}.tls_key go together; one of them is missing")
    for key, path in (("tls_ca", tls_ca), ("tls_cert", tls_cert), ("tls_key", tls_key)):
        if path and not Path(path).is_file():
            problems.append(f"{section}.{key} = {path}: there is no such file")
    return problems


class Tls:
    """The TLS of an end that connects again and again: a certificate that was renewed meanwhile is the one it shows."""

    def __init__(self, section: str, tls_ca: str, tls_cert: str, tls_key: str) -> None:
        """Raises WrongConfiguration, so that a wrong file is told at the start."""
        self._of = (section, tls_ca, tls_cert, tls_key)
        self._made_of = stamps(self._of[1:])
        self._context = tls_context(*self._of)

    def context(self) -> ssl.SSLContext:
        """Of the files as they are now; while they cannot be used, of what they were."""
        found = stamps(self._of[1:])
        if found != self._made_of:
            with contextlib.suppress(WrongConfiguration):
                self._context = tls_context(*self._of)
                self._made_of = found
        return self._context


_asked_to_read = 0  # how often


def read_again() -> None:
    """Somebody says that the files have changed (SIGHUP): they are read at the next connection, whatever they look
    like."""
    global _asked_to_read
    _asked_to_read += 1


class ServerTls:
    """The TLS of a listener. Each new connection shows the certificate that the files hold then; while they cannot be
    used, as in the middle of their replacement, the one before, and that is said once."""

    def __init__(self, section: str, tls_cert: str, tls_key: str) -> None:
        """Raises WrongConfiguration, so that a wrong file is told at the start."""
        self._section, self._files = section, (tls_cert, tls_key)
        self._tried = self._seen()
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        found = self._seen()
        if found != self._tried:
            self._tried = found  # a file that is wrong is not read again until it changes
            try:
                self._context = self._read()
                log.info("certificate read again", section=self._section, file=self._files[0])
            except WrongConfiguration as fault:
                log.error("certificate not read: the one before is shown on", because=fault.reason)
        return self._context

    def _seen(self) -> tuple[object, ...]:
        return (_asked_to_read, *stamps(self._files))

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise WrongConfiguration(
                f"{self._section}.tls_cert, tls_key: cannot be used: {error}; they must be PEM files that belong "
                "together, the key without a password"
            ) from None
        return context


def _no_password() -> str:
    """Else OpenSSL asks for it at the terminal."""
    raise ValueError("the key has a password")


def server_tls(api: Any) -> ServerTls | None:
    """Of the public listener, by the keys of [api]. Raises WrongConfiguration."""
    return ServerTls("api", api.tls_cert, api.tls_key) if api.tls_cert else None


def stamps(files: Iterable[str]) -> list[tuple[int, int]]:
    """What changes when one of these does."""
    found = []
    for path in filter(None, files):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found.append((status.st_ino, status.st_mtime_ns))
    return found


def tls_context(section: str, tls_ca: str, tls_cert: str, tls_key: str) -> ssl.SSLContext:
    """Raises WrongConfiguration when the files do not hold what their keys promise."""
    try:
        context = ssl.create_default_context(cafile=tls_ca or None)
        if tls_cert:
            context.load_cert_chain(tls_cert, tls_key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise WrongConfiguration(
            f"{section}.tls_ca, tls_cert, tls_key: cannot be used: {error}; they must be PEM files"
        ) from None
    return context
