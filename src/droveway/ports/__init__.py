"""Questions we ask the world: Protocols with the guarantees a driver must give, and nothing that answers them."""
