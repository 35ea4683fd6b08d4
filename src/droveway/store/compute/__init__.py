"""Facts of instances, their flavors, groups, quotas, migrations and placements."""
