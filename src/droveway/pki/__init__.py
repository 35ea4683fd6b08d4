"""Certificates as files and bytes: at the CA, and on a host."""
