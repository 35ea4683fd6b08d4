"""Rows of benchmarks/volumes.py, a file a part."""
