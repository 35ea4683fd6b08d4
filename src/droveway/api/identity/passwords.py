"""Password hashes: argon2id at 20 MiB, two passes, one lane. Blocking: call these in the hashing pool.

The cost is chosen between two harms. A thief of the database tries passwords at the price of a login, and pays
with memory what graphics cards have least of; each login, right or wrong, makes this machine pay the same. 20 MiB with
two passes is what OWASP's list of equals asks for at least (19 MiB, t=2, p=1), and keeps a login below 60 ms of CPU,
also on a busy machine (the benchmark `api`), where Keystone's bcrypt takes 200; argon2-cffi's defaults take 146, and
64 MiB.
Every character of a password counts: argon2 cuts none off, as bcrypt does behind 72 bytes.
"""

from __future__ import annotations

import hashlib
import hmac

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from droveway.api.http.pool import Pool

PASSWORD_MAX = 4096  # characters
_HASHER = PasswordHasher(time_cost=2, memory_cost=20 * 1024, parallelism=1, hash_len=32, salt_len=16)
_OF_MADE_UP = "sha256$"

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


async def matches(hashing: Pool, password_hash: str | None, password: str) -> bool:
    """Whether it is that password's; of None, nobody's. Each no takes as long as a wrong password."""
    if password_hash is not None and password_hash.startswith(_OF_MADE_UP):
        if hmac.compare_digest(password_hash, hash_made_up(password)):
            return True
        password_hash = None
    return await hashing.run(verify, password_hash or HASH_OF_NO_USER, password) and password_hash is not None


def hash_made_up(secret: str) -> str:
    """Of a secret that the program has made up, of 256 bits: to guess it is hopeless at any price, so it costs none."""
    return _OF_MADE_UP + hashlib.sha256(secret.encode()).hexdigest()
