"""A real slapd on a loopback port, with people in it: for the contract of `credentials` and for a cloud that is tried.

with directory.slapd(home, {"alice": "secret"}) as ldap:
    ... ldap.url, ldap.people_dn, ldap.bind_dn, ldap.bind_password ...; ldap.freeze()
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.nodes import Node, free_ports
from lab.servers import Server, listens, must_be_installed, running

SUFFIX = "dc=lab"
SCHEMAS = ("core", "cosine", "inetorgperson")
PASSWORD = "of-the-directory"
_CONFIGURATION = """{schemas}
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {home}/pid
argsfile {home}/arguments
idletimeout 30
database mdb
maxsize 16777216
suffix "{suffix}"
rootdn "cn=admin,{suffix}"
rootpw {password}
directory {home}/data
index uid eq
index objectClass eq
"""


class Slapd(Server):
    """`entry` writes people as `ldapmodify` would."""

    people_dn, bind_dn, bind_password = f"ou=people,{SUFFIX}", f"cn=admin,{SUFFIX}", PASSWORD

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    def modify(self, ldif: str) -> None:
        command = ["ldapmodify", "-x", "-H", self.url, "-D", self.bind_dn, "-w", PASSWORD]
        subprocess.run(command, input=ldif, text=True, check=True, capture_output=True, timeout=30)

    def rename(self, old: str, new: str) -> None:
        self.modify(f"dn: uid={old},{self.people_dn}\nchangetype: modrdn\nnewrdn: uid={new}\ndeleteoldrdn: 1\n")

    def set_password(self, name: str, password: str) -> None:
        change = "changetype: modify\nreplace: userPassword\nuserPassword: "
        self.modify(f"dn: uid={name},{self.people_dn}\n{change}{password}\n")


@contextlib.contextmanager
def slapd(directory: Path, people: Mapping[str, str], disabled: tuple[str, ...] = ()) -> Iterator[Slapd]:
    """`people`: name -> password. Those who are disabled have the employeeType `gone`."""
    must_be_installed("slapd")
    (port,) = free_ports(1)
    home = directory / "slapd"
    shutil.rmtree(home, ignore_errors=True)
    (home / "data").mkdir(parents=True)
    schemas = "\n".join(f"include /etc/ldap/schema/{name}.schema" for name in SCHEMAS)
    text = _CONFIGURATION.format(schemas=schemas, home=home, suffix=SUFFIX, password=PASSWORD)
    (home / "slapd.conf").write_text(text)
    (home / "people.ldif").write_text(_ldif(people, disabled))
    command = ["/usr/sbin/slapadd", "-f", f"{home}/slapd.conf", "-l", f"{home}/people.ldif"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    serve = ["/usr/sbin/slapd", "-d", "0", "-f", f"{home}/slapd.conf", "-h", f"ldap://127.0.0.1:{port}"]
    with running([Node(home, port, serve, listens)], Slapd) as server:
        yield server


def _ldif(people: Mapping[str, str], disabled: tuple[str, ...]) -> str:
    entries = [
        f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: lab\ndc: lab\n",
        f"dn: ou=people,{SUFFIX}\nobjectClass: organizationalUnit\nou: people\n",
    ]
    for name, password in people.items():
        kind = "employeeType: gone\n" if name in disabled else ""
        entries.append(
            f"dn: uid={name},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n"
            f"mail: {name}@lab\n{kind}userPassword: {password}\n"
        )
    return "\n".join(entries)
