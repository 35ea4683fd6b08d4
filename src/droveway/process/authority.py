"""The private CA at an API: its keys in a directory, and what is true of them in the store.

    ca.directory/ABCD….key  0600  a key; copied by hand to every API that hosts join at and renew at
    ca.directory/ABCD….crt        its certificate; the name is how its fingerprint begins
    ca.directory/authorities.pem  what hosts trust now     } written anew when it changes, for programs that read files
    ca.directory/revoked.pem      what was revoked         } (a broker on this machine)

The store says which of them signs, so that an API with an old directory signs nothing. The first API to start makes the
first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from droveway.config.file import Config
from droveway.domain import certificates as life
from droveway.domain.certificates import DAY_US, SERVICE, Holder
from droveway.domain.faults import BadRequest, Busy, Conflict, WrongConfiguration
from droveway.pki import x509
from droveway.pki.authority_files import make_files, read_files, write_file
from droveway.pki.x509 import WrongPem
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import certificates
from droveway.store.fleet.certificates import Grant
from droveway.store.rows import CertificateRow

log = structlog.get_logger("droveway.ca")
OWN_LIVES_US = 2 * DAY_US  # what the agents' listener shows; renewed by the day, and never written to a disk
LOOK_S = 30.0
OWN = Holder(SERVICE, "api")


async def opened(config: Config, store: Store, clock: Clock) -> CertificateAuthority | None:
    """None where no agents' listener is configured. Raises WrongConfiguration, Busy."""
    if not config.api.agents_listen:
        return None
    made = CertificateAuthority(config, store, clock)
    await made.open()
    return made


