"""What guests are told of themselves, at 169.254.169.254: kept by the network agent of their host, and served by a
small process beside it that outlives it."""
