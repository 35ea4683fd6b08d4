"""Keys of users, as guests take them: a line of OpenSSH, or an X.509 certificate. What is no such key is refused.

Fingerprints are what OpenStack shows: MD5 of an SSH key, SHA-1 of a certificate, as pairs of hexadecimal digits with
colons. They name a key, nothing is protected by them. Raises BadRequest with what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from droveway.domain.faults import BadRequest

KEY_MAX = 16 * 1024  # characters: an RSA key of 16,384 bits is a fifth of it
RSA_BITS = 2048  # as Nova's
CERTIFICATE_DAYS = 3650
_PRINCIPAL_NAME = ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")  # Microsoft's: by it Windows knows whose a certificate is
_PEM = serialization.Encoding.PEM


class KeyType(StrEnum):
    SSH = "ssh"
    X509 = "x509"


class NewKey(NamedTuple):
    """One that was made here; nobody else ever has the private half."""

    public: str
    private: str


def fingerprint(kind: KeyType, public: str) -> str:
    return _of_line(public) if kind is KeyType.SSH else _of_certificate(public)


def _of_line(text: str) -> str:
    line = text.strip()
    if "\n" in line or "\r" in line:
        raise BadRequest("Keypair data is invalid: an SSH public key is one line; this one has several.")
    if "PRIVATE KEY-----" in line:
        raise BadRequest("Keypair data is invalid: that is a private key; give the public one.")
    words = line.split()
    try:
        serialization.load_ssh_public_key(" ".join(words[:2]).encode())
        blob = base64.b64decode(words[1], validate=True)
    except (ValueError, IndexError, UnsupportedAlgorithm, binascii.Error):
        raise BadRequest(
            "Keypair data is invalid: failed to generate fingerprint: that is no SSH public key "
            "(TYPE BASE64 [COMMENT], as in ~/.ssh/id_ed25519.pub)."
        ) from None
    return _colons(hashlib.md5(blob, usedforsecurity=False).hexdigest())


def _of_certificate(text: str) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadRequest(
            "Keypair data is invalid: failed to generate X.509 fingerprint: that is no certificate in PEM."
        ) from None
    return _colons(certificate.fingerprint(hashes.SHA1()).hex())


def _colons(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def generated(kind: KeyType, user_id: str, now: datetime) -> NewKey:
    """A new pair: takes a tenth of a second, so it is made off the loop."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    encoding = (
        serialization.PrivateFormat.TraditionalOpenSSL if kind is KeyType.SSH else serialization.PrivateFormat.PKCS8
    )
    private = key.private_bytes(_PEM, encoding, serialization.NoEncryption()).decode()
    if kind is KeyType.X509:
        return NewKey(_certificate(key, user_id, now), private)
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return NewKey(f"{line.decode()} Generated-by-Droveway", private)


def _certificate(key: rsa.RSAPrivateKey, user_id: str, now: datetime) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64])])
    principal = user_id.encode()[:120]
    of_user = x509.OtherName(_PRINCIPAL_NAME, bytes((0x0C, len(principal))) + principal)  # DER: a UTF8String
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([of_user]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(_PEM).decode()
