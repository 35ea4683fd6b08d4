"""NATS identities that are signed instead of kept in a list: keys as NATS writes them, and the tokens they sign.

An operator's key signs an account, the account's key signs users, and the server, which knows the operator's public key
and the account, needs no list of users and no reload. A user's token is a bearer token: it is shown, like a password,
and names what its bearer may publish and subscribe to. (A heart, which has nothing but the small parts of the standard
library, could not sign what the server asks it to.)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from droveway.domain.faults import WrongConfiguration

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3  # the first letter of their public keys: O, A, U
_SEED = 18 << 3
_LETTERS = {"O": OPERATOR, "A": ACCOUNT, "U": USER}


class KeyPair:
    """One key pair. `secret`: where it comes from; it is enough to derive the key."""

    def __init__(self, kind: int, seed: bytes) -> None:
        self.kind, self._seed = kind, seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def made_of(cls, kind: int, secret: str) -> KeyPair:
        return cls(kind, hashlib.sha256(secret.encode()).digest())

    @classmethod
    def read(cls, text: str) -> KeyPair:
        """From a seed as NATS writes it. Raises ValueError."""
        text = text.strip()
        try:
            raw = base64.b32decode(text + "=" * (-len(text) % 8))
        except binascii.Error:
            raise ValueError("it is no seed") from None
        kind = _LETTERS.get(text[1:2])
        if len(raw) != 36 or kind is None or _encoded(_seed_head(kind) + raw[2:34]) != text:
            raise ValueError("it is no seed")
        return cls(kind, raw[2:34])

    @property
    def seed(self) -> str:
        return _encoded(_seed_head(self.kind) + self._seed)

    @property
    def public(self) -> str:
        return _encoded(bytes((self.kind,)) + self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def user_of(self, host: str) -> str:
        """The public key of that host's user, always the same: its tokens can be revoked, and no list is kept."""
        return KeyPair(USER, hmac.digest(self._seed, host.encode(), "sha256")).public

    def sign(self, subject: str, name: str, what: dict[str, Any], now_s: int) -> str:
        """A token about the key `subject`."""
        claims: dict[str, Any] = {
            "iat": now_s,
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {**what, "version": 2},
        }
        digest = hashlib.sha256(_json(claims)).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed_part = b".".join((_unpadded(_json({"typ": "JWT", "alg": "ed25519-nkey"})), _unpadded(_json(claims))))
        return b".".join((signed_part, _unpadded(self._private.sign(signed_part)))).decode()


def _seed_head(kind: int) -> bytes:
    return bytes((_SEED | kind >> 5, (kind & 31) << 3))


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def _unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# -- tokens -----------------------------------------------------------------------------------------------------------
def operator_token(operator: KeyPair, now_s: int) -> str:
    return operator.sign(operator.public, "droveway", {"type": "operator"}, now_s)


def account_token(operator: KeyPair, account: str, now_s: int) -> str:
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    return operator.sign(account, "droveway", {"type": "account", "limits": {**limits, "wildcards": True}}, now_s)


def revoked(operator: KeyPair, token: str, users: Sequence[str], now_s: int) -> str:
    """The account's token anew: what was signed until now for these users is good no longer. What was revoked before
    stays so. Raises ValueError."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        account, name, what, issuer = claims["sub"], claims["name"], claims["nats"], claims["iss"]
        what["revocations"] = {**what.get("revocations", {}), **dict.fromkeys(users, now_s)}
    except (LookupError, ValueError, TypeError, AttributeError):
        raise ValueError("the token of the account cannot be read") from None
    if issuer != operator.public:
        raise ValueError("another operator's seed has signed the token of the account")
    return operator.sign(account, name, what, now_s)


def user_token(
    signer: KeyPair,
    user: str,
    name: str,
    publish: Sequence[str],
    subscribe: Sequence[str],
    now_s: int,
    account: str = "",
) -> str:
    """`user`: its public key. `account`: whose signing key `signer` is, where that is not the account's own key."""
    what: dict[str, Any] = {
        "type": "user",
        "bearer_token": True,
        "subs": -1,
        "data": -1,
        "payload": -1,
        "pub": {"allow": list(publish)},
        "sub": {"allow": list(subscribe)},
    }
    if account and account != signer.public:
        what["issuer_account"] = account
    return signer.sign(user, name, what, now_s)


def signing_key(path: str) -> KeyPair:
    """Raises WrongConfiguration."""
    try:
        return seed_in(path, ACCOUNT, "an account begins with SA")
    except OSError as error:
        raise WrongConfiguration(f"agents.nats.signing_key = {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WrongConfiguration(
            f"agents.nats.signing_key = {path}: {error}; `droveway nats-keys DIRECTORY` makes one"
        ) from None


def seed_in(path: str, kind: int, wanted: str) -> KeyPair:
    """Raises OSError; ValueError when it is the seed of another kind of key, or none."""
    with open(path, encoding="ascii", errors="replace") as file:
        key = KeyPair.read(file.read(256))
    if key.kind != kind:
        raise ValueError(f"it is the seed of another kind of key; one of {wanted}")
    return key
