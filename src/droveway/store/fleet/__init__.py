"""Facts of hosts and services."""
