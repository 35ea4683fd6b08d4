"""Consoles: who may see one, sessions of them, and the pages in which they are shown."""
