"""Volumes: disks that outlive the servers they are attached to."""
