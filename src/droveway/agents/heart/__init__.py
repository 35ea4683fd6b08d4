"""The heart of a host: a lean process of its own, the standard library alone."""
