"""What the API needs from the rest of the program, in one place: `Api` is made by main and by tests."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from droveway.api.compute.server_bodies import ServerBodies
from droveway.api.consoles.sessions import ConsoleSessions
from droveway.api.http.answers import Answers
from droveway.api.http.latency import Latency
from droveway.api.http.pool import Pool
from droveway.api.http.streams import Streams
from droveway.api.identity.attempts import AttemptBounds, Attempts
from droveway.config.consoles import ConsoleConfig
from droveway.domain.faults import Forbidden, Unauthorized, Unreachable
from droveway.domain.network.quota import NO_NETWORK_LIMITS, NetworkQuotas
from droveway.domain.placement import PlacementSettings
from droveway.domain.quota import NO_LIMITS, Quotas
from droveway.domain.resources import LastReport
from droveway.domain.volume.quota import NO_VOLUME_LIMITS, VolumeQuotas
from droveway.ports.clock import Clock, Names
from droveway.ports.control import ControlQueries
from droveway.ports.credentials import Credentials, Person
from droveway.store.compute import server_locations
from droveway.store.engine.transaction import Store
from droveway.store.fleet.certificates import Grant
from droveway.store.identity import accounts, catalog, directories, tokens
from droveway.store.identity.rows import CatalogServiceRow, EndpointRow, UserRow
from droveway.store.identity.tokens import Caller
from droveway.store.rows import CertificateRow
from droveway.store.work import events

MIB = 1024 * 1024
TOKEN_CACHE_MAX = 4096
PEOPLE_MAX = 1000  # of a directory, in one list
HEARD_MAX = 500  # hosts in one answer of a control
DEFAULTS = PlacementSettings()
CONSOLES = ConsoleConfig()
ATTEMPTS = AttemptBounds()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a joining host is at the broker: keys of that table of its file. `note`: what an operator must know, or must
    do with `commands` where the broker is."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    commands: tuple[str, ...] = ()


async def _no_identity(host: str) -> Identity:
    return Identity()


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """What a joining agent is told: keys of its configuration file, and the texts of files it names. With a `sentence`
    no host can join, and that is why. `identify` makes what is the host's alone."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    identify: Callable[[str], Awaitable[Identity]] = _no_identity


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Of the Networking API. `is_on`: there is one."""

    is_on: bool = False
    mtu_bytes: int = 1500  # between the hosts
    physical_networks: tuple[str, ...] = ("physnet1",)  # that flat networks may name
    quotas: NetworkQuotas = NO_NETWORK_LIMITS
    page_max: int = 10_000  # rows of a listing


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """Of Block Storage."""

    quotas: VolumeQuotas = NO_VOLUME_LIMITS
    default_type: str = ""  # the first one
    zone: str = "nova"  # of volumes that name none


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """Of people: for how many days a password is good (0: for ever), and how often one may be wrong."""

    password_expiry_days: int = 0
    attempts: AttemptBounds = ATTEMPTS


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Bounds and names of the API; every size carries its unit."""

    base_url: str  # as clients reach it, without a slash at the end
    images_directory: Path
    region: str = "RegionOne"
    token_expiry_s: int = 24 * 3600
    max_body_bytes: int = MIB  # of JSON; more is 413
    max_image_bytes: int = 64 * 1024 * MIB
    max_virtual_bytes: int = 1024 * 1024 * MIB
    images_reserved_bytes: int = 1024 * MIB  # of free disk under the images, which no upload may take
    piece_bytes: int = MIB  # of image data, at once in memory
    image_streams_max: int = 16  # images that hosts fetch at once; each holds about 2 MiB
    metrics_by_project: bool = False  # otherwise /metrics tells what all projects hold together
    page_max: int = 1000  # rows of a listing that pages
    servers_per_request_max: int = 100
    reclaim_s: float = 0.0  # how long what was deleted can be restored; 0: not at all
    precheck_timeout_s: float = 30.0  # how long a request may wait for a saga's checks
    placement: PlacementSettings = DEFAULTS  # control's: ratios and reserves, for what Placement shows
    quotas: Quotas = NO_LIMITS  # of a project for which nothing was set; the program takes its configuration's
    network: NetworkSettings = NetworkSettings()
    volumes: VolumeSettings = VolumeSettings()
    identity: IdentitySettings = IdentitySettings()
    # One API process may remember tokens, because every write that ends one passes through it. With several, don't.
    caches_tokens: bool = True
    consoles: ConsoleConfig = CONSOLES
    max_requests_per_s_per_address: int = 0  # no bound
    max_requests_per_s_per_project: int = 0
    allowed_origins: tuple[str, ...] = ()  # of web pages that may call this API; none but its own otherwise
    joining: JoinSettings = JoinSettings(reason="Agents cannot join through this API.")


class Certifier(Protocol):
    """The private CA as this API holds it. Public keys are the only thing that is taken from a request."""

    agents_url: str  # where hosts renew, each with the certificate that it has
    validity_us: int

    def holds(self, fingerprint: str) -> bool:
        """Whether the key of that authority is here."""
        ...

    def public_key(self, request: str) -> bytes:
        """Raises BadRequest."""
        ...

    def read_authority(self, certificate: str) -> tuple[str, int]:
        """Its fingerprint and when it ends, in us. Raises BadRequest when it is the certificate of no CA."""
        ...

    def sign(self, grant: Grant, public_key: bytes) -> str: ...

    def revocation_lists(self, fingerprints: Sequence[str], revoked: Sequence[CertificateRow]) -> str:
        """Of those authorities of which the key is here, one after the other."""
        ...


