"""Block storage v3."""
