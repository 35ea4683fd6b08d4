"""What networks may be, which address is free, and what of it all a host must know: decisions, as pure functions."""
