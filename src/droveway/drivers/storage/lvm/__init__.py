"""Volumes as logical volumes of an LVM volume group, served to other hosts over NBD."""
