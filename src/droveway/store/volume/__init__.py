"""The rows of block storage."""
