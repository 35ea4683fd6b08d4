"""Where the bytes of volumes lie: a folder a backend, under one contract (ports/storage.py)."""
