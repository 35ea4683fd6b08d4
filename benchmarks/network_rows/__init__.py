"""The rows of `./dev bench network`."""
