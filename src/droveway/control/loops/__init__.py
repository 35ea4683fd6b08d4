"""What must always hold. A loop takes no arguments, is idempotent, runs by interval or nudge, one at a time."""
