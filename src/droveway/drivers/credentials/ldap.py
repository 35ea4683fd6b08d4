"""The people of a domain in an LDAP directory: found as a service, and proved by binding as they.

Each question is a connection of its own, on one of a few threads, and has so many seconds in all: a directory that
hangs keeps those threads for that long and no request for longer, and what does not fit waits within the same bound.
What a client gives as a name is escaped in filters. An empty password is never sent: a directory takes such a bind for
an anonymous one, and says yes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ldap3 import NONE, SUBTREE, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

from droveway.config.identity import LdapConfig
from droveway.domain.faults import Busy, Unreachable
from droveway.ports.credentials import LoginRefusal, Person

log = logging.getLogger("droveway.ldap")
WAITING_MAX = 128
SIZE_LIMIT, NO_SUCH_OBJECT, INVALID_DN, INVALID_CREDENTIALS = 4, 32, 34, 49
NAME_MAX, KEY_MAX = 255, 255
R = TypeVar("R")
Entry = dict[str, Any]


class Ldap:
    is_writable = False

    def __init__(self, settings: LdapConfig) -> None:
        self._settings = settings
        tls = Tls(ca_certs_file=settings.tls_ca or None, validate=ssl.CERT_REQUIRED)
        secure = settings.url.startswith("ldaps://")
        self._server = Server(
            settings.url,
            tls=tls if secure or settings.start_tls else None,
            get_info=NONE,
            connect_timeout=settings.timeout_s,
        )
        self._threads = ThreadPoolExecutor(settings.connections_max, "ldap")
        self._waiting = 0

    # -- the port -------------------------------------------------------------------------------------------------
    async def verify(self, domain_id: str, name: str, password: str) -> Person | LoginRefusal:
        return await self._ask(self._verify, name, password)

    async def find(self, domain_id: str, name: str) -> Person | None:
        found = await self._ask(self._find, name)
        return None if found is None else found[0]

    async def people(self, domain_id: str, most: int) -> Sequence[Person]:
        return await self._ask(self._people, most)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- within bounds --------------------------------------------------------------------------------------------
    async def _ask(self, question: Callable[..., R], *given: Any) -> R:
        if self._waiting >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} logins wait for the directory {self._settings.url}; try again in a second.")
        self._waiting += 1
        job = asyncio.get_running_loop().run_in_executor(self._threads, question, *given)
        job.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await asyncio.shield(job)
        except TimeoutError:
            job.cancel()  # one that waits for a thread
            raise self._unreachable(f"no answer within {self._settings.timeout_s} s") from None
        except (LDAPException, OSError) as error:
            raise self._unreachable(str(error) or type(error).__name__) from None

    def _done(self, job: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not job.cancelled():
            job.exception()  # read here: the request may have gone

    def _unreachable(self, because: str) -> Unreachable:
        log.warning("the directory does not answer url=%s because=%r", self._settings.url, because)
        return Unreachable("The directory in which the people of that domain stand does not answer; try again later.")

    # -- on a thread ----------------------------------------------------------------------------------------------
    def _bound(self, dn: str, password: str) -> Connection | None:
        """A connection as that entry; None when the directory does not take it for one."""
        connection = Connection(
            self._server,
            user=dn or None,
            password=password or None,
            receive_timeout=math.ceil(self._settings.timeout_s),  # ldap3 takes whole seconds
            read_only=True,
            auto_referrals=False,
        )
        is_bound = False
        try:
            connection.open()
            if self._settings.start_tls and not connection.start_tls():
                raise LDAPException("it offers no TLS")
            is_bound = connection.bind()
        finally:
            if not is_bound and connection.socket is not None:
                connection.socket.close()
        if is_bound:
            return connection
        if connection.result["result"] in (NO_SUCH_OBJECT, INVALID_DN, INVALID_CREDENTIALS):
            return None
        raise LDAPException(f"a bind as {dn!r} is refused: {connection.result['description']}")

    def _search(self, condition: str, most: int) -> list[tuple[str, Entry]]:
        """(DN, its attributes) of the people of whom that holds. Raises LDAPException."""
        settings = self._settings
        connection = self._bound(settings.bind_dn, settings.bind_password)
        if connection is None:
            raise LDAPException(f"it does not take the password of bind_dn = {settings.bind_dn}")
        try:
            wanted = (
                settings.name_attribute,
                settings.id_attribute,
                settings.email_attribute,
                settings.description_attribute,
            )
            connection.search(
                settings.people_dn,
                f"(&{settings.user_filter}{condition})",
                SUBTREE,
                attributes=list(wanted),
                size_limit=most,
                time_limit=max(1, int(settings.timeout_s)),
            )
            code = connection.result["result"]
            if code not in (0, SIZE_LIMIT):
                raise LDAPException(f"a search is refused: {connection.result['description']}")
            return [
                (one["dn"], dict(one["attributes"])) for one in connection.response if one["type"] == "searchResEntry"
            ]
        finally:
            connection.strategy.close()

    def _people(self, most: int) -> list[Person]:
        disabled = self._disabled("", most)
        found = [self._person(entry, disabled) for _, entry in self._search("", most)]
        return [one for one in found if one is not None]

    def _disabled(self, condition: str, most: int) -> frozenset[str]:
        """The keys of those who may not log in."""
        if not self._settings.disabled_filter:
            return frozenset()
        found = self._search(f"{condition}{self._settings.disabled_filter}", most)
        return frozenset(_first(entry, self._settings.id_attribute) for _, entry in found)

    def _find(self, name: str) -> tuple[Person, str] | None:
        """The person of that name, and its DN."""
        if not 0 < len(name) <= NAME_MAX:
            return None
        condition = f"({self._settings.name_attribute}={escape_filter_chars(name)})"
        rows = self._search(condition, 2)
        if len(rows) > 1:
            log.warning("the directory has two people of one name url=%s name=%r", self._settings.url, name[:64])
            return None
        for dn, entry in rows:
            person = self._person(entry, self._disabled(condition, 2))
            return None if person is None else (person, dn)
        return None

    def _person(self, entry: Entry, disabled: frozenset[str]) -> Person | None:
        settings = self._settings
        name, key = _first(entry, settings.name_attribute), _first(entry, settings.id_attribute)
        if not 0 < len(key) <= KEY_MAX or not 0 < len(name) <= NAME_MAX or not name.isprintable():
            log.warning("a person of the directory has no usable name or id name=%r id=%r", name[:64], key[:64])
            return None
        email = _first(entry, settings.email_attribute)[:255] or None
        return Person(key, name, key not in disabled, email, _first(entry, settings.description_attribute) or None)

    def _verify(self, name: str, password: str) -> Person | LoginRefusal:
        found = self._find(name)
        if found is None:
            # As many questions as about a person: whether there is one is not told by the time.
            if 0 < len(name) <= NAME_MAX:
                settings = self._settings
                self._is_password(f"{settings.name_attribute}={escape_rdn(name)},{settings.people_dn}", password)
            return LoginRefusal.NO_USER
        person, dn = found
        if not self._is_password(dn, password):
            return LoginRefusal.WRONG_PASSWORD
        return person if person.is_enabled else LoginRefusal.DISABLED

    def _is_password(self, dn: str, password: str) -> bool:
        if not password:
            return False
        connection = self._bound(dn, password)
        if connection is None:
            return False
        connection.unbind()
        return True


def _first(entry: Entry, attribute: str) -> str:
    value = entry.get(attribute)
    if isinstance(value, list):
        value = value[0] if value else ""
    return "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def make(settings: LdapConfig) -> Ldap:
    return Ldap(settings)
