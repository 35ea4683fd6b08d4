"""The first administrator: a control makes it, and writes its random password into clouds.yaml at every start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from droveway.api.discovery import served
from droveway.api.identity.passwords import hash_password
from droveway.config.file import Config
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.clock import SystemNames
from droveway.ports.clock import Clock
from droveway.store.compute import flavors
from droveway.store.engine.transaction import Store, Tx
from droveway.store.identity import accounts, catalog, directories
from droveway.store.volume import types

log = structlog.get_logger("droveway")
ADMIN = "admin"
LOOK_S, SAY_EVERY_S = 0.2, 10.0


async def make(config: Config, store: Store) -> None:
    """An empty store gets its domain, roles, flavors and an admin whose random password stands in clouds.yaml."""
    kept = Path(config.state_path) / "admin-password"
    is_new = not kept.exists()
    if is_new:
        # Written before the user is made: a crash in between leaves a password that fits.
        temporary = kept.with_suffix(".new")
        temporary.write_text(SystemNames().secret())
        temporary.rename(kept)
    password = kept.read_text()
    hashed = await asyncio.to_thread(hash_password, password)
    is_ours = await store.run(accounts.seed, hashed) or not is_new
    await store.run(flavors.seed)
    await store.run(types.seed)
    if config.identity.ldap is not None:
        await store.run(directories.make_domain, config.identity.ldap.domain)
    await store.run(catalog.seed, served(with_network=bool(config.network.driver)), config.api.region)
    if not is_ours:
        kept.unlink()
        log.info("the first admin was made by another control, which keeps the password in its state_path")
    elif config.api.clouds_yaml:
        _write_clouds_yaml(Path(config.api.clouds_yaml), config, password)


async def wait_for(store: Store, clock: Clock) -> None:
    """Until a control has made it: before that no login is possible."""
    waited_s = 0.0
    while not await store.read(_is_there):
        if waited_s % SAY_EVERY_S < LOOK_S:
            log.warning("this API waits", because="no control has made the first admin in this database yet")
        await clock.sleep(LOOK_S)
        waited_s += LOOK_S


def _is_there(tx: Tx) -> bool:
    return accounts.find_user(tx, name=ADMIN, domain_id=accounts.DEFAULT_DOMAIN_ID) is not None


def _write_clouds_yaml(path: Path, config: Config, password: str) -> None:
    trust = f"    cacert: {config.api.tls_ca}\n" if config.api.tls_ca else ""
    text = f"""clouds:
  droveway:
    auth:
      auth_url: {config.api_url}/identity/v3
      username: admin
      password: {password}
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
    region_name: {config.api.region}
    identity_api_version: 3
{trust}"""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    except OSError as error:
        raise WrongConfiguration(f"api.clouds_yaml = {path} cannot be written: {error.strerror}") from None
