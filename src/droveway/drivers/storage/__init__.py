"""Backends of volumes: a driver a kind of storage, the simulated one beside the real ones, under one contract."""
