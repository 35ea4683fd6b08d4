"""The certificate of a host on that host: its files, and how it is renewed before it ends.

    tls_path/current -> SERIAL      changed in one step, so that key and certificate always fit
    tls_path/SERIAL/key.pem         made here, and never sent anywhere
    tls_path/SERIAL/cert.pem
    tls_path/ca.pem, revoked.pem    whom it trusts, and what was revoked

With `libvirt_pki` the same is laid out as libvirtd reads it: CA/cacert.pem, CA/cacrl.pem, libvirt/servercert.pem,
libvirt/clientcert.pem, libvirt/private/serverkey.pem, libvirt/private/clientkey.pem below that directory; and as QEMU
does, which sends guests itself, in libvirt-migrate/.

`python -m droveway.pki.host_files` reads the settings from its standard input, looks once and writes one line of
JSON: an agent runs it each hour, so that it need not keep in memory what reads certificates.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from droveway.domain import certificates as life
from droveway.domain.certificates import HOST, Holder, Stage
from droveway.pki import x509
from droveway.pki.x509 import WrongPem

MARK = "# written by droveway for this host\n"
STREAMS = "libvirt-migrate"  # migrate_tls_x509_cert_dir of qemu.conf, unless that says otherwise, is /etc/pki/ and this
OF_LIBVIRT = ("CA/cacert.pem", "libvirt/servercert.pem", "libvirt/clientcert.pem")
OF_STREAMS = tuple(f"{STREAMS}/{name}-cert.pem" for name in ("ca", "server", "client"))
ANSWER_MAX_BYTES = 1 << 20
TIMEOUT_S = 20.0
COMMAND_S = 30.0
JOIN_ANEW = "stop its agent, and let it join anew with 'droveway agent join'"


class NotRenewed(Exception):
    """The certificate stays as it is; the message is a sentence."""


class Settings(NamedTuple):
    """As in the [[host]] of the agent's file."""

    host: str
    tls_path: str
    renew_url: str
    libvirt_pki: str = ""
    renewed_command: tuple[str, ...] = ()


class RenewalCheck(NamedTuple):
    """What came of a look. `trouble`: what an operator must do; empty when nothing."""

    reason: str
    trouble: str = ""
    renewed: bool = False


# -- files ------------------------------------------------------------------------------------------------------------
def foreign_pki(pki: Path, ours: Sequence[str] = (*OF_LIBVIRT, *OF_STREAMS)) -> Path | None:
    """A file that is not ours where ours would be written."""
    for path in (pki / name for name in ours):
        with contextlib.suppress(FileNotFoundError):
            if not path.read_text(errors="replace").startswith(MARK):
                return path
    return None


def install(settings: Settings, key: str, reply: dict[str, Any]) -> None:
    """A new certificate with its key, and whom to trust. Raises OSError; NotRenewed when it is not ours."""
    certificate = str(reply["certificate"])
    try:
        facts = x509.facts(certificate)
        if not x509.fits(key, certificate) or facts.uri != Holder(HOST, settings.host).uri:
            raise NotRenewed("the certificate that the API has sent is not of this host's key and name")
    except WrongPem as wrong:
        raise NotRenewed(f"what the API has sent as a certificate is none: {wrong}") from None
    home = Path(settings.tls_path)
    own = home / facts.serial
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(own / "key.pem", key)
    _write(own / "cert.pem", certificate)
    write_trust(settings, reply)
    link = home / f"current.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    old = _current(home)
    link.symlink_to(facts.serial)
    link.rename(home / "current")
    for other in home.iterdir():  # the one before is kept for a process that has just opened it
        if other.is_dir() and not other.is_symlink() and other.name not in (facts.serial, old):
            shutil.rmtree(other, ignore_errors=True)


def write_trust(settings: Settings, reply: dict[str, Any]) -> bool:
    """Whether anything has changed. Raises OSError, NotRenewed."""
    home = Path(settings.tls_path)
    try:
        x509.fingerprints(reply["authorities"])
    except WrongPem as wrong:
        raise NotRenewed(f"what the API says is to be trusted is not usable: {wrong}") from None
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    changed = [_write(home / "ca.pem", reply["authorities"]), _write(home / "revoked.pem", reply["revoked"])]
    return any(changed)


