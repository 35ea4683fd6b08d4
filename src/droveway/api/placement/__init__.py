"""Placement 1.x, as a view."""
