"""Keys, requests, certificates and revocation lists as bytes: the only file that knows how X.509 is written.

A host makes its key itself and sends a request, of which the public key alone is taken. Keys are of the curve P-256,
which libvirt, NATS, RabbitMQ and Python all take. Raises WrongPem where what is read is not what it should be.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from droveway.domain.certificates import is_ip

REQUEST_MAX_BYTES = 16 * 1024
COMMON_NAME_MAX = 64
_EPOCH = datetime.fromtimestamp(0, UTC)
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class WrongPem(ValueError):
    """What was read is no key, request or certificate as it is needed; the message is a sentence."""


class Authority(NamedTuple):
    """One that signs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(_PEM).decode()

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


class CertificateFacts(NamedTuple):
    """What stands in a certificate. `serial` in hexadecimal; `names`: DNS names and IP addresses of its SAN."""

    serial: str
    fingerprint: str
    uri: str
    names: tuple[str, ...]
    not_before_us: int
    not_after_us: int
    is_authority: bool


class Revoked(NamedTuple):
    serial: str
    at_us: int
    because: str


# -- on the host that needs a certificate ------------------------------------------------------------------------------
def make_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def request(key_pem: str, name: str) -> str:
    """What is sent to the CA. `name` is for people who look at it: control's own names count."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_common_name(name))
    return builder.sign(_key(key_pem), hashes.SHA256()).public_bytes(_PEM).decode()


def facts(pem: str) -> CertificateFacts:
    """Of the first certificate in that text."""
    try:
        found = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise WrongPem("it is no certificate in PEM") from None
    uri, names = "", []
    for one in _alternatives(found):
        if isinstance(one, x509.UniformResourceIdentifier):
            uri = one.value
        elif isinstance(one, x509.DNSName | x509.IPAddress):
            names.append(str(one.value))
    return CertificateFacts(
        f"{found.serial_number:x}",
        found.fingerprint(hashes.SHA256()).hex(),
        uri,
        tuple(names),
        _us(found.not_valid_before_utc),
        _us(found.not_valid_after_utc),
        _may_sign(found),
    )


def fits(key_pem: str, certificate_pem: str) -> bool:
    """Whether that certificate is of that key."""
    try:
        found = x509.load_pem_x509_certificate(certificate_pem.encode())
    except ValueError:
        raise WrongPem("it is no certificate in PEM") from None
    return found.public_key() == _key(key_pem).public_key()


def fingerprints(bundle: str) -> list[str]:
    """Of every certificate in that text."""
    try:
        return [one.fingerprint(hashes.SHA256()).hex() for one in x509.load_pem_x509_certificates(bundle.encode())]
    except ValueError:
        raise WrongPem("there is no certificate in PEM") from None


# -- at the CA --------------------------------------------------------------------------------------------------------
def make_authority(name: str, now_us: int, not_after_us: int, backdated_us: int) -> tuple[str, str]:
    """Its key and its certificate."""
    key_pem = make_key()
    key = _key(key_pem)
    builder = _builder(
        _common_name(name),
        _common_name(name),
        key.public_key(),
        x509.random_serial_number(),
        now_us - backdated_us,
        not_after_us,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_authority_usage(), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return key_pem, builder.sign(key, hashes.SHA256()).public_bytes(_PEM).decode()


def authority(key_pem: str, certificate_pem: str) -> Authority:
    key = _key(key_pem)
    if not fits(key_pem, certificate_pem):
        raise WrongPem("the certificate is not of that key")
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    if not _may_sign(certificate):
        raise WrongPem("it is the certificate of no CA")
    return Authority(key, certificate)


def public_key(request_pem: str) -> bytes:
    """The one thing that is taken from a request, which its key must have signed."""
    if len(request_pem) > REQUEST_MAX_BYTES:
        raise WrongPem(f"it is longer than {REQUEST_MAX_BYTES} bytes")
    try:
        found = x509.load_pem_x509_csr(request_pem.encode())
        key = found.public_key()
        is_signed = found.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise WrongPem("it is no certificate request in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise WrongPem("its key must be of the curve P-256")
    if not is_signed:
        raise WrongPem("its own key has not signed it")
    return key.public_bytes(_DER, _SPKI)


def sign(
    by: Authority,
    public: bytes,
    serial: str,
    name: str,
    uri: str,
    names: Sequence[str],
    not_before_us: int,
    not_after_us: int,
) -> str:
    """A certificate for both ends of a connection."""
    key = serialization.load_der_public_key(public)
    assert isinstance(key, ec.EllipticCurvePublicKey), "made by public_key"
    builder = _builder(_common_name(name), by.certificate.subject, key, int(serial, 16), not_before_us, not_after_us)
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    alternatives += [x509.IPAddress(ipaddress.ip_address(one)) if is_ip(one) else x509.DNSName(one) for one in names]
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer_key = by.key.public_key()
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    # No key usage: libvirt 9 wants one that permits key encipherment, which a key of this kind cannot do.
    builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    return builder.sign(by.key, hashes.SHA256()).public_bytes(_PEM).decode()


def revocation_list(by: Authority, revoked: Iterable[Revoked], number: int, now_us: int, next_us: int) -> str:
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject)
    builder = builder.last_update(_at(now_us)).next_update(_at(next_us))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    issuer_key = by.key.public_key()
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    for one in revoked:
        reason = x509.CRLReason(x509.ReasonFlags[one.because])
        entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16)).revocation_date(_at(one.at_us))
        builder = builder.add_revoked_certificate(entry.add_extension(reason, critical=False).build())
    return builder.sign(by.key, hashes.SHA256()).public_bytes(_PEM).decode()


# -- small parts ------------------------------------------------------------------------------------------------------
def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise WrongPem("it is no private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise WrongPem("it is a key of another kind than P-256")
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    not_before_us: int,
    not_after_us: int,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(serial).not_valid_before(_at(not_before_us)).not_valid_after(_at(not_after_us))


def _authority_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:COMMON_NAME_MAX])])


def _alternatives(certificate: x509.Certificate) -> Iterable[x509.GeneralName]:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _at(us: int) -> datetime:
    return _EPOCH + timedelta(seconds=us // 1_000_000)


def _us(at: datetime) -> int:
    return int((at - _EPOCH).total_seconds()) * 1_000_000