def lay_out(settings: Settings) -> bool:
    """For libvirtd. Whether anything has changed. What a host that joined before has of its own for its streams stays,
    and the rest is renewed all the same. Raises OSError, NotRenewed."""
    if not settings.libvirt_pki:
        return False
    pki, home = Path(settings.libvirt_pki), Path(settings.tls_path)
    foreign = foreign_pki(pki, OF_LIBVIRT)
    if foreign is not None:
        raise NotRenewed(
            f"{foreign} is not of this program and is left as it is: move it away, or name another libvirt_pki"
        )
    certificate = MARK + (home / "current" / "cert.pem").read_text()
    key = (home / "current" / "key.pem").read_text()
    (pki / "libvirt" / "private").mkdir(mode=0o700, parents=True, exist_ok=True)
    (pki / "CA").mkdir(parents=True, exist_ok=True)
    authorities, revoked = MARK + (home / "ca.pem").read_text(), (home / "revoked.pem").read_text()
    changed = [
        _write(pki / "CA" / "cacert.pem", authorities, 0o644),
        _write(pki / "CA" / "cacrl.pem", revoked, 0o644),
        *(_write(pki / "libvirt" / "private" / f"{end}key.pem", key) for end in ("server", "client")),
        *(_write(pki / "libvirt" / f"{end}cert.pem", certificate, 0o644) for end in ("server", "client")),
    ]
    if foreign_pki(pki, OF_STREAMS) is None:
        streams = pki / STREAMS
        streams.mkdir(mode=0o755, parents=True, exist_ok=True)
        changed += [
            _write(streams / "ca-cert.pem", authorities, 0o644),
            _write(streams / "ca-crl.pem", revoked, 0o644),
            *(_write(streams / f"{end}-key.pem", key) for end in ("server", "client")),
            *(_write(streams / f"{end}-cert.pem", certificate, 0o644) for end in ("server", "client")),
        ]
    return any(changed)


def write_files(directory: Path, texts: Mapping[str, str], mode: int = 0o600) -> None:
    """Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in texts.items():
        _write(directory / name, text, mode)


def _write(path: Path, text: str, mode: int = 0o600) -> bool:
    """Whole or not at all, and only when it differs."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text() == text:
            return False
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        unfinished.unlink()
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.chmod(mode)  # whatever the umask takes away
    unfinished.rename(path)
    return True


def _current(home: Path) -> str:
    try:
        return os.readlink(home / "current")
    except OSError:
        return ""


# -- renewing ---------------------------------------------------------------------------------------------------------
def wall_us() -> int:
    """This process is an edge of the program, as the supervisor is; a certificate counts by wall time."""
    return time.time_ns() // 1000


def look(settings: Settings, clock_us: Callable[[], int] = wall_us, *, renews_now: bool = False) -> RenewalCheck:
    """Ask what is trusted now, and renew the certificate when it is time to. Never raises but for a bug."""
    home = Path(settings.tls_path)
    try:
        facts = x509.facts((home / "current" / "cert.pem").read_text())
    except (OSError, UnicodeDecodeError, WrongPem) as error:
        return RenewalCheck(
            "", f"the certificate of host {settings.host} in {home} cannot be read ({error}): {JOIN_ANEW}"
        )
    try:
        return _look(settings, clock_us, facts, renews_now)
    except (NotRenewed, OSError, WrongPem) as error:
        ends = f"the certificate of host {settings.host} ends at {life.day(facts.not_after_us)} UTC"
        return RenewalCheck(ends, f"{ends} and was not renewed: {error}")


