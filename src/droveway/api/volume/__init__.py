"""Block storage v3, as far as it is built."""
