"""Who a joining host is to be at the broker: an identity of its own, or, in a lab, the user that all hosts share."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from droveway.api.wiring import Identity
from droveway.config.file import AgentsNatsConfig, AgentsRabbitmqConfig
from droveway.domain import broker_rights
from droveway.domain.faults import Conflict
from droveway.drivers.bus import rabbitmq_identity
from droveway.drivers.bus.broker_messages import word
from droveway.ports.clock import Clock, Names

USER_KEY = re.compile(r"U[A-Z2-7]{55}")  # in the place of a host: of one whose token is older than keys by name
Identify = Callable[[str], Awaitable[Identity]]
SHARED = (
    "this host shares {who} of the broker with every other host, so each of them hears what is meant for all and can "
    "answer for all: that is for labs; docs/operating.md tells how each host gets an identity of its own"
)


def nats(theirs: AgentsNatsConfig, prefix: str, clock: Clock) -> Identify:
    """A token signed by control. Raises WrongConfiguration when the key cannot be used."""
    from droveway.drivers.bus import nats_identity

    signer = nats_identity.signing_key(theirs.signing_key)

    async def identify(host: str) -> Identity:
        name = word(host)
        token = nats_identity.user_token(
            signer,
            signer.user_of(host),
            f"host {host}",
            broker_rights.publish_subjects(prefix, name),
            broker_rights.subscribe_subjects(prefix, name),
            clock.now_us() // 1_000_000,
            theirs.account,
        )
        return Identity({"user": "", "password": "", "jwt": token})

    return identify


def rabbitmq(
    theirs: AgentsRabbitmqConfig, prefix: str, virtual_host: str, names: Names, taken: Collection[str] = ()
) -> Identify:
    """A user of the broker, made there where its management API is known and answers. `taken`: users who are no hosts;
    one that was made anew under such a name would lock a control out."""
    management = None
    if theirs.management_url:
        management = rabbitmq_identity.Management(
            theirs.management_url, theirs.management_user, theirs.management_password
        )

    async def identify(host: str) -> Identity:
        name, password = f"{prefix}-{host}", f"p{names.secret()}"  # never read as an option
        if name in taken:
            raise Conflict(
                f"The broker's user {name} is not a host's, and would be made anew as that of host {host}: "
                "join under another name, with another token."
            )
        rights = broker_rights.rabbitmq(prefix, word(host))
        settings = {"user": name, "password": password, "makes_exchange": False}
        why = "this API does not know the broker's management API (agents.rabbitmq.management_url)"
        if management is not None:
            try:
                await asyncio.to_thread(rabbitmq_identity.make, management, name, password, virtual_host, rights)
                return Identity(settings)
            except rabbitmq_identity.NotAHosts as fault:
                raise Conflict(f"{fault}: host {host} joins under another name, with another token.") from None
            except rabbitmq_identity.UserNotCreated as fault:
                why = str(fault)
        note = f"{why}; type these where the broker is, before this host's agent can connect:"
        return Identity(settings, note, tuple(rabbitmq_identity.commands(name, password, virtual_host, rights)))

    return identify


def shared(user: str) -> Identify:
    """For labs, and it says so."""

    async def identify(host: str) -> Identity:
        return Identity({}, SHARED.format(who=f"the user {user}" if user else "the open door"))

    return identify


# -- what a NATS server must know for it ------------------------------------------------------------------------------
NATS_CONF = """\
# Include this in the configuration of every server: include {conf}
operator: {operator}
resolver: MEMORY
resolver_preload: {{
  {account}: {token}
}}
"""
CONTROL_PART = """\
# For the files of every control and API.
[nats]
jwt = "{token}"

[agents.nats]
signing_key = "{seed}"
"""


def make_nats_keys(directory: Path, prefix: str, clock: Clock, names: Names) -> list[Path]:
    """Everything for a NATS server with signed identities, as files that are written there. Raises Conflict."""
    from droveway.drivers.bus import nats_identity as ids

    operator, account = (
        ids.KeyPair.made_of(ids.OPERATOR, names.secret()),
        ids.KeyPair.made_of(ids.ACCOUNT, names.secret()),
    )
    control, now_s = ids.KeyPair.made_of(ids.USER, names.secret()), clock.now_us() // 1_000_000
    seed, conf = directory / "account.seed", directory / "nats-identities.conf"
    everything = (f"{prefix}.>",)
    texts = {
        conf: NATS_CONF.format(
            conf=conf,
            operator=ids.operator_token(operator, now_s),
            account=account.public,
            token=ids.account_token(operator, account.public, now_s),
        ),
        seed: account.seed + "\n",
        directory / "operator.seed": operator.seed + "\n",
        directory / "control-part.toml": CONTROL_PART.format(
            token=ids.user_token(account, control.public, "control", everything, everything, now_s), seed=seed
        ),
    }
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if there := [path for path in texts if path.exists()]:
            raise Conflict(
                f"{there[0]} is there already; keys that are in use are never made anew: name another directory"
            )
        for path, text in texts.items():
            path.touch(0o600)
            path.write_text(text)
    except OSError as error:
        raise Conflict(f"{error.filename} cannot be written: {error.strerror}") from None
    return list(texts)


def revoke_nats_users(directory: Path, hosts: Sequence[str], clock: Clock) -> Path:
    """The file that NATS servers include, anew: what joining has told these hosts until now is good no longer. Raises
    Conflict."""
    from droveway.drivers.bus import nats_identity as ids

    conf, path = directory / "nats-identities.conf", directory
    try:
        operator = ids.seed_in(str(path := directory / "operator.seed"), ids.OPERATOR, "an operator begins with SO")
        account = ids.seed_in(str(path := directory / "account.seed"), ids.ACCOUNT, "an account begins with SA")
        text = (path := conf).read_text()
        found = re.search(r"^  A[A-Z2-7]{55}: (\S+)$", text, re.MULTILINE)
        if found is None:
            raise ValueError("it is not as 'droveway nats-keys' writes it")
        users = [host if USER_KEY.fullmatch(host) else account.user_of(host) for host in hosts]
        token = ids.revoked(operator, found[1], users, clock.now_us() // 1_000_000)
        made = conf.with_name(f"{conf.name}.{os.getpid()}")
        made.touch(0o600)
        made.write_text(text[: found.start(1)] + token + text[found.end(1) :])
        made.rename(conf)
    except OSError as error:
        raise Conflict(
            f"{error.filename} cannot be used: {error.strerror}; name the directory that 'droveway nats-keys' made, "
            "with operator.seed in it"
        ) from None
    except ValueError as error:
        raise Conflict(f"{path}: {error}") from None
    return conf
