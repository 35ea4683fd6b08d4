"""The membership drivers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from droveway.config.membership import Access, MembershipSettings, problems
from droveway.domain.faults import WrongConfiguration
from droveway.ports.clock import Clock

if TYPE_CHECKING:
    from droveway.ports.membership import ServiceGroup
    from droveway.store.engine.transaction import Store


def service_group(settings: MembershipSettings, clock: Clock, store: Store | None = None) -> ServiceGroup | None:
    """This process's end of the chosen driver, not yet opened; None for `bus`, whose beats the observer judges itself,
    and for `db` in a process without a store: its beats travel over the bus to one that has it.

    A driver's library is imported only when it is chosen. Raises WrongConfiguration."""
    for reason in problems(settings):
        raise WrongConfiguration(reason)
    address = "".join(getattr(settings, settings.driver).address.split()) if settings.driver in _SERVERS else ""
    match settings.driver:
        case "db" if store is not None:
            from droveway.drivers.membership.db import DbServiceGroup, DbSettings

            return DbServiceGroup(
                DbSettings(settings.report_interval_s, settings.service_down_time_s, settings.initial_delay),
                clock,
                store,
            )
        case "zookeeper":
            from droveway.drivers.membership.zookeeper import ZookeeperServiceGroup, ZookeeperSettings

            z = settings.zookeeper
            return ZookeeperServiceGroup(
                ZookeeperSettings(
                    address, z.sg_prefix, z.sg_retry_interval, z.session_timeout, z.tick_time, **_access(z)
                ),
                clock,
            )
        case "memcached":
            from droveway.drivers.membership.memcached import MemcachedServiceGroup, MemcachedSettings

            return MemcachedServiceGroup(
                MemcachedSettings(
                    address,
                    report_interval_s=settings.report_interval_s,
                    service_down_time_s=settings.service_down_time_s,
                    **_access(settings.memcached),
                ),
                clock,
            )
        case "etcd":
            from droveway.drivers.membership.etcd import EtcdServiceGroup, EtcdSettings

            e = settings.etcd
            return EtcdServiceGroup(EtcdSettings(address, e.prefix, e.lease, **_access(e)), clock)
    return None


def _access(access: Access) -> dict[str, str]:
    return {name: getattr(access, name) for name in Access.__struct_fields__}


_SERVERS = {"zookeeper", "memcached", "etcd"}
