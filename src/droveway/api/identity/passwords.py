"""Password hashes: argon2id at about 20 MiB and 25 ms. Blocking: call these in the hashing pool."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER = PasswordHasher(time_cost=2, memory_cost=20 * 1024, parallelism=1, hash_len=32, salt_len=16)

# Checked in place of the hash of a user that does not exist, so that the answer takes as long. No one has its
# password: the digest is not one of anything.
HASH_OF_NO_USER = "$argon2id$v=19$m=20480,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def hash_password(password: str) -> str:
    return _HASHER.hash(password)


def verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
