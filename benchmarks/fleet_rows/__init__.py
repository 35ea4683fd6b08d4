"""The rows of the fleet benchmark, and what they are measured on."""
