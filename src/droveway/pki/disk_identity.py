"""As whom a host opens disks that other hosts serve to it.

What serves a disk must let one host in and no other, although one CA signs for all of them; and the servers of disks
know no names, only authorities. So each host has a small CA of its own, made here, that signs its one certificate for
opening disks; a server of a disk trusts the CAs of those hosts that were admitted to it. Such a CA's certificate is
public; its key is used once and kept nowhere.

    ca-cert.pem                     whom the host trusts: the CA of the cloud, which signs for servers of disks; and
                                    its own
    client-cert.pem, client-key.pem
    own-ca.pem                      what servers of disks are to trust

These are the names by which QEMU, libvirt and NBD clients look for them.

`python -m droveway.pki.disk_identity` reads its settings from its standard input and makes them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from droveway.pki import host_files, x509

YEAR_US = 365 * 24 * 3600 * 1_000_000
BACKDATED_US = 24 * 3600 * 1_000_000  # clocks of hosts differ
VALIDITY_US = 20 * YEAR_US  # it ends with the host: whom it lets in is told to each server of a disk


def ensure(directory: Path, host: str, cloud_ca: str, now_us: int) -> str:
    """Blocks. The certificate of that host's own CA; made with the rest when it is not there. `cloud_ca`: in PEM."""
    own = directory / "own-ca.pem"
    if not own.exists():
        files, own_pem = _make(host, now_us)
        host_files.write_files(directory, files)
        host_files.write_files(directory, {"own-ca.pem": own_pem})  # last: then all of it is there
    identity = own.read_text()
    # QEMU does not show a certificate that it would not trust itself.
    host_files.write_files(directory, {"ca-cert.pem": f"{cloud_ca.rstrip()}\n{identity}"})
    return identity


def _make(host: str, now_us: int) -> tuple[dict[str, str], str]:
    authority_key, authority_pem = x509.make_authority(f"disks of {host}", now_us, now_us + VALIDITY_US, BACKDATED_US)
    key = x509.make_key()
    certificate = x509.sign(
        x509.authority(authority_key, authority_pem),
        x509.public_key(x509.request(key, host)),
        "1",
        host,
        f"droveway://disks/{host}",
        (),
        now_us - BACKDATED_US,
        now_us + VALIDITY_US,
    )
    return {"client-cert.pem": certificate, "client-key.pem": key}, authority_pem


def main() -> None:
    settings = json.loads(sys.stdin.read())
    os.umask(0o077)
    cloud_ca = Path(settings["cloud_ca"]).read_text()
    ensure(Path(settings["directory"]), settings["host"], cloud_ca, time.time_ns() // 1000)


if __name__ == "__main__":
    main()
