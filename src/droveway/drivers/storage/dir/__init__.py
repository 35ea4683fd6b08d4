"""Volumes as raw files in a directory that the hosts share."""
