"""The membership drivers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from droveway.config.drivers import MEMBERSHIPS
from droveway.config.membership import MembershipSettings, problems
from droveway.domain.faults import WrongConfiguration
from droveway.ports.clock import Clock
from droveway.process.load import load

if TYPE_CHECKING:
    from droveway.ports.membership import ServiceGroup
    from droveway.store.engine.transaction import Store


def service_group(settings: MembershipSettings, clock: Clock, store: Store | None = None) -> ServiceGroup | None:
    """This process's end of the chosen driver, not yet opened; None for `bus`, whose beats the observer takes itself,
    and for `db` in a process without a store: its beats travel over the bus to one that has it.

    A driver's library is imported only when it is chosen. Raises WrongConfiguration."""
    for reason in problems(settings):
        raise WrongConfiguration(reason)
    driver = MEMBERSHIPS[settings.driver]
    if not driver.start:
        return None
    made: ServiceGroup | None = load(driver.start)(settings, clock, store)
    return made