def _look(
    settings: Settings, clock_us: Callable[[], int], facts: x509.CertificateFacts, renews_now: bool
) -> RenewalCheck:
    now_us = clock_us()
    stage = life.stage(facts.not_before_us, facts.not_after_us, now_us)
    if stage is Stage.EXPIRED:
        raise NotRenewed(
            f"it has expired, so it is not accepted any more: {JOIN_ANEW}; if this machine's clock is wrong, set it"
        )
    if now_us < facts.not_before_us:
        raise NotRenewed("it is not valid yet by this machine's clock: set the clock (NTP)")
    trusts = x509.fingerprints((Path(settings.tls_path) / "ca.pem").read_text())
    reply = _ask(settings, {"trusts": trusts})
    changed = write_trust(settings, reply)
    if changed:  # and that it is trusted here is known at once
        reply = _ask(settings, {"trusts": x509.fingerprints(reply["authorities"])})
    renews = renews_now or stage is not Stage.VALID or bool(reply.get("due"))
    if renews:
        key = x509.make_key()
        reply = _ask(settings, {"csr": x509.request(key, settings.host)})
        install(settings, key, reply)
        facts = x509.facts(str(reply["certificate"]))
    changed = lay_out(settings) or changed or renews
    trouble = [life.clock_offset_reason(clock_us(), int(reply["now_us"]))]
    if changed and settings.renewed_command:
        trouble.append(_run(settings.renewed_command))
    word = "renewed" if renews else "looked at"
    return RenewalCheck(
        f"{word}: the certificate of host {settings.host} ends at {life.day(facts.not_after_us)} UTC",
        "; ".join(filter(None, trouble)),
        renews,
    )


def _ask(settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """By the certificate that it has. Raises NotRenewed, OSError."""
    home, url = Path(settings.tls_path), settings.renew_url.rstrip("/")
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    context.load_cert_chain(home / "current" / "cert.pem", home / "current" / "key.pem")
    request = urllib.request.Request(
        f"{url}/droveway/v1/hosts/{settings.host}/certificate",
        data=json.dumps({"certificate": body}).encode(),
        method="POST",
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as response:
            reply = json.loads(response.read(ANSWER_MAX_BYTES))["certificate"]
            if not all(isinstance(reply[key], str) for key in ("authorities", "revoked")):
                raise ValueError("its answer says nothing of authorities")
            int(reply["now_us"])
            return dict(reply)
    except urllib.error.HTTPError as error:
        with error:
            raise NotRenewed(f"{url} refuses: {_reason(error)}") from None
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        raise NotRenewed(_why(url, getattr(error, "reason", error))) from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(next(iter(json.loads(error.read(ANSWER_MAX_BYTES)).values()))["message"])
    except (ValueError, LookupError, TypeError, AttributeError, OSError, StopIteration, HTTPException):
        return f"it answered {error.code} {error.reason}"


def _why(url: str, reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        reply = reason.verify_message
        clock = "; this machine's clock may be wrong" if "yet valid" in reply or "expired" in reply else ""
        return f"{url} is not accepted: {reply}{clock}; see that renew_url names the agents' listener of an API"
    if isinstance(reason, ssl.SSLError) and "ALERT" in (reason.reason or ""):
        word = str(reason.reason).rpartition("ALERT_")[2].replace("_", " ").lower()
        return f"{url} does not take this host's certificate ({word}): {JOIN_ANEW}"
    if isinstance(reason, ssl.SSLEOFError | ConnectionResetError):
        return (
            f"{url} ended the connection when it saw this host's certificate: it is of a CA that is not trusted there, "
            f"or by its clock not valid; the log of the API says which; {JOIN_ANEW}"
        )
    return f"{url} does not answer as an agents' listener does ({reason}); see that it runs and that renew_url is right"


def _run(command: tuple[str, ...]) -> str:
    """Why it failed; empty when it did not."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"renewed_command failed: {error}"
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return f"renewed_command {command[0]} ended with {done.returncode}: {last[:200]}" if done.returncode else ""


def main() -> None:
    settings = json.loads(sys.stdin.read())
    os.umask(0o077)
    found = look(Settings(**{**settings, "renewed_command": tuple(settings["renewed_command"])}))
    sys.stdout.write(json.dumps(found._asdict()) + "\n")


if __name__ == "__main__":
    main()
