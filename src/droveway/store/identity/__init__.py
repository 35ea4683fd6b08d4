"""Facts of identity: domains, projects, users, roles, tokens."""
