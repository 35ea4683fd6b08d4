"""The table [identity] of the configuration file: how long passwords are good, how often one may be wrong, and the
directory in which the people of a domain stand."""

from __future__ import annotations

import msgspec


class LdapConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory that is asked about the people of one domain, and never written."""

    domain: str = ""  # of the people who stand there, by its name; it is made when it is missing
    url: str = ""  # ldap://HOST:PORT or ldaps://HOST:PORT
    start_tls: bool = False  # with ldap://: the connection is encrypted before anything is said
    tls_ca: str = ""  # a file: who may sign the certificate of the directory; empty: whom the machine trusts
    bind_dn: str = ""  # as which people are searched for; empty: anonymously
    bind_password: str = ""  # of that entry
    people_dn: str = ""  # under which they stand: ou=people,dc=example,dc=org
    user_filter: str = "(objectClass=inetOrgPerson)"  # what is a person
    disabled_filter: str = ""  # who of them may not log in; empty: all may
    name_attribute: str = "uid"  # the name with which one logs in
    id_attribute: str = "entryUUID"  # what stays when the name changes
    email_attribute: str = "mail"  # shown with the user
    description_attribute: str = "description"  # likewise
    timeout_s: float = 5.0  # how long an answer may take in all
    connections_max: int = 4  # at once, of each API


class IdentityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of users and their logins."""

    password_expiry_days: int = 0  # after which a password must be changed; 0: never
    wrong_logins_per_user: int = 10  # within `wrong_logins_window_s`; then the user waits for its end
    wrong_logins_per_address: int = 100  # likewise; of all users behind one address
    wrong_logins_window_s: float = 60.0  # from the first of them on
    ldap: LdapConfig | None = None


def numbers(identity: IdentityConfig) -> list[tuple[str, float, float, float, str]]:
    found: list[tuple[str, float, float, float, str]] = [
        ("identity.password_expiry_days", identity.password_expiry_days, 0, 36_500, "days, such as 90"),
        ("identity.wrong_logins_per_user", identity.wrong_logins_per_user, 1, 1_000_000, "logins, such as 10"),
        ("identity.wrong_logins_per_address", identity.wrong_logins_per_address, 1, 1_000_000, "logins, such as 100"),
        ("identity.wrong_logins_window_s", identity.wrong_logins_window_s, 1, 86_400, "seconds, such as 60.0"),
    ]
    ldap = identity.ldap
    if ldap is not None:
        found.append(("identity.ldap.timeout_s", ldap.timeout_s, 0.1, 60, "seconds, such as 5.0"))
        found.append(("identity.ldap.connections_max", ldap.connections_max, 1, 64, "connections, such as 4"))
    return found


def problems(identity: IdentityConfig) -> list[str]:
    """Every sentence that is wrong with it beyond its numbers."""
    ldap = identity.ldap
    if ldap is None:
        return []
    found = [
        f"identity.ldap.{key} is missing: {what}"
        for key, what in (
            ("domain", "the name of the domain whose people stand there"),
            ("people_dn", "under which they stand, such as ou=people,dc=example,dc=org"),
        )
        if not getattr(ldap, key)
    ]
    if not ldap.url.startswith(("ldap://", "ldaps://")):
        found.append(f"identity.ldap.url = {ldap.url!r} must be ldap://HOST:PORT or ldaps://HOST:PORT")
    if ldap.domain.lower() == "default":
        found.append("identity.ldap.domain = 'Default' is the program's own domain; name another one")
    if len(ldap.domain) > 64 or not ldap.domain.isprintable():
        found.append(f"identity.ldap.domain = {ldap.domain[:80]!r} must be 1 to 64 printable characters")
    if ldap.start_tls and ldap.url.startswith("ldaps://"):
        found.append("identity.ldap.start_tls is for ldap://; with ldaps:// everything is encrypted already")
    if ldap.bind_dn and not ldap.bind_password:
        found.append("identity.ldap.bind_password is missing: without it bind_dn is bound anonymously")
    for key in ("user_filter", "disabled_filter"):
        text = getattr(ldap, key)
        if text and not (text.startswith("(") and text.endswith(")")):
            found.append(f"identity.ldap.{key} = {text!r} must be a filter, such as (objectClass=person)")
    return found
