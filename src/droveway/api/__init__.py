"""OpenStack's shape: routes.py is the whole API on one page. Reads facts, writes intent, never commands a host."""
