"""Facts of work: sagas, leases, events."""