Advertised = list[tuple[CatalogServiceRow, list[EndpointRow]]]
SagasSettled = Callable[[str, float], Awaitable[tuple[bool, str]]]


@dataclass(slots=True)
class Api:
    """`sagas_settled(saga_id, timeout_s)` waits until the saga has passed its checks (True, "") or has failed (False,
    why). `control` answers what the store does not say, wherever it runs."""

    store: Store
    clock: Clock
    names: Names
    settings: ApiSettings
    hashing: Pool  # passwords: each job holds about 20 MiB for 25 ms
    files: Pool  # image data
    sagas_settled: SagasSettled
    control: ControlQueries
    credentials: Credentials  # of every domain that has no directory of its own
    directories: Mapping[str, Credentials] = field(default_factory=dict)  # by the id of their domain
    tokens: dict[str, Caller] = field(default_factory=dict)
    unsettled: dict[str, int] = field(default_factory=dict)  # image -> generation of a failed upload not yet recorded
    certifier: Certifier | None = None  # None: this API hands out no certificates
    revocations: int = 0  # a token, or the catalog, read before one must not be remembered after it
    streams: Streams = field(default_factory=Streams)
    image_streams: Counter[str] = field(default_factory=Counter)  # under way, by host
    latency: Latency = field(default_factory=Latency)
    consoles: ConsoleSessions = field(init=False)
    attempts: Attempts = field(init=False)  # of people to log in
    signed_attempts: Attempts = field(init=False)  # by signatures, of which a stranger makes up any number of keys
    answers: Answers = field(init=False)
    server_bodies: ServerBodies = field(default_factory=ServerBodies)
    advertised: Advertised | None = None  # the catalog, where it may be remembered

    def __post_init__(self) -> None:
        self.answers = Answers(self.store)
        self.attempts = Attempts(self.settings.identity.attempts)
        self.signed_attempts = Attempts(self.settings.identity.attempts)
        self.consoles = ConsoleSessions(
            self.store, lambda: self.control, self.clock, self.names, self.settings.consoles
        )
        self.store.on_commit(self._on_commit)

    def _on_commit(self, topic: str) -> None:
        if topic == accounts.CHANGED:
            self.tokens.clear()
            self.revocations += 1
        elif topic == catalog.CHANGED:
            self.advertised = None
            self.revocations += 1
        elif topic == events.SERVICES_CHANGED:
            self.streams.wake()

    async def last_reports(self, names: Sequence[str] = ()) -> dict[str, LastReport]:
        """What these hosts, or all, have last reported that is not in the store. Nothing when no control answers: what
        hosts measure is no reason to refuse a list. Of many hosts in parts that a broker carries."""
        found: dict[str, LastReport] = {}
        asked = names or await self.store.read(server_locations.host_names)
        try:
            for first in range(0, len(asked), HEARD_MAX):
                found |= await self.control.last_reports(*asked[first : first + HEARD_MAX])
        except Unreachable:
            return {}
        return found

    # -- people -----------------------------------------------------------------------------------------------------
    def credentials_of(self, domain_id: str) -> Credentials:
        """Who knows the passwords of that domain."""
        return self.directories.get(domain_id, self.credentials)

    def must_be_writable(self, domain_id: str) -> None:
        """Raises Forbidden where people and passwords are changed elsewhere."""
        if not self.credentials_of(domain_id).is_writable:
            raise Forbidden("The people of that domain stand in a directory: change them, and their passwords, there.")

    async def known(self, domain_id: str, person: Person) -> UserRow:
        """The row of a person whom a directory knows; made now, if it is the first time."""
        return await self.store.run(directories.keep, domain_id, person)

    async def meet(self, domain_id: str, name: str | None) -> None:
        """Before the people of a domain are listed: those of a directory get their rows; of one name, or all."""
        directory = self.directories.get(domain_id)
        if directory is None:
            return
        if name is None:
            people = await directory.people(domain_id, PEOPLE_MAX)
        else:
            person = await directory.find(domain_id, name)
            people = [] if person is None else [person]
        await self.store.run(directories.keep_all, domain_id, people)

    async def catalog(self) -> Advertised:
        """The services that are advertised, each with its endpoints."""
        found = self.advertised
        if found is None:
            before = self.revocations
            found = await self.store.read(catalog.advertised)
            if self.settings.caches_tokens and before == self.revocations:
                self.advertised = found
        return found

    async def caller(self, token: str) -> Caller:
        """The user and the scope of that token. Raises Unauthorized."""
        caller = await self.find_caller(token)
        if caller is None:
            raise Unauthorized(
                "The token is not valid: it has expired, was revoked, or never was one; ask for a new one."
            )
        return caller

    async def find_caller(self, token: str) -> Caller | None:
        token_hash = hash_token(token)
        known = self.tokens.get(token_hash)
        if known is not None and known.expires_at_us > self.clock.now_us():
            return known
        before = self.revocations
        caller = await self.store.read(tokens.find_token, token_hash)
        if caller is not None and self.settings.caches_tokens and before == self.revocations:
            if len(self.tokens) >= TOKEN_CACHE_MAX:
                self.tokens.clear()
            self.tokens[token_hash] = caller
        return caller


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
