"""Hosts with libvirt and QEMU."""
