"""The configuration: one typed statement of each key. A wrong one does not start, and says which key is wrong."""
