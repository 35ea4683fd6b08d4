"""[migration]: how guests are moved while they run (docs/live-migration.md)."""

from __future__ import annotations

import msgspec

from droveway.domain.migration_ladder import AT_ONCE_MAX, DOWNTIME_LEAST_MS, DOWNTIME_MOST_MS, CopyTarget, Policy

DAY_S = 24 * 3600
MIB_S_MAX = 1 << 20


class MigrationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`policy` and `downtime_ms` are what a server has that says nothing else, by its metadata or its flavor."""

    policy: str = "auto-converge"  # of a guest that writes too fast: auto-converge | post-copy | pause | never-slow
    downtime_ms: int = 300  # how long a guest may stand still at its switch
    downtime_max_ms: int = 1000  # to which that is raised where the guest could not be switched otherwise
    timeout: float = 3600.0  # after which a copy is given up, or completed at any price, by its policy; 0: never
    post_copy_after: float = 10.0  # of its first pass, after which the policy post-copy does not wait for its end
    bandwidth_mib_s: int = 0  # of each copy, but for post-copy; 0: as much as there is
    max_concurrent_live_migrations: int = 4  # away from one host; the others are queued

    @property
    def target(self) -> CopyTarget:
        return CopyTarget(
            Policy(self.policy),
            self.downtime_ms,
            self.downtime_max_ms,
            self.timeout,
            self.post_copy_after,
            self.bandwidth_mib_s,
        )


def numbers(migration: MigrationConfig) -> list[tuple[str, float, float, float, str]]:
    least, most = DOWNTIME_LEAST_MS, DOWNTIME_MOST_MS
    at_once = migration.max_concurrent_live_migrations
    return [
        ("migration.downtime_ms", migration.downtime_ms, least, most, "ms, such as 300"),
        ("migration.downtime_max_ms", migration.downtime_max_ms, least, most, "ms, such as 1000"),
        ("migration.timeout", migration.timeout, 0, 30 * DAY_S, "seconds, such as 3600.0"),
        ("migration.post_copy_after", migration.post_copy_after, 0, DAY_S, "seconds, such as 10.0"),
        ("migration.bandwidth_mib_s", migration.bandwidth_mib_s, 0, MIB_S_MAX, "MiB a second, where 0 is no limit"),
        ("migration.max_concurrent_live_migrations", at_once, 1, AT_ONCE_MAX, "copies away from a host, such as 4"),
    ]


def problems(migration: MigrationConfig) -> list[str]:
    """Every sentence that is wrong with it beyond its types and bounds."""
    found = []
    if migration.policy not in {policy.value for policy in Policy}:
        found.append(f"migration.policy = {migration.policy!r} must be {', '.join(Policy)}")
    if migration.downtime_max_ms < migration.downtime_ms:
        found.append(
            f"migration.downtime_max_ms = {migration.downtime_max_ms} must be at least migration.downtime_ms, "
            f"which is {migration.downtime_ms}"
        )
    return found
