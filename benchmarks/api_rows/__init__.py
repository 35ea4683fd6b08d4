"""What each API costs, a file a subject."""
