"""Rows of benchmarks/volumes.py that are about servers and their volumes."""
