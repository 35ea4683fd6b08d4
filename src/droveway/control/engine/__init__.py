"""Carries sagas to their end."""
