"""The rows of `./dev bench migration`."""
