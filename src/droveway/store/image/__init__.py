"""Facts of images."""