class CertificateAuthority:
    """What an API signs with, and the TLS of its agents' listener (api/wiring.py: Certifier)."""

    def __init__(self, config: Config, store: Store, clock: Clock) -> None:
        self._directory = Path(config.ca_directory)
        self._store, self._clock = store, clock
        self._keys: dict[str, x509.Authority] = {}
        self._seen: tuple[object, ...] = ()
        self._own_until_us = 0
        self._changed = asyncio.Event()
        self._lists: dict[str, tuple[object, str]] = {}  # of each authority, with what it was made from
        self.agents_url = config.agents_url
        self.validity_us = config.ca.validity_days * DAY_US
        self._names = _names(config)
        self.context: ssl.SSLContext | None = None

    async def open(self) -> None:
        """Raises WrongConfiguration where the key of the authority that signs is not here."""
        self._keys = read_files(self._directory)
        known = await self._store.read(certificates.all_authorities)
        if not any(one.state == life.SIGNING for one in known):
            await self._begin()
        signing = await self._store.read(certificates.signing)
        if signing.fingerprint not in self._keys:
            raise WrongConfiguration(
                f"ca.directory = {self._directory} does not hold the key of the CA {signing.fingerprint[:16]}, which "
                "signs for this cloud: copy that directory from the machine where it was made, or take "
                " api.agents_listen out of this file"
            )
        try:
            await self._store.run(certificates.claim, OWN, [n for n in self._names if not life.is_local(n)])
        except Conflict as fault:
            raise WrongConfiguration(f"api.agents_url = {self.agents_url}: {fault.reason}") from None
        self._store.on_commit(lambda topic: self._changed.set() if topic == certificates.CHANGED else None)
        await self._look()

    async def _begin(self) -> None:
        """The first authority of a cloud: the one whose key lies here, or a new one."""
        if len(self._keys) > 1:
            raise WrongConfiguration(
                f"ca.directory = {self._directory} holds the keys of {len(self._keys)} CAs, and this "
                "cloud has none yet: leave the one there that is to sign"
            )
        is_new = not self._keys
        own = make_files(self._directory, self._clock.now_us()) if is_new else next(iter(self._keys.values()))
        ends_us = x509.facts(own.pem).not_after_us
        signing = await self._store.run(certificates.begin, own.fingerprint, own.pem, ends_us)
        if signing.fingerprint == own.fingerprint:
            self._keys[own.fingerprint] = own
            if is_new:
                log.info("private CA made", fingerprint=own.fingerprint[:16], directory=str(self._directory))
        elif is_new:  # another API was quicker
            for ending in (".key", ".crt"):
                (self._directory / f"{own.fingerprint[:16]}{ending}").unlink(missing_ok=True)

    # -- Certifier ----------------------------------------------------------------------------------------------------
    def holds(self, fingerprint: str) -> bool:
        if fingerprint not in self._keys:
            with contextlib.suppress(WrongConfiguration):  # it may have been copied here meanwhile
                self._keys = read_files(self._directory)
        return fingerprint in self._keys

    def public_key(self, request: str) -> bytes:
        try:
            return x509.public_key(request)
        except WrongPem as wrong:
            raise BadRequest(f"Invalid input for csr: {wrong}.") from None

    def read_authority(self, certificate: str) -> tuple[str, int]:
        try:
            found = x509.facts(certificate)
        except WrongPem as wrong:
            raise BadRequest(f"Invalid input for certificate: {wrong}.") from None
        if not found.is_authority or found.not_after_us <= self._clock.now_us():
            raise BadRequest("Invalid input for certificate: it is that of no CA, or has expired.")
        return found.fingerprint, found.not_after_us

    def sign(self, grant: Grant, public_key: bytes) -> str:
        by = self._keys[grant.authority]
        return x509.sign(
            by,
            public_key,
            grant.serial,
            grant.subject.name,
            grant.subject.uri,
            grant.names,
            grant.not_before_us,
            grant.not_after_us,
        )

    def revocation_lists(self, fingerprints: Sequence[str], revoked: Sequence[CertificateRow]) -> str:
        """Made anew when something was revoked, and each day; good for as long as a certificate, so that a host that
        hears nothing meanwhile is not cut off by its age."""
        now_us, texts = self._clock.now_us(), []
        for fingerprint in filter(self.holds, fingerprints):
            of_it = tuple(
                x509.Revoked(row["serial"], row["revoked_at_us"] or 0, row["revoked_because"] or "unspecified")
                for row in revoked
                if row["authority"] == fingerprint
            )
            made_of = (now_us // DAY_US, of_it)
            if self._lists.get(fingerprint, (None, ""))[0] != made_of:
                text = x509.revocation_list(
                    self._keys[fingerprint],
                    of_it,
                    now_us // 1_000_000,
                    now_us - life.BACKDATED_US,
                    now_us + self.validity_us,
                )
                self._lists[fingerprint] = made_of, text
            texts.append(self._lists[fingerprint][1])
        return "".join(texts)

    # -- what goes on -------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled: the listener trusts what is trusted now, and the files say so."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._look()
            except Busy as fault:
                log.warning("the private CA is not looked at now", because=fault.reason)
            except OSError as error:
                log.warning("the files of the private CA cannot be written", because=str(error))

    async def _look(self) -> None:
        known, revoked, signing = await self._store.read(_state)
        if not self.holds(signing):
            log.error(
                "this API signs nothing: the key of the CA is not here",
                fingerprint=signing[:16],
                directory=str(self._directory),
            )
            return
        now_us = self._clock.now_us()
        bundle = "".join(one.certificate for one in known)
        if self._seen[:2] != (bundle, signing) or now_us > self._own_until_us - OWN_LIVES_US // 2:
            self.context = self._own_context(bundle, signing, now_us)
        lists = self.revocation_lists([one.fingerprint for one in known], revoked)
        if self._seen != (bundle, signing, lists):
            write_file(self._directory / "authorities.pem", bundle)
            write_file(self._directory / "revoked.pem", lists)
        self._seen = (bundle, signing, lists)

    def _own_context(self, bundle: str, signing: str, now_us: int) -> ssl.SSLContext:
        key = x509.make_key()
        serial = f"{now_us:x}{os.getpid():x}"
        ends_us = now_us + OWN_LIVES_US
        certificate = x509.sign(
            self._keys[signing],
            x509.public_key(x509.request(key, OWN.name)),
            serial,
            OWN.name,
            OWN.uri,
            self._names,
            now_us - life.BACKDATED_US,
            ends_us,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=bundle)
        context.options |= ssl.OP_NO_TICKET  # a session that goes on would not be verified again
        context.num_tickets = 0
        held = os.memfd_create("agents-listener")  # ssl reads files only
        try:
            os.write(held, (key + certificate).encode())
            context.load_cert_chain(f"/proc/self/fd/{held}")
        finally:
            os.close(held)
        self._own_until_us = ends_us
        return context


def _state(tx: Tx) -> tuple[list[certificates.Authority], list[CertificateRow], str]:
    return certificates.trusted(tx), certificates.revoked(tx), certificates.signing(tx).fingerprint


def _names(config: Config) -> tuple[str, ...]:
    """Under which agents find this listener."""
    listened = config.api.agents_listen.rpartition(":")[0].strip("[]")
    named = urlsplit(config.agents_url).hostname or ""
    names = [named] if listened in ("0.0.0.0", "::", "0") else [named, listened]
    return tuple(dict.fromkeys(life.checked_address(name, OWN) for name in names))
