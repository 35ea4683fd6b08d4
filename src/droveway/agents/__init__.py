"""Hands on each host. No database, no columns: an agent knows its hypervisor, its fences and the bus."""
