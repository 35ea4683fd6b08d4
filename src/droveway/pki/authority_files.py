"""The keys of a private CA as files, each for its owner alone."""

from __future__ import annotations

import os
from pathlib import Path

from droveway.domain import certificates as life
from droveway.domain.certificates import DAY_US
from droveway.domain.faults import WrongConfiguration
from droveway.pki import x509
from droveway.pki.x509 import WrongPem

LIVES_US = 10 * 365 * DAY_US
NAME = "droveway CA"


def make_files(directory: Path, now_us: int) -> x509.Authority:
    """A new authority in that directory. Raises WrongConfiguration."""
    key, certificate = x509.make_authority(f"{NAME} {life.day(now_us)}", now_us, now_us + LIVES_US, life.BACKDATED_US)
    made = x509.authority(key, certificate)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(directory / f"{made.fingerprint[:16]}.crt", certificate)
        write_file(directory / f"{made.fingerprint[:16]}.key", key)  # last: alone it is no CA
    except OSError as error:
        raise WrongConfiguration(f"ca.directory = {directory} cannot be written: {error.strerror}") from None
    return made


def read_files(directory: Path) -> dict[str, x509.Authority]:
    """By fingerprint. Raises WrongConfiguration."""
    found = {}
    for path in sorted(directory.glob("*.key")) if directory.is_dir() else []:
        try:
            if path.stat().st_mode & 0o077:
                raise WrongConfiguration(
                    f"{path} is open to others than its owner, and a reader of it can pass for "
                    f"every host: chmod 600 {path}"
                )
            one = x509.authority(path.read_text(), path.with_suffix(".crt").read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise WrongConfiguration(f"{path} and its .crt cannot be read: {error}") from None
        except WrongPem as wrong:
            raise WrongConfiguration(f"{path} and its .crt are no CA: {wrong}") from None
        found[one.fingerprint] = one
    return found


def write_file(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
