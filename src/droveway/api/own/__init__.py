"""Droveway's own API, beside OpenStack's."""
