"""Volumes as images of a pool of Ceph."""
