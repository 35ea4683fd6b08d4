"""TLS as sections of the configuration name it: an authority, and a certificate of one's own with its key."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path

from droveway.domain.faults import WrongConfiguration


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
        self._made_of = self._stamps()
        self._context = tls_context(*self._of)

    def context(self) -> ssl.SSLContext:
        """Of the files as they are now; while they cannot be used, of what they were."""
        stamps = self._stamps()
        if stamps != self._made_of:
            with contextlib.suppress(WrongConfiguration):
                self._context = tls_context(*self._of)
                self._made_of = stamps
        return self._context

    def _stamps(self) -> list[tuple[int, int]]:
        stamps = []
        for path in filter(None, self._of[1:]):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                stamps.append((status.st_ino, status.st_mtime_ns))
        return stamps


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
